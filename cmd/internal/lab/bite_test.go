package lab

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestTheChecksBite breaks each promise from outside and wants the check that holds it to say so: a check that cannot
// fail proves nothing.
func TestTheChecksBite(t *testing.T) {
	sealed := func(t *testing.T) (*Federation, round.View) {
		f := story(t, Options{N: 4, F: 1, Devices: 4})
		f.Begin()
		until(t, f, round.Open)
		everybody(t, f, f.Devices...)
		return f, until(t, f, round.Sealed)
	}
	cases := map[string]func(t *testing.T) (*Federation, error){
		"invariant 1: member 0 signed a vote that is not in its vote file": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices...)
			v := until(t, f, round.Acked)
			key := f.voteKey(t, 0)
			vote := statement.SignKey(key, label.StmtVote, (&statement.Vote{Round: v.ID, Value: v.Decision}).Bytes())
			_, err := (&memberLog{f.Seats[0].live()}).Propose(context.Background(), round.VoteCommand(v.ID, 0, vote))
			must(t, err)
			return f, f.Check()
		},
		"invariant 1: member 1 votes twice": func(t *testing.T) (*Federation, error) {
			f, v := sealed(t)
			vote := statement.SignKey(f.voteKey(t, 1), label.StmtVote, (&statement.Vote{Round: v.ID, Value: statement.Dead()}).Bytes())
			f.holding(func() { f.of(v.ID).votes[1] = v.Decision }) // whether or not it was among the first q
			_, _ = (&memberLog{f.Seats[1].live()}).Propose(context.Background(), round.VoteCommand(v.ID, 1, vote))
			return f, f.Check()
		},
		"invariant 3: member 2 serves a vector": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			v := until(t, f, round.Open)
			f.judgeSum(f.Seats[2].live(), &coordpb.FetchSumRequest{RoundId: v.ID[:], Hash: v.ID[:]})
			return f, f.Check()
		},
		"invariant 3: member 0 holds sums": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			v := until(t, f, round.Open)
			dir := filepath.Join(f.Seats[0].Dir, "sums", v.ID.String())
			must(t, os.MkdirAll(dir, 0o700))
			must(t, os.WriteFile(filepath.Join(dir, v.ID.String()), []byte("masks"), 0o600))
			return f, f.Check()
		},
		"invariant 4: members": func(t *testing.T) (*Federation, error) {
			f, v := sealed(t)
			f.holding(func() { f.of(v.ID).results[3] = []byte("another result") })
			return f, f.RunUntil("", func() bool { return reached(f, v.ID, round.Published) }, 30)
		},
		"invariant 6: device 0 sends two contributions": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			until(t, f, round.Open)
			everybody(t, f, f.Devices[0])
			c, err := f.Devices[0].Forge(nil)
			must(t, err)
			f.Devices[0].Lies.Store(false)
			f.Upload(c, 2)
			return f, f.Check()
		},
		"invariant 6: device 0 sends what is not in its ledger": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			until(t, f, round.Open)
			c, err := f.Devices[0].Forge(nil)
			must(t, err)
			f.Devices[0].Lies.Store(false)
			must(t, f.Devices[0].start(context.Background()))
			f.Upload(c, 2)
			return f, f.Check()
		},
		"invariant 7": func(t *testing.T) (*Federation, error) {
			f, v := sealed(t)
			until(t, f, round.Published)
			f.holding(func() {
				r := f.views[0].trace.rounds[v.ID]
				r.set = r.set[1:]
			})
			return f, f.Finish()
		},
		"invariant 8: member": func(t *testing.T) (*Federation, error) {
			f := story(t, Options{N: 4, F: 1, Devices: 4})
			f.Begin()
			v := until(t, f, round.Open)
			everybody(t, f, f.Devices...)
			signer := 0
			f.holding(func() { signer = f.receipts[0].member })
			must(t, os.RemoveAll(filepath.Join(f.Seats[signer].Dir, "blobs", "y", v.ID.String())))
			return f, f.Check()
		},
		"invariant 10": func(t *testing.T) (*Federation, error) {
			f, v := sealed(t)
			path := filepath.Join(f.Devices[2].Dir, "encoded", v.ID.String())
			b, err := os.ReadFile(path)
			must(t, err)
			b[500] ^= 1
			must(t, os.WriteFile(path, b, 0o600))
			return f, f.RunUntil("", func() bool { return reached(f, v.ID, round.Published) }, 30)
		},
		"invariant 11": func(t *testing.T) (*Federation, error) {
			f, _ := sealed(t)
			f.holding(func() { f.views[0].states[f.views[0].last()-1]++ })
			for range 3 {
				if err := f.Step(); err != nil {
					return f, err
				}
			}
			return f, nil
		},
	}
	for want, tell := range cases {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			f, err := tell(t)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the checks say: %v", err)
			}
			f.forgive()
		})
	}
}

// forgive forgets the broken invariants that a test meant to see.
func (f *Federation) forgive() {
	f.failing.Lock()
	defer f.failing.Unlock()
	f.violated = nil
}

// voteKey reads a member's vote key, as a thief of its disk would.
func (f *Federation) voteKey(t *testing.T, member int) *identity.Key {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(f.Seats[member].Dir, "epochs", "*", "keys"))
	must(t, err)
	b, err := os.ReadFile(dirs[0])
	must(t, err)
	f.mu.Lock()
	_, k, _ := f.views[0].observer.KeyPackage(member)
	f.mu.Unlock()
	for i := 0; i+identity.KeySize <= len(b); i++ {
		key, err := identity.ParseKey(b[i : i+identity.KeySize])
		if err == nil && string(key.Public()) == string(k.VoteKey) {
			return key
		}
	}
	t.Fatal("no vote key in the file")
	return nil
}

// TestSecretsAreSeen: every way in which a key gets into a log by accident is seen, and so is a key in an entry.
func TestSecretsAreSeen(t *testing.T) {
	f := story(t, Options{N: 1, Devices: 1})
	key := make([]byte, 32)
	_, err := f.drawer("a test").Read(key)
	must(t, err)
	type box struct{ Seed [32]byte }
	for name, print := range map[string]func(){
		"hex":       func() { f.logger.Info("a", "b", hex.EncodeToString(key)) },
		"upper":     func() { f.logger.Info(fmt.Sprintf("key %X", key)) },
		"base64":    func() { f.logger.Info("a", "b", base64.StdEncoding.EncodeToString(key)) },
		"base64url": func() { f.logger.Info("a", "b", base64.RawURLEncoding.EncodeToString(key)) },
		"bytes":     func() { f.logger.Info("a", "b", key) },
		"struct":    func() { f.logger.Info("a", "b", box{[32]byte(key)}) },
		"%v":        func() { f.logger.Info(fmt.Sprint("key", key)) },
		"string":    func() { f.logger.Info("a", slog.Group("g", "b", string(key))) },
		"raw":       func() { f.secrets.Write(key) },
	} {
		f.secrets.flush()
		f.forgive()
		print()
		if f.violations() == nil {
			t.Errorf("%s: the secret is not seen", name)
		}
	}
	f.secrets.flush()
	f.forgive()
	f.logger.Info("a", "b", make([]byte, 32), "hash", label.Sum(label.TagBase))
	must(t, f.violations())
	_, err = f.Inject(&coordpb.Command{Command: &coordpb.Command_Close{Close: append([]byte("close"), key...)}})
	must(t, err)
	if f.violations() == nil {
		t.Error("a secret in the log is not seen")
	}
	f.forgive()
	// Every seed of a contribution is known: C(4,1) seeds, by the device that drew them.
	g := story(t, Options{N: 4, F: 1, Devices: 4})
	g.Begin()
	until(t, g, round.Open)
	before := g.secrets.count()
	everybody(t, g, g.Devices[0])
	if drawn := g.secrets.count() - before; drawn < 4 {
		t.Errorf("%d secrets are known of a contribution with 4 seeds", drawn)
	}
}
