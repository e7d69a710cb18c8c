package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// consortium is the demo's members: their folders, their processes, and connections to their device ports.
type consortium struct {
	charter     *charter.Charter
	charterPath string
	members     []*process
	dirs        []string
	clients     []coordpb.DeviceClient
	conns       []*grpc.ClientConn
}

var organisations = []string{"atelier", "bibliotheque", "clinique", "devoir", "ecole", "ferme", "grange"}

// found goes through the key ceremony with the real programs: n folders, n cards, a draft, n signatures, a charter.
func found(ctx context.Context, p programs, dir string, n, faults int, task charter.Task, say func(string)) (*consortium, error) {
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	c := &consortium{charterPath: filepath.Join(dir, "charter.json")}
	var cards []string
	for i := range n {
		d := filepath.Join(dir, "members", organisations[i])
		c.dirs = append(c.dirs, d)
		if _, err := command(ctx, p.coordinator, "--dir", d, "init", "--name", organisations[i],
			"--device-url", fmt.Sprintf("https://127.0.0.1:%d", ports[2*i]), "--mesh-addr", fmt.Sprintf("127.0.0.1:%d", ports[2*i+1])); err != nil {
			return nil, err
		}
		cards = append(cards, filepath.Join(d, "card.json"))
	}
	taskFile := filepath.Join(dir, "task.json")
	b, err := json.MarshalIndent(task, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(taskFile, b, 0o600); err != nil {
		return nil, err
	}
	say(fmt.Sprintf("key ceremony: %d members sign the charter", n))
	draft := filepath.Join(dir, "charter-draft.json")
	if _, err := command(ctx, p.ruche, "charter", "new", "--cards", strings.Join(cards, ","), "--consortium", "demo", "--demo",
		"--faults", fmt.Sprint(faults), "--authorities-faulty", "0", "--tick", "200ms", "--task", taskFile, "-o", draft); err != nil {
		return nil, err
	}
	args := []string{"charter", "assemble", "-o", c.charterPath, draft}
	for i, d := range c.dirs {
		sig := filepath.Join(dir, fmt.Sprintf("signature-%d.json", i))
		if _, err := command(ctx, p.ruche, "charter", "sign", "--member-dir", d, "-o", sig, draft); err != nil {
			return nil, err
		}
		args = append(args, sig)
	}
	if _, err := command(ctx, p.ruche, args...); err != nil {
		return nil, err
	}
	if c.charter, err = charter.Load(c.charterPath); err != nil {
		return nil, err
	}
	for i, d := range c.dirs {
		c.members = append(c.members, &process{name: "member " + organisations[i], program: p.coordinator, log: filepath.Join(dir, organisations[i]+".log"),
			args: []string{"--dir", d, "run", "--charter", c.charterPath, "--timing", "loopback"}})
	}
	return c, c.dial()
}

func (c *consortium) dial() error {
	for _, m := range c.charter.Members {
		creds := credentials.NewTLS(pin.Client(ed25519.PublicKey(m.TLSKey), "h2"))
		conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(m.DeviceURL, "https://"), grpc.WithTransportCredentials(creds))
		if err != nil {
			return err
		}
		c.conns = append(c.conns, conn)
		c.clients = append(c.clients, coordpb.NewDeviceClient(conn))
	}
	return nil
}

func (c *consortium) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// start starts every member and waits until they have a leader.
func (c *consortium) start(ctx context.Context) error {
	for _, m := range c.members {
		if err := m.start(); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err := c.leader(ctx); err == nil {
			return nil
		}
		if err := c.failed(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("the members found no leader within 30 s")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// failed reports a member that ended by itself.
func (c *consortium) failed() error {
	for _, m := range c.members {
		if err := m.failed(); err != nil {
			return err
		}
	}
	return nil
}

// ask calls the first member that answers.
func ask[T any](ctx context.Context, c *consortium, f func(context.Context, coordpb.DeviceClient) (T, error)) (T, error) {
	var zero T
	last := errors.New("no member")
	for _, client := range c.clients {
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		out, err := f(call, client)
		cancel()
		if err == nil {
			return out, nil
		}
		last = err
	}
	return zero, last
}

// leader is the index of the member that says it leads.
func (c *consortium) leader(ctx context.Context) (int, error) {
	for i, client := range c.clients {
		call, cancel := context.WithTimeout(ctx, time.Second)
		list, err := client.ListMembers(call, &coordpb.ListMembersRequest{})
		cancel()
		if err != nil {
			continue
		}
		for _, m := range list.GetMembers() {
			if m.GetSelf() && m.GetLeader() {
				return i, nil
			}
		}
	}
	return -1, errors.New("no member leads")
}

// rounds lists the rounds as the member that has applied most sees them.
func (c *consortium) rounds(ctx context.Context) ([]*coordpb.RoundSummary, error) {
	var best []*coordpb.RoundSummary
	found := false
	for _, client := range c.clients {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		list, err := client.ListRounds(call, &coordpb.ListRoundsRequest{})
		cancel()
		if err != nil {
			continue
		}
		found = true
		if progress(list.GetRounds()) > progress(best) || best == nil {
			best = list.GetRounds()
		}
	}
	if !found {
		return nil, errors.New("no member answers")
	}
	return best, nil
}

var phaseOrder = map[string]int{"proposed": 1, "open": 2, "closed": 3, "acked": 4, "sealed": 5, "revealed": 6, "published": 7, "dead": 8}

// progress orders views of the same log.
func progress(rounds []*coordpb.RoundSummary) int {
	if len(rounds) == 0 {
		return 0
	}
	r := rounds[len(rounds)-1]
	return int(r.GetSeq())*1_000_000 + phaseOrder[r.GetPhase()]*100_000 + int(r.GetAccepted())
}

// record is everything that a member serves of a round.
func (c *consortium) record(ctx context.Context, id []byte) (*coordpb.RoundRecord, error) {
	return ask(ctx, c, func(ctx context.Context, client coordpb.DeviceClient) (*coordpb.RoundRecord, error) {
		return client.GetRound(ctx, &coordpb.GetRoundRequest{RoundId: id})
	})
}
