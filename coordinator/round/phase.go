package round

// Phase is where a round stands. The numbering is stored.
type Phase byte

// Phases in the order of SA 2.4. Published and Dead are terminal.
const (
	Proposed  Phase = 1 + iota // in the log, short of q signatures
	Open                       // RoundCert complete: devices contribute
	Closed                     // a Close is in the log: candidates are frozen
	Acked                      // decided, for a set or for DEAD
	Sealed                     // SetCert complete: members may reveal
	Revealed                   // every sum is believed: members may sign the Result
	Published                  // f+1 equal Results
	Dead                       // certified or expired
)

// Death says how a round died.
type Death byte

const (
	NotDead   Death = iota
	Certified       // DeadCert: nothing was opened and nothing ever will be
	Expired         // the reveal deadline passed: may have been opened by liars, never published
)

var phaseNames = [...]string{"none", "proposed", "open", "closed", "acked", "sealed", "revealed", "published", "dead"}

// String is the phase's stable name.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return phaseNames[0]
}

// Terminal reports whether the round has ended. An expired round can still become a certified one.
func (p Phase) Terminal() bool { return p == Published || p == Dead }

// String is "", "certified" or "expired".
func (d Death) String() string {
	switch d {
	case Certified:
		return "certified"
	case Expired:
		return "expired"
	}
	return ""
}
