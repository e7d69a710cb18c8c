package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/cmd/internal/cli"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/crypto/pin"
)

// consortium is a verified charter and connections to its members' device ports, each pinned to the key in the charter.
type consortium struct {
	ch      *charter.Charter
	timeout time.Duration
	only    int // the member that --member names, or -1
	clients []coordpb.DeviceClient
	conns   []*grpc.ClientConn
}

// dial opens the consortium of --charter. It connects to nobody yet.
func dial(c *urfave.Context) (*consortium, error) {
	path := c.String("charter")
	if path == "" {
		dir, err := cli.Dir(c)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(dir, "charter.json")
	}
	ch, err := charter.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.WithHint(err, "give --charter FILE or set RUCHE_CHARTER")
	}
	if err != nil {
		return nil, cli.WithHint(err, "get the charter again from an organisation you trust")
	}
	k := &consortium{ch: ch, timeout: c.Duration("timeout"), only: -1}
	if k.timeout <= 0 {
		return nil, cli.BadUsage("give a --timeout like 30s", "timeout is %s", k.timeout)
	}
	if name := c.String("member"); name != "" {
		if k.only, err = memberNamed(ch, name); err != nil {
			return nil, err
		}
	}
	for _, m := range ch.Members {
		conn, err := dialMember(m)
		if err != nil {
			k.close()
			return nil, err
		}
		k.conns = append(k.conns, conn)
		k.clients = append(k.clients, coordpb.NewDeviceClient(conn))
	}
	if ch.Demo {
		cli.Out(c).Notef("%s: cohorts of consortium %s hide nobody", cli.DemoLabel, ch.Consortium)
	}
	return k, nil
}

// dialMember prepares a connection to a member's device port: to the holder of the key in its card, or to nobody.
func dialMember(m charter.Card) (*grpc.ClientConn, error) {
	creds := credentials.NewTLS(pin.Client(ed25519.PublicKey(m.TLSKey), "h2"))
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(m.DeviceURL, "https://"), grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(recordBytesMax)))
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", m.Name, err)
	}
	return conn, nil
}

func (k *consortium) close() {
	for _, c := range k.conns {
		c.Close()
	}
}

// memberNamed finds a member by its name or index.
func memberNamed(ch *charter.Charter, name string) (int, error) {
	var names []string
	for i, m := range ch.Members {
		if m.Name == name {
			return i, nil
		}
		names = append(names, m.Name)
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < ch.N {
		return i, nil
	}
	return 0, cli.BadUsage("members are "+strings.Join(names, ", "), "no member is named %q", name)
}

// askOne asks one member.
func askOne[T any](ctx context.Context, k *consortium, member int, f func(context.Context, coordpb.DeviceClient) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	v, err := f(ctx, k.clients[member])
	if err == nil {
		return v, nil
	}
	s, ok := status.FromError(err)
	if ok {
		err = said{s}
	}
	err = fmt.Errorf("member %s: %w", k.ch.Members[member].Name, err)
	if ok && s.Code() == codes.Unavailable && strings.Contains(s.Message(), "pinned peer") {
		return v, &cli.Error{Code: cli.Connect, Word: "wrong_peer", Hint: "the address answers with another key than the charter's: check the address, then the charter", Err: err}
	}
	if ok && s.Code() == codes.Unavailable && strings.HasPrefix(s.Message(), intake.CodeNotRead+":") {
		return v, &cli.Error{Code: cli.Connect, Word: intake.CodeNotRead, Hint: "`ruche members list` shows who is up; rounds are known again as soon as enough members are", Err: err}
	}
	return v, err
}

// said is what a member answered, without gRPC's wrapping.
type said struct{ s *status.Status }

func (e said) Error() string {
	m := e.s.Message()
	if _, inner, ok := strings.Cut(m, `desc = "`); ok {
		m = strings.TrimSuffix(strings.TrimPrefix(inner, "transport: "), `"`)
	}
	return m
}

// GRPCStatus keeps the code for cli.Classify.
func (e said) GRPCStatus() *status.Status { return e.s }

// ask asks the member that --member names, or one after the other until one answers. It returns the member too: what it
// says is its word alone.
func ask[T any](ctx context.Context, k *consortium, f func(context.Context, coordpb.DeviceClient) (T, error)) (T, int, error) {
	if k.only >= 0 {
		v, err := askOne(ctx, k, k.only, f)
		return v, k.only, err
	}
	var zero T
	var refused, unread, unreachable error // the first of each kind
	for i := range k.clients {
		v, err := askOne(ctx, k, i, f)
		if err == nil {
			return v, i, nil
		}
		if ctx.Err() != nil {
			return zero, i, ctx.Err()
		}
		if e := cli.Classify(err); e.Code == cli.Usage {
			return zero, i, err // another member would say the same
		} else if e.Code == cli.Failed && refused == nil {
			refused = err
		} else if e.Word == intake.CodeNotRead && unread == nil {
			unread = err
		} else if unreachable == nil {
			unreachable = err
		}
	}
	if refused != nil {
		return zero, -1, refused
	}
	if unread != nil {
		return zero, -1, fmt.Errorf("no member that answers knows of rounds now: %w", unread)
	}
	return zero, -1, fmt.Errorf("no member answers: %w", unreachable)
}
