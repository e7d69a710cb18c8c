package coordinator

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// OpenRoundOf gives the folder of a stopped member, alone in its consortium, whose open round holds two contributions. It
// has taken a snapshot.
func OpenRoundOf(t *testing.T) string {
	t.Helper()
	home := newHomes(t, 1, 0, time.Hour)[0]
	p := run(t, home, &locked{w: new(strings.Builder)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := deviceClient(t, home)
	hash := p.m.ch.Hash()
	for range 2 {
		d := newTestDevice(t)
		token, err := NewToken(home.Dir, rand.Reader)
		must(t, err)
		secret, err := ParseToken(token)
		must(t, err)
		eventually(t, "a device is enrolled", func() bool {
			answer, err := client.Enroll(ctx, &coordpb.EnrollRequest{Token: secret, DevicePublic: d.key.Public(), CharterHash: hash[:]})
			if err == nil {
				d.cert = round.FromSigned(answer.GetDeviceCert())
			}
			return err == nil
		})
		var rc *statement.RoundConfig
		eventually(t, "a round is open", func() bool {
			p.m.mu.Lock()
			defer p.m.mu.Unlock()
			v, ok := p.m.machine.Newest(testTask)
			if ok && v.Phase == round.Open {
				rc = v.Config
			}
			return rc != nil
		})
		d.contribute(t, p.m.ch, rc)
		eventually(t, "a contribution is acked", func() bool { _, err := upload(ctx, client, d); return err == nil })
	}
	_, err := NewToken(home.Dir, rand.Reader)
	must(t, err)
	must(t, p.m.log.(*raftLog).raft.Snapshot(ctx))
	p.end(t)
	return home.Dir
}
