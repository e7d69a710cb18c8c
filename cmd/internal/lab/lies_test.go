package lab

import (
	"hash/crc32"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/label"
)

// A lie is what members that follow an honest leader do wrong.
type lie struct {
	name  string
	tell  func(l *Liar)
	lost  int  // of six devices, how many the honest members' own Acks cannot save
	stops bool // a round for which the liar is needed
}

var lies = []lie{
	{name: "refuses every contribution", stops: true, tell: func(l *Liar) {
		l.acks(func(int) statement.Verdict { return statement.BadBox })
	}},
	{name: "misses every contribution", stops: true, tell: func(l *Liar) {
		l.acks(func(int) statement.Verdict { return statement.Missing })
	}},
	{name: "refuses one contribution", lost: 1, tell: func(l *Liar) {
		l.acks(func(i int) statement.Verdict {
			if i == 2 {
				return statement.BadCommitment
			}
			return statement.OK
		})
	}},
	{name: "acks twice, differently", tell: func(l *Liar) {
		l.says("ack", func(cmd *coordpb.Command) []*coordpb.Command {
			c, rc := l.closing(cmd)
			return []*coordpb.Command{cmd, l.Ack(rc, c, 6, func(int) statement.Verdict { return statement.BadBox })}
		})
	}},
	{name: "votes for death", stops: true, tell: func(l *Liar) {
		l.says("vote", func(cmd *coordpb.Command) []*coordpb.Command {
			return []*coordpb.Command{l.Vote(l.config(cmd), statement.Dead())}
		})
	}},
	{name: "votes for a set of its own and for death", stops: true, tell: func(l *Liar) {
		l.says("vote", func(cmd *coordpb.Command) []*coordpb.Command {
			rc := l.config(cmd)
			return []*coordpb.Command{l.Vote(rc, label.Sum(label.TagSet, []byte("mine"))), l.Vote(rc, statement.Dead()), cmd}
		})
	}},
	{name: "reveals false hashes", stops: true, tell: func(l *Liar) {
		l.says("reveal", func(cmd *coordpb.Command) []*coordpb.Command {
			r, err := statement.ParseReveal(cmd.GetReveal().GetStatement().GetBody())
			if err != nil {
				return nil
			}
			r.SumY[0] ^= 1
			r.TSums[len(r.TSums)-1].Hash[0] ^= 1
			return []*coordpb.Command{l.Reveal(l.config(cmd), r)}
		})
	}},
	{name: "sends other vectors than it signed", tell: func(l *Liar) {
		l.answers(func(method string, m any) (any, error) {
			if c, ok := m.(*coordpb.Chunk); ok && method == "FetchSum" {
				return otherBytes(c), nil
			}
			return m, nil
		})
	}},
	{name: "signs another result", tell: func(l *Liar) {
		l.says("result", func(cmd *coordpb.Command) []*coordpb.Command {
			r, err := statement.ParseResult(cmd.GetResult().GetStatement().GetBody())
			if err != nil {
				return nil
			}
			r.Model[0] ^= 1
			return []*coordpb.Command{l.Result(r)}
		})
	}},
	{name: "says expired when it has revealed", tell: func(l *Liar) {
		l.says("reveal", func(cmd *coordpb.Command) []*coordpb.Command {
			return []*coordpb.Command{cmd, l.Expired(l.config(cmd))}
		})
	}},
	{name: "withholds what it holds", tell: func(l *Liar) {
		l.answers(func(method string, m any) (any, error) {
			if slices.Contains([]string{"FetchContribution", "FetchSum", "FetchAdapter", "GetAdapter"}, method) {
				return nil, errSilent
			}
			return m, nil
		})
	}},
	{name: "keeps what devices bring it to itself", tell: func(l *Liar) {
		l.sends(func(int, *coordpb.UploadRequest) *coordpb.UploadRequest { return nil })
	}},
	{name: "passes other bytes on than devices brought", tell: func(l *Liar) {
		l.sends(func(_ int, m *coordpb.UploadRequest) *coordpb.UploadRequest {
			if c := m.GetChunk(); c != nil {
				m.Message = &coordpb.UploadRequest_Chunk{Chunk: otherBytes(c)}
			}
			return m
		})
	}},
	{name: "swaps the boxes of what it passes on", tell: func(l *Liar) {
		l.sends(func(_ int, m *coordpb.UploadRequest) *coordpb.UploadRequest {
			if o := m.GetOpen(); o != nil {
				slices.Reverse(o.Boxes)
			}
			return m
		})
	}},
	{name: "gives receipts of something else", tell: func(l *Liar) {
		l.answers(func(_ string, m any) (any, error) {
			switch m := m.(type) {
			case *coordpb.MemberStatement:
				return l.Receipt(l.newest(), label.Sum(label.TagHeader, []byte("else")), 3), nil
			case *coordpb.UploadResponse:
				m.Receipts = []*coordpb.MemberStatement{l.Receipt(l.newest(), label.Sum(label.TagHeader), 1)}
			}
			return m, nil
		})
	}},
	{name: "says nothing at all", stops: true, tell: func(l *Liar) {
		l.Behave(func(m *Manner) { m.Word = func(*coordpb.Command) []*coordpb.Command { return nil } })
		l.answers(func(string, any) (any, error) { return nil, errSilent })
		l.sends(func(int, *coordpb.UploadRequest) *coordpb.UploadRequest { return nil })
	}},
}

// says changes one kind of command that the liar's program proposes.
func (l *Liar) says(name string, change func(cmd *coordpb.Command) []*coordpb.Command) {
	l.Behave(func(m *Manner) {
		m.Word = func(cmd *coordpb.Command) []*coordpb.Command {
			if commandName(cmd) != name {
				return []*coordpb.Command{cmd}
			}
			return change(cmd)
		}
	})
}

// answers changes what its services answer.
func (l *Liar) answers(change func(method string, m any) (any, error)) {
	l.Behave(func(m *Manner) { m.Answers = change })
}

// sends changes the copies that it sends.
func (l *Liar) sends(change func(to int, m *coordpb.UploadRequest) *coordpb.UploadRequest) {
	l.Behave(func(m *Manner) { m.Sends = change })
}

// acks changes its verdicts.
func (l *Liar) acks(verdict func(i int) statement.Verdict) {
	l.says("ack", func(cmd *coordpb.Command) []*coordpb.Command {
		a, err := statement.ParseAck(cmd.GetAck().GetStatement().GetBody())
		if err != nil {
			return nil
		}
		c, rc := l.closing(cmd)
		return []*coordpb.Command{l.Ack(rc, c, len(a.Verdicts), verdict)}
	})
}

// config is the config of the round that a command is about, as the liar's log has it. The caller, its Word, holds the log.
func (l *Liar) config(cmd *coordpb.Command) *statement.RoundConfig {
	v, _ := l.seat.view.observer.Round(saidIn(cmd).round)
	return v.Config
}

// closing is the Close that an ack is about. The caller, its Word, holds the log.
func (l *Liar) closing(cmd *coordpb.Command) (*statement.Close, *statement.RoundConfig) {
	s := saidIn(cmd)
	c, _ := l.seat.view.observer.Close(s.round, s.ack.Close)
	return c, l.config(cmd)
}

// newest is the config of the newest round.
func (l *Liar) newest() *statement.RoundConfig {
	l.seat.f.mu.Lock()
	defer l.seat.f.mu.Unlock()
	v, _ := l.seat.view.observer.Newest(TaskID)
	return v.Config
}

// otherBytes is a chunk of other bytes, with the checksum that belongs to them.
func otherBytes(c *coordpb.Chunk) *coordpb.Chunk {
	c = proto.CloneOf(c)
	c.Data[len(c.Data)/2] ^= 0x10
	c.Crc32C = crc32.Checksum(c.Data, crc32.MakeTable(crc32.Castagnoli))
	return c
}

// code is what a log answers to a liar's command.
func (l *Liar) code(h *history, cmd *coordpb.Command) round.Code {
	c, err := l.Say(h, cmd)
	if err != nil {
		return round.Code(err.Error())
	}
	return c
}
