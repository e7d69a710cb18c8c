package coordinator

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/epoch"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// erasures are the epochs whose erasure the log shows.
func (r *rig) erasures() (said []uint64) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for n := uint64(1); n < 10; n++ {
		s, ok := r.m.machine.Erasure(0, n)
		if !ok {
			continue
		}
		if _, err := statement.VerifyErasure(r.ch, s); err != nil {
			r.t.Error(err)
		}
		said = append(said, n)
	}
	return said
}

// TestErasureIsSaid: once every round of an epoch has ended and a later one is published the keys go, and the member
// says so, in this run or, if the log did not take it, after a restart; never twice, and never for keys that were lost.
func TestErasureIsSaid(t *testing.T) {
	r := newRig(t)
	v := r.until(round.Open)
	r.contribute(v)
	must(t, r.m.publishEpoch(t.Context(), r.now.UnixMilli(), r.known(), true)) // as if half of the epoch's life had passed
	if k := r.m.epochs.newest(); k.Number() != 2 {
		t.Fatalf("epoch %d", k.Number())
	}
	if said := r.erasures(); said != nil {
		t.Fatalf("erasures of %v while a round needs the keys", said)
	}
	r.until(round.Published)
	r.log.refuse(errors.New("no leader"))
	for range 3 {
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(t.Context())
	}
	if _, held := r.m.epochs.get(1); held {
		t.Fatal("the keys of an ended round stay")
	}
	if erased, err := epoch.Erased(r.m.epochs.root); err != nil || len(erased) != 1 {
		t.Fatalf("the disk shows %v as erased, %v", erased, err)
	}
	r.log.refuse(nil)
	r.restart(r.log.size())
	r.now = r.now.Add(1100 * time.Millisecond)
	r.m.Work(t.Context())
	if said := r.erasures(); len(said) != 1 || said[0] != 1 {
		t.Fatalf("the log shows erasures of %v\n%s", said, r.logs)
	}
	for range 3 {
		r.now = r.now.Add(1100 * time.Millisecond)
		r.m.Work(t.Context())
	}
	if erased, _ := epoch.Erased(r.m.epochs.root); len(erased) != 0 {
		t.Errorf("%v is still to be said", erased)
	}
	record, _ := r.m.machine.Record(v.ID, round.Everything)
	if len(record.GetErasures()) != 1 || record.GetErasures()[0].GetMember() != 0 {
		t.Errorf("the round's record shows %d erasures", len(record.GetErasures()))
	}
	if s := r.m.status(); s.GetErased() != 1 || s.GetEpoch() != 2 {
		t.Errorf("epoch %d, erased to %d", s.GetEpoch(), s.GetErased())
	}

	// The second epoch's folder is lost, keys and all: nobody here knows where they are.
	must(t, r.m.Close())
	must(t, os.RemoveAll(filepath.Join(r.home.Dir, "epochs", "2")))
	r.start(r.log.size())
	for range 30 {
		r.now = r.now.Add(time.Hour)
		r.m.Work(t.Context())
	}
	if said := r.erasures(); len(said) < 2 || said[1] != 3 { // the third and later ones, which were erased
		t.Errorf("the log shows erasures of %v", said)
	}
	if strings.Count(r.logs.String(), "ALARM") > 0 {
		t.Errorf("alarms\n%s", r.logs)
	}
}
