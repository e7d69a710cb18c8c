package consortium

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// MembersMax is how many members there are names for.
const MembersMax = 7

func organisations() [MembersMax]string {
	return [...]string{"atelier", "bibliotheque", "clinique", "devoir", "ecole", "ferme", "grange"}
}

// Founding says what consortium to found. The first six fields are required.
type Founding struct {
	Programs        Programs
	Dir             string // for everything; must exist
	Name            string
	Members, Faults int
	Tasks           []charter.Task
	Say             func(string) // progress

	Folders []string // the members' folders; below Dir if nil
	Places  []Place  // the members' addresses; free loopback ports if nil
	Within  []string // a command that runs each member's program, if Places is nil
}

// Place is where a member listens, as its card says it, and how its process is run there.
type Place struct {
	Device, Mesh string   // host:port
	Listen       string   // host:port that the mesh port binds, if another than Mesh
	Within       []string // a command that runs the program elsewhere, as in a network namespace
}

// Consortium is the members: their folders, their processes, and connections to their device ports.
type Consortium struct {
	Programs    Programs
	Charter     *charter.Charter
	CharterPath string
	Members     []*Process
	Dirs        []string
	Clients     []coordpb.DeviceClient

	conns []*grpc.ClientConn
}

// Found goes through the key ceremony with the real programs: n folders, n cards, a draft, n signatures, a charter.
// Nothing runs when it returns.
func Found(ctx context.Context, o Founding) (*Consortium, error) {
	if o.Places == nil {
		ports, err := FreePorts(2 * o.Members)
		if err != nil {
			return nil, err
		}
		for i := range o.Members {
			o.Places = append(o.Places, Place{Device: fmt.Sprintf("127.0.0.1:%d", ports[2*i]), Mesh: fmt.Sprintf("127.0.0.1:%d", ports[2*i+1]), Within: o.Within})
		}
	}
	c := &Consortium{Programs: o.Programs, CharterPath: filepath.Join(o.Dir, "charter.json")}
	names := organisations()
	var cards []string
	for i := range o.Members {
		d := filepath.Join(o.Dir, "members", names[i])
		if o.Folders != nil {
			d = o.Folders[i]
		}
		c.Dirs = append(c.Dirs, d)
		if _, err := Command(ctx, o.Programs.Coordinator, "--dir", d, "init", "--name", names[i],
			"--device-url", "https://"+o.Places[i].Device, "--mesh-addr", o.Places[i].Mesh); err != nil {
			return nil, err
		}
		cards = append(cards, filepath.Join(d, "card.json"))
	}
	args := []string{"charter", "new", "--cards", strings.Join(cards, ","), "--consortium", o.Name, "--demo",
		"--faults", fmt.Sprint(o.Faults), "--authorities-faulty", "0", "--tick", "200ms"}
	for _, task := range o.Tasks {
		b, err := json.MarshalIndent(task, "", "  ")
		if err != nil {
			return nil, err
		}
		file := filepath.Join(o.Dir, "task-"+task.ID+".json")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--task", file)
	}
	o.Say(fmt.Sprintf("key ceremony: %d members sign the charter", o.Members))
	draft := filepath.Join(o.Dir, "charter-draft.json")
	if _, err := Command(ctx, o.Programs.Ruche, append(args, "-o", draft)...); err != nil {
		return nil, err
	}
	args = []string{"charter", "assemble", "-o", c.CharterPath, draft}
	for i, d := range c.Dirs {
		sig := filepath.Join(o.Dir, fmt.Sprintf("signature-%d.json", i))
		if _, err := Command(ctx, o.Programs.Ruche, "charter", "sign", "--member-dir", d, "-o", sig, draft); err != nil {
			return nil, err
		}
		args = append(args, sig)
	}
	if _, err := Command(ctx, o.Programs.Ruche, args...); err != nil {
		return nil, err
	}
	var err error
	if c.Charter, err = charter.Load(c.CharterPath); err != nil {
		return nil, err
	}
	for i, d := range c.Dirs {
		p := &Process{Name: "member " + names[i], Program: o.Programs.Coordinator, Log: filepath.Join(o.Dir, names[i]+".log"),
			Args: []string{"--dir", d, "run", "--charter", c.CharterPath, "--timing", "loopback"}}
		if o.Places[i].Listen != "" {
			p.Args = append(p.Args, "--listen-mesh", o.Places[i].Listen)
		}
		if w := o.Places[i].Within; len(w) > 0 {
			p.Args = append(append(append([]string{}, w[1:]...), p.Program), p.Args...)
			p.Program = w[0]
		}
		c.Members = append(c.Members, p)
	}
	return c, c.dial()
}

func (c *Consortium) dial() error {
	for _, m := range c.Charter.Members {
		creds := credentials.NewTLS(pin.Client(ed25519.PublicKey(m.TLSKey), "h2"))
		// A member that comes back is asked again at once: grpc's own patience is two minutes.
		again := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second}
		conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(m.DeviceURL, "https://"), grpc.WithTransportCredentials(creds), grpc.WithConnectParams(again))
		if err != nil {
			return err
		}
		c.conns = append(c.conns, conn)
		c.Clients = append(c.Clients, coordpb.NewDeviceClient(conn))
	}
	return nil
}

// Close closes the connections. It ends no process.
func (c *Consortium) Close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// Start starts every member and waits until they have a leader.
func (c *Consortium) Start(ctx context.Context) error {
	for _, m := range c.Members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	return c.AwaitLeader(ctx, 2*time.Minute)
}

// AwaitLeader waits until a member says that it leads.
func (c *Consortium) AwaitLeader(ctx context.Context, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		if _, err := c.Leader(ctx); err == nil {
			return nil
		}
		if err := c.Failed(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the members found no leader within %s", wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Failed reports a member that ended by itself.
func (c *Consortium) Failed() error {
	for _, m := range c.Members {
		if err := m.Failed(); err != nil {
			return err
		}
	}
	return nil
}

// Ask calls the first member that answers.
func Ask[T any](ctx context.Context, c *Consortium, f func(context.Context, coordpb.DeviceClient) (T, error)) (T, error) {
	var zero T
	last := errors.New("no member")
	for _, client := range c.Clients {
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

// Leader is the index of the member that says it leads, of the highest term if two do.
func (c *Consortium) Leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var mu sync.Mutex
	leader, term := -1, uint64(0)
	var wg sync.WaitGroup
	for i, client := range c.Clients {
		if !c.Members[i].Running() {
			continue
		}
		wg.Go(func() {
			list, err := client.ListMembers(ctx, &coordpb.ListMembersRequest{})
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, m := range list.GetMembers() {
				if m.GetSelf() && m.GetLeader() && m.GetTerm() >= term {
					leader, term = i, m.GetTerm()
				}
			}
		})
	}
	wg.Wait()
	if leader < 0 {
		return leader, errors.New("no member leads")
	}
	return leader, nil
}

// Rounds lists the rounds as the member that has applied most sees them.
func (c *Consortium) Rounds(ctx context.Context) ([]*coordpb.RoundSummary, error) {
	var best []*coordpb.RoundSummary
	found := false
	for _, client := range c.Clients {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		list, err := client.ListRounds(call, &coordpb.ListRoundsRequest{})
		cancel()
		if err != nil {
			continue
		}
		found = true
		if Progress(list.GetRounds()) > Progress(best) || best == nil {
			best = list.GetRounds()
		}
	}
	if !found {
		return nil, errors.New("no member answers")
	}
	return best, nil
}

func phaseOrder(phase string) int {
	for i, p := range [...]string{"proposed", "open", "closed", "acked", "sealed", "revealed", "published", "dead"} {
		if p == phase {
			return i + 1
		}
	}
	return 0
}

// Progress orders views of the same log, by their newest round.
func Progress(rounds []*coordpb.RoundSummary) int {
	if len(rounds) == 0 {
		return 0
	}
	r := rounds[len(rounds)-1]
	return int(r.GetSeq())*1_000_000 + phaseOrder(r.GetPhase())*100_000 + int(r.GetAccepted())
}

// Record is everything that a member serves of a round.
func (c *Consortium) Record(ctx context.Context, id []byte) (*coordpb.RoundRecord, error) {
	return Ask(ctx, c, func(ctx context.Context, client coordpb.DeviceClient) (*coordpb.RoundRecord, error) {
		return client.GetRound(ctx, &coordpb.GetRoundRequest{RoundId: id})
	})
}
