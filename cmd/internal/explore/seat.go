package explore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator"
	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// seat is one honest member: what it does in every situation, found out by letting the real program do it once.
type seat struct {
	w       *world
	me      int
	folders *folders

	classes  []class
	classOf  map[string]int    // by key
	next     map[[2]int]int    // by class and chunk: the class it leads to, -1 where nothing changes
	works    map[[2]int]*work  // by class and folder
	halves   map[int]int       // folders with half a record at the end, and what they were before it
	constant map[string]string // files that lie in every folder: contributions and sums

	locals  []local
	localOf map[local]int
	start   int            // of locals
	alone   map[int][]step // by local: what it does without the leader
	entries int            // applied to machines
}

// class is a machine's state. Logs that lead to states in which a member owes the same now and after whatever may
// follow are one class: it forgets indices and times, and which other honest members' words make up a certificate.
type class struct {
	entries  [][]byte // a log that leads here
	snapshot []byte
	shown    shown
	fits     []int // chunks that may change it
}

// local is one honest member's state.
type local struct {
	guarded  int   // class of the log that its disk says is applied: no leader takes that back
	class    int   // of the log it has applied
	folder   int   // what lies on its disk
	said     words // what it ever signed
	restored bool  // from a backup
}

// work is what a member does in a class with a folder: the states that it leaves behind, whether it is let to finish
// or dies on the way.
type work struct {
	outs   []out
	serves value // the set whose sums it hands to whoever asks
}

type out struct {
	folder  int
	said    words // since it began
	guarded bool  // the applied index is on its disk
}

func newSeat(w *world, me int) *seat {
	return &seat{w: w, me: me, folders: newFolders(w.homes[me].Dir), classOf: map[string]int{}, next: map[[2]int]int{}, works: map[[2]int]*work{}, halves: map[int]int{}, localOf: map[local]int{},
		alone: map[int][]step{}}
}

// process is one run of a member on its folder, from opening to closing.
type process struct {
	s       *seat
	member  *coordinator.Member
	applied uint64

	// What stub calls note.
	asked   int  // EnsureApplied
	guarded bool // all that is applied
	said    words
	err     error
	note    func(before bool) error
	keys    *coordpb.Command // the last key package proposed
}

// open runs the member on folder with a class's log applied.
func (s *seat) open(c *class, folder int, drawn string) (*process, error) {
	if err := s.folders.put(folder); err != nil {
		return nil, err
	}
	for path := range s.constant {
		if _, err := os.Stat(filepath.Join(s.folders.dir, filepath.FromSlash(path))); err != nil {
			if err := s.folders.write(s.constant, ""); err != nil { // the member removed them with a round that had ended
				return nil, err
			}
			break
		}
	}
	// What it told its operator would only grow.
	if err := os.RemoveAll(filepath.Join(s.folders.dir, "alarms")); err != nil {
		return nil, err
	}
	m, err := coordinator.New(coordinator.Config{Home: s.w.homes[s.me], Charter: s.w.ch, Index: s.me, Now: s.w.now,
		Rand: seeded(drawn, fmt.Sprint(s.me)), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	p := &process{s: s, member: m, applied: uint64(len(c.entries)), note: func(bool) error { return nil }}
	if len(c.entries) > 0 {
		if err := m.Restore(c.snapshot); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	m.Attach(p, p)
	s.folders.now = -1
	return p, nil
}

// ---- coordinator.Log and coordinator.Peers ----

// Propose takes a statement out of the member. The leader has it from then on; whether it enters any log, and whose, is
// the leader's affair.
func (p *process) Propose(_ context.Context, cmd *coordpb.Command) ([]*coordpb.Outcome, error) {
	if err := round.Static(p.s.w.ch, cmd); err != nil {
		p.err = errors.Join(p.err, err)
		return nil, err
	}
	word, err := p.s.w.word(cmd)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil, err
	}
	if word == 0 {
		if cmd.GetKeyPackage() != nil {
			p.keys = cmd
		}
		return nil, nil
	}
	if err := p.recorded(cmd, word); err != nil {
		p.err = errors.Join(p.err, err)
	}
	p.err = errors.Join(p.err, p.note(true))
	p.said |= word
	if key := (said{p.s.me, word}); p.s.w.spoken[key] == nil {
		p.s.w.spoken[key] = proto.Clone(cmd).(*coordpb.Command)
	}
	p.err = errors.Join(p.err, p.note(false))
	return nil, nil
}

// recorded: a vote, reveal or expiry is in the vote file before its signature leaves the member (SA 8.1), and nobody
// says that it never reveals who recorded that it did (8.2).
func (p *process) recorded(cmd *coordpb.Command, word words) error {
	kind := byte(0)
	var value label.Hash
	switch c := cmd.GetCommand().(type) {
	case *coordpb.Command_Vote:
		v, err := statement.ParseVote(c.Vote.GetStatement().GetBody())
		if err != nil {
			return err
		}
		kind, value = 1, v.Value
	case *coordpb.Command_Reveal:
		v, err := statement.ParseReveal(c.Reveal.GetStatement().GetBody())
		if err != nil {
			return err
		}
		kind, value = 2, v.Set
	case *coordpb.Command_Expired:
		kind = 3
	default:
		return nil
	}
	id := label.Hash(cmdRound(cmd))
	have, err := p.s.folders.promises()
	if err != nil {
		return err
	}
	if !have[promise{kind, id, value}] {
		return violation("invariant 1: member %d signs %q, which is not in its vote file", p.s.me, word)
	}
	for r := range have {
		if kind == 3 && r.kind == 2 && r.round == id {
			return violation("invariant 2: member %d signs %q after a reveal record", p.s.me, word)
		}
	}
	return nil
}

// Leading implements coordinator.Log: the leader lies, no honest member leads.
func (p *process) Leading() bool { return false }

// HandOver implements coordinator.Log.
func (p *process) HandOver(context.Context, int) error {
	return errors.New("this member does not lead")
}

// EnsureApplied implements coordinator.Log. The first call of a run is the member's own look at the log (witness), which
// only makes it safer: it fails here, as if the disk had been busy.
func (p *process) EnsureApplied(index uint64) error {
	if p.asked++; p.asked == 1 {
		return errors.New("the applied index is not on the disk yet")
	}
	if index != p.applied {
		return fmt.Errorf("index %d, applied are %d", index, p.applied)
	}
	p.guarded = true
	return p.note(false)
}

// Status implements coordinator.Log.
func (p *process) Status() coordinator.LogStatus {
	return coordinator.LogStatus{Leader: p.s.w.ch.N - 1, Term: 1, Applied: p.applied, Committed: p.applied}
}

// Mesh implements coordinator.Peers: nobody answers. What a member lacks it never gets.
func (p *process) Mesh(int) (coordpb.MeshClient, error) { return nil, errors.New("no member answers") }

// Alive implements coordinator.Peers.
func (p *process) Alive() statement.Mask { return 1 << p.s.me }

// Apart implements coordinator.Peers.
func (p *process) Apart(int, time.Duration) statement.Mask { return 0 }

// firstEpoch lets the member draw and publish its epoch.
func (s *seat) firstEpoch() (*coordpb.Command, error) {
	s.classify(nil, round.New(s.w.ch))
	empty := s.folders.id(map[string]string{})
	p, err := s.open(&s.classes[0], empty, "first epoch")
	if err != nil {
		return nil, err
	}
	p.member.Work(context.Background())
	if err := errors.Join(p.member.Close(), p.err); err != nil {
		return nil, err
	}
	files, err := s.folders.read()
	if err != nil {
		return nil, err
	}
	s.folders.id(files) // 1: where begin goes on
	if p.keys == nil {
		return nil, fmt.Errorf("member %d published no keys", s.me)
	}
	return p.keys, nil
}

// begin gives the member every contribution, over the mesh, while a round is open: that honest members hold what was
// accepted is the business of receipts, not of this package.
func (s *seat) begin() error {
	m := round.New(s.w.ch)
	var entries [][]byte
	cmds := append([]*coordpb.Command{}, s.w.genesis...)
	cmds = append(cmds, round.ProposeCommand(s.w.configs[0]))
	for j := range s.w.ch.Q {
		cmds = append(cmds, round.RoundSignatureCommand(s.w.ids[0], j, s.w.homes[j].Identity.Sign(label.StmtRoundConfig, s.w.configs[0].Bytes())))
	}
	for _, cmd := range cmds {
		entries = append(entries, marshal(cmd))
		m.ApplyBytes(uint64(len(entries)), entries[len(entries)-1])
	}
	p, err := s.open(&class{entries: entries, snapshot: m.Snapshot()}, 1, "contributions")
	if err != nil {
		return err
	}
	for _, u := range s.w.uploads {
		err = errors.Join(err, p.member.MeshServer().Store(&upload{list: u}))
	}
	if err := errors.Join(err, p.member.Close()); err != nil {
		return err
	}
	if s.constant, err = s.folders.readParts("blobs"); err != nil {
		return err
	}
	files, err := s.folders.read()
	if err != nil {
		return err
	}
	s.classes[0].fits = []int{0} // chunks were not made yet
	genesis := s.deliver(0, 0)
	s.start = s.local(local{guarded: genesis, class: genesis, folder: s.folders.id(files)})
	return nil
}

// upload is a stream that brings a contribution.
type upload struct {
	grpc.ServerStream
	list []*coordpb.UploadRequest
}

func (u *upload) Context() context.Context { return context.Background() }

func (u *upload) Recv() (*coordpb.UploadRequest, error) {
	if len(u.list) == 0 {
		return nil, io.EOF
	}
	m := u.list[0]
	u.list = u.list[1:]
	return m, nil
}

func (u *upload) SendAndClose(r *coordpb.StoreResponse) error {
	if r.GetOutcome() != "stored" {
		return fmt.Errorf("a contribution was refused: %s", r.GetCode())
	}
	return nil
}

// download is a stream that takes a vector.
type download struct {
	grpc.ServerStream
	taken bool
}

func (d *download) Context() context.Context { return context.Background() }

func (d *download) Send(*coordpb.Chunk) error {
	d.taken = true
	return nil
}

func (s *seat) local(l local) int {
	n, ok := s.localOf[l]
	if !ok {
		n = len(s.locals)
		s.localOf[l], s.locals = n, append(s.locals, l)
	}
	return n
}

// backup is the folder that a backup gives back: an old state of everything but the epochs, which are in none. The
// oldest is the one that remembers least, that of a member that was just made. In the weaker world it has the keys too.
func (s *seat) backup() int {
	if s.w.opts.KeysInBackup {
		return s.locals[s.start].folder
	}
	return s.folders.id(map[string]string{})
}
