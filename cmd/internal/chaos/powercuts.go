package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node/participant"
)

// cutter cuts the power of members whose folders lie on disks of their own.
type cutter struct {
	a     *arena
	disks []*image
	cuts  int // disks that lost what was not synced
	alls  int // of all members at once
	ups   []time.Duration
	kept  int // questions whether a signer holds what it signed for, after a cut
}

// cannotCut says why this machine cannot play a power cut, or nothing.
func cannotCut(ctx context.Context, dir string) string {
	if os.Geteuid() != 0 {
		return "mounting a disk image takes root"
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "sync"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "no " + tool + " on this machine"
		}
	}
	d, err := newImage(ctx, dir, "probe")
	if err == nil {
		err = errors.Join(d.detach(ctx), os.Remove(d.file), os.Remove(d.mount))
	}
	if err != nil {
		return "a disk image cannot be mounted here: " + last(err.Error())
	}
	return ""
}

// last is the end of a message, without the folders before it.
func last(message string) string {
	return message[strings.LastIndex(message, ": ")+1:]
}

// runPowercuts is the verb: cuts of a consortium that syncs, then the control.
func runPowercuts(ctx context.Context, o options, say func(string, ...any)) (_ *Result, err error) {
	r := newResult(ctx, "powercuts", "a member is stopped, its disk (ext4 on a loop image) copied below the file system without a sync and checked not to have changed meanwhile, the member killed and "+
		"started on the copy: one member or all four at once, while devices contribute; then the same with a kernel that ignores every sync, which must lose", o.command, o.seed)
	began := time.Now()
	dir, tidy, err := workplace(o.keep)
	if err != nil {
		return nil, err
	}
	defer func() { tidy(err == nil && len(r.Violations) == 0) }()
	if r.Skipped = cannotCut(ctx, dir); r.Skipped != "" {
		return r, nil
	}
	if err := cutReal(ctx, o, filepath.Join(dir, "synced"), r, say); err != nil {
		return nil, err
	}
	lost, err := cutControl(ctx, o, filepath.Join(dir, "unsynced"), say)
	if err != nil {
		return nil, err
	}
	r.count("control without syncs: acknowledged contributions lost in one cut of all members", lost)
	if lost == 0 {
		r.Violations = append(r.Violations, "the control without syncs lost nothing: this run proves nothing")
	}
	r.Seconds = time.Since(began).Round(time.Second).Seconds()
	return r, nil
}

// openOnDisks is open with a disk for each member.
func openOnDisks(ctx context.Context, o options, dir string, within []string, say func(string, ...any)) (_ *cutter, done func(), err error) {
	k := &cutter{}
	done = func() {
		if k.a != nil {
			k.a.close()
		}
		for _, d := range k.disks {
			if err := d.detach(context.Background()); err != nil { // also after an interrupt
				say("a disk stays mounted: %v", err)
			}
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, done, err
	}
	var folders []string
	for i := range membersOfRun {
		d, err := newImage(ctx, dir, fmt.Sprintf("disk-%d", i))
		if err != nil {
			return nil, done, err
		}
		k.disks = append(k.disks, d)
		folders = append(folders, filepath.Join(d.mount, "member"))
	}
	k.a, err = open(ctx, setting{programs: o.programs, dir: dir, members: membersOfRun, faults: faultsOfRun, devices: o.devices, values: o.values, seed: o.seed, folders: folders, within: within, say: say})
	return k, done, err
}

func cutReal(ctx context.Context, o options, dir string, r *Result, say func(string, ...any)) error {
	k, done, err := openOnDisks(ctx, o, dir, nil, say)
	defer done()
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(o.seed, 1))
	for n := 0; n < o.kills && len(r.Violations) == 0; {
		if err := pause(ctx, 500*time.Millisecond+time.Duration(rng.Int64N(int64(2*time.Second)))); err != nil {
			return err
		}
		members, err := k.choose(ctx, rng, o.kills-n)
		if err != nil {
			return err
		}
		if err := k.cut(ctx, members); err != nil {
			return err
		}
		n += len(members)
		wrong, err := k.look(ctx, members)
		if err != nil {
			return err
		}
		r.Violations = append(r.Violations, wrong...)
		if n%5 < len(members) {
			say("%d of %d disks cut, %d times all at once; %d rounds so far", n, o.kills, k.alls, k.a.rec.seq())
		}
	}
	_, f, err := finish(ctx, k.a, r)
	if err != nil {
		return err
	}
	r.count("disks cut", k.cuts)
	r.count("times that all members were cut at once", k.alls)
	tally(r, k.a, f)
	r.count("questions after a cut whether a signer holds what it signed for", k.kept)
	r.timed("from the start of a member on its cut disk until it answers", "asked every 0.05 s", k.ups)
	return nil
}

// choose draws whose power is cut: the leader's, another's, or everybody's.
func (k *cutter) choose(ctx context.Context, rng *rand.Rand, most int) ([]int, error) {
	n := len(k.a.c.Members)
	switch p := rng.IntN(4); {
	case p == 0 && most >= n:
		return []int{0, 1, 2, 3}[:n], nil
	case p == 1:
		return []int{rng.IntN(n)}, nil
	}
	if err := k.a.c.AwaitLeader(ctx, returnWait); err != nil {
		return nil, err
	}
	leader, err := k.a.c.Leader(ctx)
	if err != nil {
		leader = rng.IntN(n) // it has just gone
	}
	return []int{leader}, nil
}

// cut takes the power from members: they stop, what their disks hold is copied, they die and never see it, and they are
// started on the copies.
func (k *cutter) cut(ctx context.Context, members []int) error {
	for _, m := range members {
		if err := k.a.c.Members[m].Suspend(); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := k.disks[m].copyAs(k.disks[m].file + ".cut"); err != nil {
			return err
		}
	}
	for _, m := range members {
		k.a.c.Members[m].Kill()
		d := k.disks[m]
		if err := d.detach(ctx); err != nil {
			return err
		}
		if err := os.Rename(d.file+".cut", d.file); err != nil {
			return err
		}
		if err := d.attach(ctx); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := k.a.c.Members[m].Start(); err != nil {
			return err
		}
	}
	k.cuts += len(members)
	if len(members) == len(k.disks) {
		k.alls++
	}
	return nil
}

// look wants the members back, and everything that was acknowledged with them.
func (k *cutter) look(ctx context.Context, members []int) (wrong []string, err error) {
	began := time.Now()
	for _, m := range members {
		if err := answers(ctx, k.a.c, m); err != nil {
			return []string{fmt.Sprintf("%s does not come back from a power cut: %v", k.a.c.Members[m].Name, err)}, ctx.Err()
		}
		k.ups = append(k.ups, time.Since(began))
	}
	if len(members) == len(k.disks) {
		if wrong, err = k.a.forgotten(ctx); err != nil {
			return nil, err
		}
	}
	e, err := k.a.gather(ctx)
	if err != nil {
		return nil, err
	}
	f := e.Check()
	asked, unheld := k.a.held(ctx, f.Promises)
	k.kept += asked
	return append(append(wrong, f.Violations...), unheld...), nil
}

// answers returns when a member answers at its device port.
func answers(ctx context.Context, c *consortium.Consortium, member int) error {
	deadline := time.Now().Add(returnWait)
	for {
		call, cancel := context.WithTimeout(ctx, askWait)
		_, err := c.Clients[member].ListMembers(call, &coordpb.ListMembersRequest{}) // of rounds it may know nothing yet
		cancel()
		if err == nil {
			return nil
		}
		if failed := c.Members[member].Failed(); failed != nil {
			return failed
		}
		if time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, answerEvery); err != nil {
			return err
		}
	}
}

// forgotten lists the devices' newest acknowledged contributions whose rounds fewer members know than signed for them:
// after all lost their memory, only their disks can have kept it. Members may take a while to read their logs.
func (a *arena) forgotten(ctx context.Context) (out []string, err error) {
	for deadline := time.Now().Add(returnWait); ; {
		known := map[label.Hash]int{}
		for _, client := range a.c.Clients {
			call, cancel := context.WithTimeout(ctx, askWait)
			list, err := client.ListRounds(call, &coordpb.ListRoundsRequest{})
			cancel()
			if err != nil {
				continue
			}
			for _, line := range list.GetRounds() {
				if id, err := label.HashFromBytes(line.GetRoundId()); err == nil {
					known[id]++
				}
			}
		}
		out = nil
		for _, d := range a.devices {
			entries, err := d.ledger()
			if err != nil {
				return nil, err
			}
			entries = slices.DeleteFunc(entries, func(x participant.Entry) bool { return x.Kind != participant.KindAck })
			for _, x := range entries[max(0, len(entries)-roundsRecent):] {
				if known[x.Round] < a.c.Charter.AckReceipts() {
					out = append(out, fmt.Sprintf("%s was acknowledged in round %d, which %d members know after a power cut of all", d.name, x.Seq, known[x.Round]))
				}
			}
		}
		if len(out) == 0 || time.Now().After(deadline) {
			return out, nil
		}
		if err := pause(ctx, recordEvery); err != nil {
			return nil, err
		}
	}
}

// cutControl runs members for which every sync is ignored, and cuts the power of all. It counts the acknowledged
// contributions that are gone; a member that does not start again has lost all of its own.
func cutControl(ctx context.Context, o options, dir string, say func(string, ...any)) (lost int, err error) {
	say("control: members whose syncs the kernel ignores")
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	k, done, err := openOnDisks(ctx, o, dir, []string{self, unsyncedVerb}, say)
	defer done()
	if err != nil {
		return 0, err
	}
	// What was founded and enrolled is on the disks, as after months of quiet. What follows is not.
	for _, d := range k.disks {
		if _, err := consortium.Command(ctx, "sync", "-f", d.mount); err != nil {
			return 0, err
		}
	}
	since := time.Now()
	if err := pause(ctx, controlLoad); err != nil {
		return 0, err
	}
	acked := 0
	for _, d := range k.a.devices {
		entries, err := d.ledger()
		if err != nil {
			return 0, err
		}
		for _, x := range entries {
			if x.Kind == participant.KindAck && x.Time.After(since) {
				acked++
			}
		}
	}
	if acked == 0 {
		return 0, errors.New("the control acknowledged nothing")
	}
	if err := k.cut(ctx, []int{0, 1, 2, 3}); err != nil {
		return 0, err
	}
	up := 0
	for m := range k.a.c.Members {
		if err := answers(ctx, k.a.c, m); err != nil {
			say("control: %s does not start again: %s", k.a.c.Members[m].Name, last(err.Error()))
			continue
		}
		up++
	}
	forgotten, err := k.a.forgotten(ctx)
	say("control: %d acks since the last sync, %d members start again, %d of the newest acks are forgotten", acked, up, len(forgotten))
	return len(forgotten), err
}
