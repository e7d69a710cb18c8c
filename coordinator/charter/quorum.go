package charter

import "fmt"

// sizes are the rows of SA 2.2. A pair outside the table has no argument for its safety or liveness.
var sizes = [...][2]int{{1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {5, 2}, {7, 2}, {7, 3}}

// CheckSize refuses a pair (n, f) that is not a row of SA 2.2.
func CheckSize(n, f int) error {
	for _, s := range sizes {
		if s == [2]int{n, f} {
			return nil
		}
	}
	return fmt.Errorf("n %d with f %d is not in the table of sizes: (1,0) (2,1) (3,1) (4,1) (5,1) (5,2) (7,2) (7,3)", n, f)
}

// Quorum is q = ⌊(n+f)/2⌋+1 votes: two quorums share more than f members (SA 2.2).
func Quorum(n, f int) int { return (n+f)/2 + 1 }

// Needed is how many members have to be up for a round to end: max(Raft majority, q, 2f+1), at most n.
func (c *Charter) Needed() int { return min(c.N, max(c.N/2+1, c.Q, 2*c.F+1)) }

// ActiveMin is the least size of a Close's M: min(n, 2f+1), so that every subset has f+1 holders in M.
func (c *Charter) ActiveMin() int { return min(c.N, 2*c.F+1) }

// AckReceipts is how many receipts are a device's ack: n-f, at least f+1 where there are so many members (SA 2.2).
func (c *Charter) AckReceipts() int { return min(c.N, max(c.N-c.F, c.F+1)) }

// Believe is how many members have to say the same of a value that any of them could falsify: f+1.
func (c *Charter) Believe() int { return min(c.N, c.F+1) }

// BelieveSubset is how many of a subset's n-f holders have to sign the same T-sum: f+1, or all there are (SA 2.3, Unmask).
func (c *Charter) BelieveSubset() int { return min(c.N-c.F, c.F+1) }
