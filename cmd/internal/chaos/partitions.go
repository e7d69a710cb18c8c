package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
)

// wiring is what parts members, and joins them again.
type wiring interface {
	// lose makes everything that one member sends to another vanish, silently, in this direction only; heal ends it.
	lose(ctx context.Context, l link) error
	heal(ctx context.Context, l link) error
	// plug sets whether a member reaches any other, and is reached.
	plug(ctx context.Context, member int, up bool) error
	// deaf reports whether devices do not reach an unplugged member either.
	deaf() bool
	close() error
}

// network is a bridge of this machine with a member in a network namespace at each of its ports. This machine itself is
// at the bridge too: devices and operators' commands reach every member whose port is up.
type network struct {
	name string
	net  int // the third number of its addresses
	n    int
}

// link is a direction between two members.
type link struct{ from, to int }

// nowhere is a hardware address that nobody has: what is sent there is lost without a word.
const nowhere = "02:00:00:00:00:fe"

func (w *network) space(i int) string   { return fmt.Sprintf("%s-%d", w.name, i) }
func (w *network) port(i int) string    { return fmt.Sprintf("%sp%d", w.name, i) }
func (w *network) address(i int) string { return fmt.Sprintf("10.213.%d.%d", w.net, i+1) }

func ip(ctx context.Context, args ...string) error {
	_, err := consortium.Command(ctx, "ip", args...)
	return err
}

// newNetwork builds it. close takes it down, also when it was built in part.
func newNetwork(ctx context.Context, n int) (*network, error) {
	w := &network{name: fmt.Sprintf("rc%d", os.Getpid()), net: os.Getpid() % 256, n: n}
	steps := [][]string{
		{"link", "add", w.name, "type", "bridge"},
		{"addr", "add", fmt.Sprintf("10.213.%d.254/24", w.net), "dev", w.name},
		{"link", "set", w.name, "up"},
	}
	for i := range n {
		steps = append(steps, []string{"netns", "add", w.space(i)},
			[]string{"link", "add", w.port(i), "type", "veth", "peer", "name", "eth0", "netns", w.space(i)},
			[]string{"link", "set", w.port(i), "master", w.name, "up"},
			[]string{"-n", w.space(i), "addr", "add", w.address(i) + "/24", "dev", "eth0"},
			[]string{"-n", w.space(i), "link", "set", "lo", "up"},
			[]string{"-n", w.space(i), "link", "set", "eth0", "up"})
	}
	for _, args := range steps {
		if err := ip(ctx, args...); err != nil {
			return w, err
		}
	}
	return w, nil
}

// close removes everything, as far as it is there.
func (w *network) close() error {
	ctx := context.Background() // also after an interrupt
	var errs []error
	for i := range w.n {
		// The link first: a namespace goes only when the last of its connections has, and takes its links with it then.
		errs = append(errs, ip(ctx, "link", "del", w.port(i)), ip(ctx, "netns", "del", w.space(i)))
	}
	return errors.Join(append(errs, ip(ctx, "link", "del", w.name))...)
}

// places are where the members listen.
func (w *network) places() (out []consortium.Place) {
	for i := range w.n {
		out = append(out, consortium.Place{Device: w.address(i) + ":7420", Mesh: w.address(i) + ":7421", Within: []string{"ip", "netns", "exec", w.space(i)}})
	}
	return out
}

// plug sets a member's only link up or down.
func (w *network) plug(ctx context.Context, member int, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return ip(ctx, "link", "set", w.port(member), state)
}

func (w *network) deaf() bool { return true }

func (w *network) lose(ctx context.Context, l link) error {
	return ip(ctx, "-n", w.space(l.from), "neigh", "replace", w.address(l.to), "lladdr", nowhere, "dev", "eth0", "nud", "permanent")
}

func (w *network) heal(ctx context.Context, l link) error {
	return ip(ctx, "-n", w.space(l.from), "neigh", "del", w.address(l.to), "dev", "eth0")
}

// cannotPart says why this machine cannot part members, or nothing.
func cannotPart(ctx context.Context) string {
	if os.Geteuid() != 0 {
		return "network namespaces take root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "no ip on this machine"
	}
	w, err := newNetwork(ctx, 1)
	if err = errors.Join(err, w.close()); err != nil {
		return "a network namespace with a link cannot be made here: " + last(err.Error())
	}
	return ""
}

// parting is one partition: the links that lose everything, and the members whose plug is drawn.
type parting struct {
	about string
	links []link
	plugs []int
	hold  time.Duration
	wait  time.Duration
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// partings draws partitions. The leader of the moment is filled in when they come: member 0 of a parting is whoever leads.
func partings(seed uint64, count, n int) (out []parting) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for i := range count {
		p := parting{wait: 300*time.Millisecond + time.Duration(rng.Int64N(int64(2500*time.Millisecond))), hold: 500*time.Millisecond + time.Duration(rng.Int64N(int64(7*time.Second)))}
		lead, other := 0, 1+rng.IntN(n-1)
		third := 1 + (other+rng.IntN(n-2))%(n-1)
		if i%5 == 2 {
			p.hold = biteAfter
		}
		switch rng.IntN(8) {
		case 0:
			p.about, p.plugs = "the leader is unplugged", []int{lead}
		case 1:
			p.about, p.plugs = "a follower is unplugged", []int{other}
		case 2:
			p.about = "two halves"
			for _, a := range []int{lead, other} {
				for b := range n {
					if b != lead && b != other {
						p.links = append(p.links, link{a, b}, link{b, a})
					}
				}
			}
		case 3:
			p.about = "the leader is not heard"
			for b := 1; b < n; b++ {
				p.links = append(p.links, link{lead, b})
			}
		case 4:
			p.about = "the leader hears nobody"
			for b := 1; b < n; b++ {
				p.links = append(p.links, link{b, lead})
			}
		case 5:
			p.about, p.links = "two members do not reach each other, both reach the rest", []link{{lead, other}, {other, lead}}
		case 6:
			p.about, p.links = "one direction between two members is lost", []link{{other, third}}
		case 7:
			p.about = "all members are alone"
			for a := range n {
				for b := range n {
					if a != b {
						p.links = append(p.links, link{a, b})
					}
				}
			}
		}
		out = append(out, p)
	}
	return out
}

// lead renumbers a parting so that its member 0 is the leader.
func (p parting) lead(leader int) parting {
	of := func(i int) int {
		switch i {
		case 0:
			return leader
		case leader:
			return 0
		}
		return i
	}
	p.links, p.plugs = slices.Clone(p.links), slices.Clone(p.plugs)
	for i, l := range p.links {
		p.links[i] = link{of(l.from), of(l.to)}
	}
	for i := range p.plugs {
		p.plugs[i] = of(p.plugs[i])
	}
	return p
}

// runPartitions is the verb.
func runPartitions(ctx context.Context, o options, say func(string, ...any)) (_ *Result, err error) {
	r := newResult(ctx, "partitions", "4 members in network namespaces joined by a bridge: links down, halves, one direction lost without a word, members alone, for 0.5 to 7.5 s, while devices contribute", o.command, o.seed)
	began := time.Now()
	dir, tidy, err := workplace(o.keep)
	if err != nil {
		return nil, err
	}
	defer func() { tidy(err == nil && len(r.Violations) == 0) }()
	var w wiring
	var places []consortium.Place
	defer func() {
		if w == nil {
			return
		}
		if cerr := w.close(); cerr != nil {
			say("a part of the network stays: %v", cerr)
		}
	}()
	watch := func([]*consortium.Process) {}
	if why := cannotPart(ctx); why == "" && !o.proxy {
		n, err := newNetwork(ctx, membersOfRun)
		if w, places = n, n.places(); err != nil {
			return nil, err
		}
	} else {
		if runtime.GOOS != "linux" {
			r.Skipped = why + ", and a proxy cannot tell whose connections it carries"
			return r, nil
		}
		say("through proxies: %s", orElse(why, "as told"))
		r.About = "4 members behind proxies in one process: halves, one direction held back, members alone, for 0.5 to 7.5 s, while devices contribute"
		r.Layer = "partitions by proxies"
		r.Command += " PROXY=1"
		p, at, err := newProxies(membersOfRun)
		if err != nil {
			return nil, err
		}
		w, places, watch = p, at, p.watch
	}
	a, err := open(ctx, setting{programs: o.programs, dir: dir, members: membersOfRun, faults: faultsOfRun, devices: o.devices, values: o.values, seed: o.seed, places: places, watch: watch, say: say})
	if err != nil {
		return nil, err
	}
	defer a.close()
	kinds := map[string]int{}
	var order []string
	var cutAt []time.Time
	asked, long := 0, 0
	plan := partings(o.seed, o.kills, membersOfRun)
	for n, p := range plan {
		if err := pause(ctx, p.wait); err != nil {
			return nil, err
		}
		if err := a.c.AwaitLeader(ctx, returnWait); err != nil {
			r.Violations = append(r.Violations, fmt.Sprintf("after partition %d (%s): %v", n, plan[max(0, n-1)].about, err))
			break
		}
		leader, err := a.c.Leader(ctx)
		if err != nil {
			leader = 0 // it has just changed
		}
		if kinds[p.about]++; kinds[p.about] == 1 {
			order = append(order, p.about)
		}
		cutAt = append(cutAt, time.Now())
		bit, err := part(ctx, w, a.c, p.lead(leader))
		if err != nil {
			return nil, err
		}
		if p.hold >= biteAfter {
			long++
			if !bit {
				r.Violations = append(r.Violations, fmt.Sprintf("partition %d (%s) is none: its members still reach each other", n+1, p.about))
				break
			}
		}
		if err := a.c.Failed(); err != nil {
			r.Violations = append(r.Violations, err.Error())
			break
		}
		if (n+1)%checkEvery != 0 {
			continue
		}
		e, err := a.gather(ctx)
		if err != nil {
			return nil, err
		}
		f := e.Check()
		count, unheld := a.held(ctx, f.Promises)
		asked += count
		say("%d of %d partitions: %d rounds published, %d died, %d acks, %d sums equal the plain sum", n+1, len(plan), f.Published, f.DeadRound, f.Acks, f.Sums)
		if wrong := append(f.Violations, unheld...); len(wrong) > 0 {
			r.Violations = append(r.Violations, wrong...)
			break
		}
	}
	_, f, err := finish(ctx, a, r)
	if err != nil {
		return nil, err
	}
	r.count("partitions", len(cutAt))
	slices.Sort(order)
	for _, about := range order {
		r.count("of these: "+about, kinds[about])
	}
	r.count("partitions long enough for the members to say that they do not reach each other, and they did", long)
	tally(r, a, f)
	r.count("questions whether a signer holds what it signed for", asked)
	begun, _ := recoveries(a.uploads(), cutAt, nil)
	r.timed("from a partition to the ack of the next upload begun after it, partitions of all members included", "devices' clocks, 1 ms; the turn of rounds and the devices' own pauses (up to 1.5 s) are within", begun)
	r.Seconds = time.Since(began).Round(time.Second).Seconds()
	return r, nil
}

// part carries one partition out and heals it, whatever happens. It reports whether the members feel it in the end.
func part(ctx context.Context, w wiring, c *consortium.Consortium, p parting) (bit bool, err error) {
	for _, l := range p.links {
		if err := w.lose(ctx, l); err != nil {
			return false, err
		}
	}
	for _, m := range p.plugs {
		if err := w.plug(ctx, m, false); err != nil {
			return false, err
		}
	}
	if err = pause(ctx, p.hold); err == nil && p.hold >= biteAfter {
		bit = felt(ctx, w, c, p)
	}
	for _, m := range p.plugs {
		err = errors.Join(err, w.plug(ctx, m, true))
	}
	for _, l := range p.links {
		err = errors.Join(err, w.heal(ctx, l))
	}
	return bit, err
}

// felt asks a member on each side of each cut: one that is unplugged does not answer, one that cannot send to another
// does not reach it.
func felt(ctx context.Context, w wiring, c *consortium.Consortium, p parting) bool {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	links := slices.Clone(p.links)
	for _, m := range p.plugs {
		call, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.Clients[m].ListRounds(call, &coordpb.ListRoundsRequest{})
		cancel()
		if w.deaf() == (err == nil) {
			return false
		}
		for i := range c.Clients {
			if i != m {
				links = append(links, link{i, m})
			}
		}
	}
	for _, l := range links {
		list, err := c.Clients[l.from].ListMembers(ctx, &coordpb.ListMembersRequest{})
		if err != nil || len(list.GetMembers()) != len(c.Clients) || list.GetMembers()[l.to].GetReachable() {
			return false
		}
	}
	return true
}
