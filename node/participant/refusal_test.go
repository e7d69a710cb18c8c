package participant

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

func TestARoundIsRefusedByWhatIsWrongWithIt(t *testing.T) {
	day := 24 * time.Hour
	for _, s := range []struct {
		name  string
		floor uint32
		show  func(t *testing.T, c *consortium) *coordpb.Certificate
		clock time.Duration // the device's against the consortium's
		want  string
	}{
		{name: "another charter", want: "round config", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			other := newConsortiumSeeded(t, 2, nil)
			return other.roundCert(other.config(taskCommons, 1, nil))
		}},
		{name: "q-1 signatures", want: "2 signatures, needs 3", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.signed(label.StmtRoundConfig, c.config(taskCommons, 1, nil).Bytes(), 0, 3)
		}},
		{name: "a signature counted twice", want: "signed twice", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.signed(label.StmtRoundConfig, c.config(taskCommons, 1, nil).Bytes(), 0, 3, 3)
		}},
		{name: "signatures of another statement", want: "does not verify", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.signed(label.StmtResult, c.config(taskCommons, 1, nil).Bytes(), 0, 1, 3)
		}},
		{name: "a config changed after it was signed", want: "not the one that the charter prescribes", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			rc := c.config(taskCommons, 1, nil)
			sigs := c.roundCert(rc).Signatures
			rc.NMax++
			return &coordpb.Certificate{Body: rc.Bytes(), Signatures: sigs}
		}},
		{name: "a seq changed after it was signed", want: "does not verify", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			rc := c.config(taskCommons, 1, nil)
			sigs := c.roundCert(rc).Signatures
			rc.Seq++
			return &coordpb.Certificate{Body: rc.Bytes(), Signatures: sigs}
		}},
		{name: "a policy that the charter does not prescribe, signed by all", want: "not the one that the charter prescribes", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			rc := c.config(taskCommons, 1, nil)
			rc.NMin = 2
			return c.signed(label.StmtRoundConfig, rc.Bytes(), 0, 1, 2, 3)
		}},
		{name: "a key package whose member did not sign it", want: "does not verify", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			rc := c.config(taskCommons, 1, nil)
			rc.KeyPackages[2].Signature[5] ^= 1
			return c.roundCert(rc)
		}},
		{name: "another task", want: `of task "mean"`, show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.roundCert(c.config(taskMean, 1, nil))
		}},
		{name: "a start that is not the verified state", want: "the last verified state is", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.roundCert(c.config(taskCommons, 1, func(s *statement.Start) { s.Model[0] ^= 1 }))
		}},
		{name: "a start that rests on a result never seen", want: "does not rest on the last verified result", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.roundCert(c.config(taskCommons, 1, func(s *statement.Start) { s.Results = []label.Hash{label.Sum(label.TagResult)} }))
		}},
		{name: "a cohort under the owner's floor", floor: 4, want: "cohort floor is 3, the owner's minimum is 4", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.roundCert(c.config(taskCommons, 1, nil))
		}},
		{name: "a clock a day behind", clock: -day, want: "set the clock", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.roundCert(c.config(taskCommons, 1, nil))
		}},
		{name: "a clock a day ahead", clock: day, want: "the round is over or the clock is wrong", show: func(t *testing.T, c *consortium) *coordpb.Certificate {
			return c.roundCert(c.config(taskCommons, 1, nil))
		}},
		{name: "nothing at all", want: "round config", show: func(*testing.T, *consortium) *coordpb.Certificate { return &coordpb.Certificate{} }},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(taskCommons)
			d.cfg.Floor = s.floor
			open := s.show(t, c)
			c.alter(func() { c.open = open })
			c.wait(s.clock)
			p := d.start()
			_, err := p.Step(t.Context())
			var refusal *RefusalError
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), s.want) {
				t.Fatalf("got %v, want ...%s...", err, s.want)
			}
			if c.count() != 0 || len(d.learner.updates) != 0 || kinds(p) != "" {
				t.Fatal("a refused round was trained for")
			}
			// Of a certified round it is said once, and a good round after it is taken, even one that was shown before with
			// broken signatures.
			if refusal.Seq > 0 {
				step(t, p)
			}
			c.wait(-s.clock)
			if s.floor == 0 {
				rc := c.show(c.config(taskCommons, 2, nil))
				step(t, p)
				if len(c.uploads(rc)) != 1 {
					t.Fatal("after the refusal no good round was taken")
				}
			}
		})
	}
}

func TestAnExpiredCertificateSendsNothing(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	p := d.start()
	c.wait(31 * 24 * time.Hour)
	c.show(c.config(taskCommons, 1, nil))
	if _, err := p.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate ended") {
		t.Fatalf("got %v", err)
	}
}

func TestASeqOnceSeenDoesNotComeBack(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskMean)
	p := d.start()
	c.show(c.config(taskMean, 7, nil))
	step(t, p)
	c.wait(time.Second)
	c.show(c.config(taskMean, 7, nil))
	if _, err := p.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "already uploaded from the same start") {
		t.Fatalf("got %v", err)
	}

	// Another window is another start; an old seq is refused for itself.
	c = newConsortium(t, func(o *charter.Options) { o.Tasks[1].Window = "1h" })
	d = c.device(taskMean)
	p = d.start()
	c.show(c.config(taskMean, 7, nil))
	step(t, p)
	c.wait(time.Hour)
	c.show(c.config(taskMean, 7, nil))
	if _, err := p.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "not above 7") {
		t.Fatalf("got %v", err)
	}
	rc := c.show(c.config(taskMean, 8, nil))
	step(t, p)
	if len(c.uploads(rc)) != 1 {
		t.Fatal("the next window was not contributed to")
	}
}

func TestWhatADeviceIsNotFor(t *testing.T) {
	c := newConsortium(t, nil)
	for _, s := range []struct {
		name  string
		alter func(*Config)
		want  string
	}{
		{"an unknown task", func(cfg *Config) { cfg.Task = "poetry" }, `no task "poetry"`},
		{"another base model", func(cfg *Config) { cfg.Base[0] ^= 1 }, "is for the base model"},
		{"another device's certificate", func(cfg *Config) {
			k, err := identity.NewKey(c.random)
			must(t, err)
			cfg.Key = k
		}, "of another key"},
		{"a forged certificate", func(cfg *Config) { cfg.Cert.Signature[0] ^= 1 }, "does not verify"},
	} {
		t.Run(s.name, func(t *testing.T) {
			d := c.device(taskCommons)
			s.alter(&d.cfg)
			if p, err := New(t.Context(), d.cfg); err == nil || !strings.Contains(err.Error(), s.want) {
				if p != nil {
					p.Close()
				}
				t.Fatalf("got %v, want ...%s...", err, s.want)
			}
		})
	}
}

func TestAnAdapterIsRefusedByWhatIsWrongWithIt(t *testing.T) {
	values := make([]float32, 32)
	for _, s := range []struct {
		name  string
		alter func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord)
		want  string
	}{
		{"f signatures", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			r.Result.Signatures = r.Result.Signatures[:1]
		}, "result certificate has 1 signatures, needs 2"},
		{"one signature twice", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			r.Result.Signatures[1] = r.Result.Signatures[0]
		}, "signed twice"},
		{"a result of another round", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			other := c.config(taskCommons, 2, nil)
			r.Config = c.roundCert(other)
		}, "its result is of another round"},
		{"a config with q-1 signatures", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			r.Config.Signatures = r.Config.Signatures[:2]
		}, "round certificate has 2 signatures"},
		{"another task's", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			r.Config = c.roundCert(c.config(taskMean, 1, nil))
		}, `of task "mean"`},
		{"other bytes from everybody", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			c.swap(func(_ int, b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, "other bytes than the signed hash names"},
		{"endless bytes", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			c.swap(func(_ int, b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		}, "the stream is longer than"},
		{"a state of another seq, signed", func(c *consortium, rc *statement.RoundConfig, r *coordpb.RoundRecord) {
			other := *rc
			other.Seq = 9
			_, m := c.publish(&other, values, 0, 1)
			result := &statement.Result{Round: rc.ID(), Set: label.Sum(label.TagSet), X: label.Sum(label.TagSum), Model: m.Hash()}
			r.Result = c.signed(label.StmtResult, result.Bytes(), 0, 1)
		}, "round 9; expected"},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(taskCommons)
			rc := c.config(taskCommons, 1, nil)
			record, _ := c.publish(rc, values, 0, 1)
			s.alter(c, rc, record)
			c.alter(func() { c.latest = record })
			p := d.start()
			_, err := p.Step(t.Context())
			if err == nil || !strings.Contains(err.Error(), s.want) {
				t.Fatalf("got %v, want ...%s...", err, s.want)
			}
			if len(d.learner.adopted) != 1 || p.Seq() != 0 {
				t.Fatal("a refused adapter was adopted")
			}
		})
	}
}

func TestOneMemberWithOtherBytesCostsOneMoreQuestion(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	latest, _ := c.publish(c.config(taskCommons, 1, nil), make([]float32, 32), 0, 1)
	c.alter(func() { c.latest = latest })
	first := -1
	c.swap(func(member int, b []byte) []byte {
		if first < 0 || first == member {
			first = member
			b[len(b)-1] ^= 1
		}
		return b
	})
	p := d.start()
	step(t, p)
	if p.Seq() != 1 {
		t.Fatal("the adapter of the honest members was not adopted")
	}
}

func TestTwoResultsOfOneRoundAreAnAlarm(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	rc := c.config(taskCommons, 1, nil)
	latest, _ := c.publish(rc, make([]float32, 32), 0, 1)
	c.alter(func() { c.latest = latest })
	p := d.start()
	step(t, p)
	other := make([]float32, 32)
	other[0] = 1
	record, _ := c.publish(rc, other, 2, 3)
	c.alter(func() { c.latest = record })
	if _, err := p.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "ALARM: two results of round 1") {
		t.Fatalf("got %v", err)
	}
	if len(d.learner.adopted) != 2 {
		t.Fatal("the second result was adopted")
	}
}

func TestAnOlderResultIsNoNews(t *testing.T) {
	c := newConsortium(t, nil)
	d := c.device(taskCommons)
	one, _ := c.publish(c.config(taskCommons, 1, nil), make([]float32, 32), 0, 1)
	two, _ := c.publish(c.config(taskCommons, 2, nil), make([]float32, 32), 0, 1)
	p := d.start()
	for _, r := range []*coordpb.RoundRecord{two, one, two} {
		c.alter(func() { c.latest = r })
		step(t, p)
	}
	if p.Seq() != 2 || len(d.learner.adopted) != 2 {
		t.Fatalf("seq %d after %d adoptions", p.Seq(), len(d.learner.adopted))
	}
}

// TestADamagedStateIsFetchedAgain: whatever is damaged or missing of the last state, the device starts from the public
// init and fetches the newest state again, with the name of the result that the next round rests on.
func TestADamagedStateIsFetchedAgain(t *testing.T) {
	flip := func(t *testing.T, path string, at int) {
		b, err := os.ReadFile(path)
		must(t, err)
		b[at] ^= 1
		writeFile(t, path, b)
	}
	for name, damage := range map[string]func(t *testing.T, current, adapter string){
		"a flipped digit of the result": func(t *testing.T, current, _ string) {
			b, err := os.ReadFile(current)
			must(t, err)
			flip(t, current, bytes.Index(b, []byte(`"result":"`))+len(`"result":"`))
		},
		"a flipped digit of the seq": func(t *testing.T, current, _ string) { flip(t, current, len(`{"seq":`)) },
		"an empty file":              func(t *testing.T, current, _ string) { writeFile(t, current, nil) },
		"a flipped byte of the state": func(t *testing.T, _, adapter string) {
			b, err := os.ReadFile(adapter)
			must(t, err)
			flip(t, adapter, len(b)-1)
		},
		"no state": func(t *testing.T, _, adapter string) { must(t, os.Remove(adapter)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newConsortium(t, nil)
			d := c.device(taskCommons)
			latest, _ := c.publish(c.config(taskCommons, 1, nil), make([]float32, 32), 0, 1)
			c.alter(func() { c.latest = latest })
			p := d.start()
			step(t, p)
			want, current, adapter := p.current, p.currentPath(), p.adapterPath(p.current.Model)
			must(t, p.Close())
			damage(t, current, adapter)
			p = d.start()
			if p.Seq() != 0 || p.State() != c.ch.Tasks[0].Init().Hash() {
				t.Fatalf("it starts from round %d, state %s", p.Seq(), p.State())
			}
			step(t, p)
			if p.Seq() != 1 || p.State() != want.Model || p.current.Result != want.Result {
				t.Fatalf("after a check-in it has round %d, state %s, result %s", p.Seq(), p.State(), p.current.Result)
			}
			must(t, p.Close())
			if p = d.start(); p.Seq() != 1 || p.current.Result != want.Result {
				t.Fatalf("and after a restart round %d, result %s", p.Seq(), p.current.Result)
			}
		})
	}
}
