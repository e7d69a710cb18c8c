package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/node/participant"
)

// killer carries a schedule out.
type killer struct {
	a     *arena
	needs int // members that have to be up for rounds to go on

	mu        sync.Mutex // guards what follows
	away      map[int]bool
	last      int
	memberN   int
	leaderN   int
	deviceN   int
	suspended int
	blackouts int
	leaderAt  []time.Time // when a leader was killed, and no blackout began
	aloneAt   []time.Time // of these: all members had answered just before, and heard it
	struckAt  []time.Time // when any member was killed or suspended
	returning sync.WaitGroup
	errs      []error

	truths  []time.Duration // until the operators' commands told of a kill
	backs   []time.Duration // and of the start after it
	devices []time.Duration // until the status of a killed device told of it
	lies    []string
}

// options of a run of kills.
type options struct {
	programs consortium.Programs
	kills    int // or disks cut, or partitions
	devices  int
	values   int
	seed     uint64
	keep     string
	command  string
	proxy    bool // partitions: by proxies, whatever the machine allows
}

const membersOfRun, faultsOfRun = 4, 1

// runKills is the verb. The result says what was found; the error that the run could not be done.
func runKills(ctx context.Context, o options, say func(string, ...any)) (_ *Result, err error) {
	r := newResult(ctx, "kills", "SIGKILL and SIGSTOP of members and devices of a running consortium of 4, the leader preferred, while devices contribute", o.command, o.seed)
	began := time.Now()
	dir, tidy, err := workplace(o.keep)
	if err != nil {
		return nil, err
	}
	defer func() { tidy(err == nil && len(r.Violations) == 0) }()
	a, err := open(ctx, setting{programs: o.programs, dir: dir, members: membersOfRun, faults: faultsOfRun, devices: o.devices, values: o.values, seed: o.seed, say: say})
	if err != nil {
		return nil, err
	}
	defer a.close()
	k := &killer{a: a, needs: a.c.Charter.Needed(), away: map[int]bool{}, last: -1}
	asked, err := k.carryOut(ctx, schedule(o.seed, o.kills, membersOfRun), o.kills, r)
	if err != nil {
		return nil, err
	}
	_, f, err := finish(ctx, a, r)
	if err != nil {
		return nil, err
	}
	r.Violations = append(r.Violations, k.lies...)
	r.count("SIGKILLs", k.memberN+k.deviceN)
	r.count("of these of a member", k.memberN)
	r.count("of these of the leader", k.leaderN)
	r.count("SIGSTOPs of 0.1 to 10 s", k.suspended)
	r.count("losses of the quorum (2 to 4 members at once)", k.blackouts)
	tally(r, a, f)
	r.count("questions whether a signer holds what it signed for", asked)
	r.count("times that status, members list, rounds list and rounds show, or a device's status, had to tell the truth", len(k.truths)+len(k.backs)+len(k.devices)+len(k.lies))
	all := a.uploads()
	begun, next := recoveries(all, k.aloneAt, k.struckAt)
	r.timed("from a kill of the leader, all others up and no other fault before the ack, to that of the next upload begun after it", "devices' clocks, 1 ms; the turn of rounds (one that lacks a device closes after 6 s) and the devices' own pauses (up to 1.5 s) are within", begun)
	r.timed("the same, to the next ack of any upload", "the same", next)
	_, next = recoveries(all, k.leaderAt, nil)
	r.timed("from any kill of a leader, members still away and further kills, stops and losses of the quorum within, to the next ack", "the same", next)
	r.timed("gap between two acks over the whole run, faults and all", "the same", gaps(all))
	r.timed("from a kill, or a lost quorum, until the operators' commands tell it", "asked again 0.3 s after each answer", k.truths)
	r.timed("from the start of these members again until the commands tell it; one that starts says so", "the same", k.backs)
	r.timed("from a kill of a device until its status tells it", "the same", k.devices)
	r.Seconds = time.Since(began).Round(time.Second).Seconds()
	return r, nil
}

// carryOut goes through the schedule. It looks at the evidence on the way and ends early when something is wrong.
func (k *killer) carryOut(ctx context.Context, plan []fault, kills int, r *Result) (asked int, err error) {
	next := checkEvery
	for _, f := range plan {
		if err := pause(ctx, f.wait); err != nil {
			return asked, err
		}
		if err := k.strike(ctx, f); err != nil {
			return asked, err
		}
		if err := k.a.c.Failed(); err != nil {
			r.Violations = append(r.Violations, err.Error())
			break
		}
		k.mu.Lock()
		n := k.memberN + k.deviceN
		k.mu.Unlock()
		if n < next {
			continue
		}
		next += checkEvery
		e, err := k.a.gather(ctx)
		if err != nil {
			return asked, err
		}
		found := e.Check()
		count, unheld := k.a.held(ctx, found.Promises)
		asked += count
		k.a.say("%d of %d kills: %d rounds published, %d died, %d acks, %d sums equal the plain sum", n, kills, found.Published, found.DeadRound, found.Acks, found.Sums)
		if wrong := append(found.Violations, unheld...); len(wrong) > 0 {
			r.Violations = append(r.Violations, wrong...)
			break
		}
	}
	k.returning.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, err := range k.errs {
		r.Violations = append(r.Violations, err.Error())
	}
	return asked, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// strike carries one fault out.
func (k *killer) strike(ctx context.Context, f fault) error {
	if f.truth || f.kind == blackout {
		k.returning.Wait() // so that it is known who is away
	}
	if f.truth {
		// One that still starts says so, and is no lie.
		all := newScene(k.a.c, nil, nil)
		for deadline := time.Now().Add(settleWait); askStatus(ctx, k.a.c).statusTells(all) != nil && time.Now().Before(deadline); {
			if err := pause(ctx, truthEvery); err != nil {
				return err
			}
		}
	}
	switch f.kind {
	case killDevice:
		return k.strikeDevice(ctx, f)
	case blackout:
		return k.strikeMany(ctx, f)
	}
	member, leader, err := k.choose(ctx, f)
	if err != nil {
		return err
	}
	alone := leader && f.kind == killMember && k.alone(ctx, member)
	at := time.Now()
	k.mu.Lock()
	k.away[member], k.last = true, member
	k.struckAt = append(k.struckAt, at)
	if f.kind == suspendMember {
		k.suspended++
	} else {
		k.memberN++
		if leader {
			k.leaderN++
			k.leaderAt = append(k.leaderAt, at)
		}
		if alone {
			k.aloneAt = append(k.aloneAt, at)
		}
	}
	k.mu.Unlock()
	p := k.a.c.Members[member]
	if f.kind == suspendMember {
		if err := p.Suspend(); err != nil {
			return err
		}
	} else {
		p.Kill()
	}
	k.comeBack(ctx, []int{member}, f, at)
	return nil
}

// strikeDevice kills a device that runs, and asks for its status before its loop starts it again.
func (k *killer) strikeDevice(ctx context.Context, f fault) error {
	d := k.a.devices[f.pick%uint64(len(k.a.devices))]
	for deadline := time.Now().Add(settleWait); ; {
		d.held.Lock()
		if d.process.Running() {
			break
		}
		d.held.Unlock()
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has not run for %s", d.name, settleWait)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	defer d.held.Unlock()
	d.process.Kill()
	k.mu.Lock()
	k.deviceN++
	k.mu.Unlock()
	asked, err := deviceTruth(ctx, k.a.c.Programs.Node, d.dir)
	k.note(ctx, &k.devices, asked, err)
	return nil
}

// alone reports that all members answer and hear this leader, so that what follows its death follows from nothing else.
func (k *killer) alone(ctx context.Context, leader int) bool {
	k.mu.Lock()
	away := len(k.away)
	k.mu.Unlock()
	if away > 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var hear atomic.Int32
	var asking sync.WaitGroup
	for i, client := range k.a.c.Clients {
		asking.Go(func() {
			list, err := client.ListMembers(ctx, &coordpb.ListMembersRequest{})
			if err != nil {
				cancel() // one is enough
				return
			}
			if m := list.GetMembers(); i < len(m) && m[i].GetStanding().GetLeader() == k.a.c.Charter.Members[leader].Name {
				hear.Add(1)
			}
		})
	}
	asking.Wait()
	return int(hear.Load()) == len(k.a.c.Clients)
}

// comeBack brings those back who were struck at this time; meanwhile the next fault comes. Where the commands are to tell
// the truth it comes only when they have told that these are down, and then that they are back.
func (k *killer) comeBack(ctx context.Context, members []int, f fault, at time.Time) {
	if !f.truth {
		for _, m := range members {
			k.returning.Go(func() { k.bringBack(ctx, m, f, at) })
		}
		return
	}
	asked, err := truth(ctx, k.a.c, members, nil)
	k.note(ctx, &k.truths, asked, err)
	for _, m := range members {
		k.bringBack(ctx, m, f, at)
	}
	asked, err = truth(ctx, k.a.c, nil, members)
	k.note(ctx, &k.backs, asked, err)
}

// choose finds the member that a fault meets. So many are up that rounds go on: it waits for those who are away. Whoever was
// started again is not away, even if it does not answer yet.
func (k *killer) choose(ctx context.Context, f fault) (member int, leader bool, err error) {
	for {
		k.mu.Lock()
		var up []int
		for i := range k.a.c.Members {
			if !k.away[i] {
				up = append(up, i)
			}
		}
		last := k.last
		k.mu.Unlock()
		if len(up) > k.needs {
			at, err := k.a.c.Leader(ctx)
			known := err == nil && slices.Contains(up, at)
			switch {
			case f.again && slices.Contains(up, last):
				return last, known && last == at, nil
			case f.leader && known:
				return at, true, nil
			case !f.leader || f.again:
				if known && len(up) > 1 && !f.again {
					up = slices.DeleteFunc(up, func(i int) bool { return i == at })
				}
				member = up[f.pick%uint64(len(up))]
				return member, known && member == at, nil
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, false, err
		}
	}
}

// strikeMany kills several members at once, the leader among them.
func (k *killer) strikeMany(ctx context.Context, f fault) error {
	var order []int
	if at, err := k.a.c.Leader(ctx); err == nil {
		order = append(order, at)
	}
	for i := range k.a.c.Members {
		if m := (i + int(f.pick%uint64(len(k.a.c.Members)))) % len(k.a.c.Members); !slices.Contains(order, m) {
			order = append(order, m)
		}
	}
	order = order[:min(f.many, len(order))]
	at := time.Now()
	k.mu.Lock()
	k.blackouts++
	k.struckAt = append(k.struckAt, at)
	k.memberN += len(order)
	k.leaderN++
	for _, m := range order {
		k.away[m] = true
	}
	k.mu.Unlock()
	for _, m := range order {
		k.a.c.Members[m].Kill()
	}
	k.comeBack(ctx, order, f, at)
	return nil
}

// bringBack waits and starts the member again, or lets it go on.
func (k *killer) bringBack(ctx context.Context, member int, f fault, struck time.Time) {
	err := pause(ctx, f.down-time.Since(struck))
	p := k.a.c.Members[member]
	switch {
	case err != nil:
	case f.kind == suspendMember:
		err = p.Resume()
	default:
		err = p.Start()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.away, member)
	if err != nil && ctx.Err() == nil {
		k.errs = append(k.errs, fmt.Errorf("%s does not come back: %w", p.Name, err))
	}
}

// note keeps how long the truth took, or the lie.
func (k *killer) note(ctx context.Context, took *[]time.Duration, asked time.Duration, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.lies = append(k.lies, err.Error())
		k.a.say("%v", err)
	default:
		*took = append(*took, asked)
	}
}

// finish lets everything settle, checks all that was said and all that is stored, and stops the members.
func finish(ctx context.Context, a *arena, r *Result) (*Evidence, *Findings, error) {
	a.say("settling")
	if err := a.settle(ctx); err != nil {
		r.Violations = append(r.Violations, "the consortium does not settle: "+err.Error())
	}
	var e *Evidence
	var f *Findings
	for deadline := time.Now().Add(settleWait); ; {
		var err error
		if e, err = a.gather(ctx); err != nil {
			return nil, nil, err
		}
		// What was acknowledged is to come to an end as long as enough members are up.
		if f = e.Check(); len(f.Promises) == 0 || time.Now().After(deadline) {
			break
		}
		if err := pause(ctx, time.Second); err != nil {
			return nil, nil, err
		}
	}
	e.Proofs = nil // the last time all of it is verified
	f = e.Check()
	_, unheld := a.held(ctx, f.Promises)
	r.Violations = append(append(r.Violations, f.Violations...), unheld...)
	if err := a.c.Failed(); err != nil {
		r.Violations = append(r.Violations, err.Error())
	}
	if err := consortium.StopAll(a.c.Members, stopWait); err != nil {
		r.Violations = append(r.Violations, err.Error())
	}
	for _, m := range a.c.Members {
		if code, _ := m.Exit(); code != 0 {
			r.Violations = append(r.Violations, fmt.Sprintf("%s ended with status %d when it was told to", m.Name, code))
		}
	}
	all, err := openAll(a.c.Dirs, a.c.Charter)
	if err == nil {
		index, digest, differ, serr := sameState(all)
		a.say("state %.12s at log index %d, %d members differ", digest, index, len(differ))
		r.Violations, err = append(r.Violations, differ...), serr
	}
	if err != nil {
		r.Violations = append(r.Violations, "the stored states cannot be read: "+err.Error())
	}
	alarms, err := alarms(a)
	r.Violations = append(r.Violations, alarms...)
	bad, _ := a.faulty()
	r.Violations = append(r.Violations, bad...)
	return e, f, err
}

// tally counts what the evidence holds.
func tally(r *Result, a *arena, f *Findings) {
	r.count("rounds published", f.Published)
	r.count("rounds that died", f.DeadRound)
	r.count("rounds open at the end", f.OpenRound)
	r.count("published sums equal to the plain sum, bit for bit", f.Sums)
	r.count("acknowledged contributions, every receipt verified", f.Acks)
	r.count("of these in the published set", f.InSet)
	r.count("of these in a round that died", f.Dead)
	left := 0
	for _, n := range f.LeftOut {
		left += n
	}
	r.count("of these left out, and the Acks say why", left)
	r.count("of these in a round that is open, held by their signers", len(f.Promises))
	_, ends := a.faulty()
	runs := 0
	for _, n := range ends {
		runs += n
	}
	r.count("runs of devices", runs)
}

// alarms are the lines in members' and devices' logs that no kill explains.
func alarms(a *arena) (out []string, err error) {
	logs, err := filepath.Glob(filepath.Join(a.dir, "*.log"))
	if err != nil {
		return nil, err
	}
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, alarmLines(filepath.Base(path), string(b))...)
	}
	return out, nil
}

func alarmLines(name, log string) (out []string) {
	for line := range strings.Lines(log) {
		for _, word := range []string{"ALARM", "panic:", "fatal error:", "internal_bug", "SIGBUS", "DATA RACE"} {
			if strings.Contains(line, word) {
				out = append(out, fmt.Sprintf("%s: %s", name, strings.TrimSpace(line)))
				break
			}
		}
	}
	return out
}

// upload is an acknowledged one: when it was begun, and when it had its ack.
type upload struct{ debited, acked time.Time }

// uploads are all that the devices' ledgers hold, in the order of their acks.
func (a *arena) uploads() (out []upload) {
	for _, d := range a.devices {
		entries, err := d.ledger()
		if err != nil {
			continue // the check of the evidence has said so
		}
		debited := map[string]time.Time{}
		for _, x := range entries {
			switch x.Kind {
			case participant.KindContribution:
				debited[x.Header.String()] = x.Time
			case participant.KindAck:
				out = append(out, upload{debited[x.Header.String()], x.Time})
			}
		}
	}
	slices.SortFunc(out, func(a, b upload) int { return a.acked.Compare(b.acked) })
	return out
}

// recoveries measures from each moment to the ack of the first upload begun after it, and to the first ack of any. Where
// one of the faults comes before that, what is measured is not the moment's, and left out.
func recoveries(all []upload, moments, faults []time.Time) (begun, next []time.Duration) {
	first := func(at time.Time, fits func(upload) bool) []time.Duration {
		i := slices.IndexFunc(all, func(u upload) bool { return u.acked.After(at) && fits(u) })
		if i < 0 || slices.ContainsFunc(faults, func(f time.Time) bool { return f.After(at) && f.Before(all[i].acked) }) {
			return nil
		}
		return []time.Duration{all[i].acked.Sub(at)}
	}
	for _, at := range moments {
		begun = append(begun, first(at, func(u upload) bool { return u.debited.After(at) })...)
		next = append(next, first(at, func(upload) bool { return true })...)
	}
	return begun, next
}

// gaps are the times between successive acks of all devices.
func gaps(all []upload) (out []time.Duration) {
	for i := 1; i < len(all); i++ {
		out = append(out, all[i].acked.Sub(all[i-1].acked))
	}
	return out
}
