package lab

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/round"
	"github.com/ruche-federation/ruche/coordinator/statement"
)

// What a leader that lies does: it shows logs to members, and in each of them time passes, rounds open and close as it
// likes.

// shown lists the logs that members read, each once.
func (f *Federation) shown() (out []*history) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.Seats {
		if !slices.Contains(out, s.view) {
			out = append(out, s.view)
		}
	}
	return out
}

// lead does in every log that is shown what an honest leader does in the only one, and says in each what an honest
// member would, as far as that takes no work: a liar that only splits.
func (l *Liar) lead() error {
	f := l.seat.f
	for _, h := range f.shown() {
		if err := l.Drive(h); err != nil {
			return err
		}
		if h != l.seat.reads() {
			if err := l.Follow(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// Drive lets time pass in a log, and proposes its next round and Close when they are due.
func (l *Liar) Drive(h *history) error {
	f := l.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.leading {
		return nil
	}
	now := f.Now()
	due := []*coordpb.Command{round.TickCommand(now.UnixMilli())}
	if rc, _ := h.observer.NextConfig(TaskID, now, f.Up()); rc != nil {
		due = append(due, round.ProposeCommand(rc))
	}
	if v, ok := h.observer.Newest(TaskID); ok {
		if c, ok := h.observer.NextClose(v.ID, now, f.Up()); ok {
			due = append(due, round.CloseCommand(c))
		}
	}
	return l.write(h, due...)
}

// Follow says in a log what the log wants of the liar: signatures, acks that call everything ok, votes. It reveals
// nothing and signs no result there: its program, which could, reads another log.
func (l *Liar) Follow(h *history) error {
	f := l.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []*coordpb.Command
	for _, e := range h.observer.Due(l.seat.Index) {
		v, _ := h.observer.Round(e.Round)
		switch e.Duty {
		case round.SignRound:
			words = append(words, l.Config(v))
		case round.SignAck:
			if c, ok := h.observer.Close(e.Round, e.Close); ok {
				words = append(words, l.Ack(v.Config, c, v.Accepted, func(int) statement.Verdict { return statement.OK }))
			}
		case round.SignVote:
			words = append(words, l.Vote(v.Config, e.Value))
		}
	}
	return l.write(h, words...)
}

// Pad makes logs equally long, with entries that change nothing, so that what is put into all of them has one index.
func (l *Liar) Pad(logs ...*history) error {
	f := l.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	longest := uint64(0)
	for _, h := range logs {
		longest = max(longest, h.last())
	}
	for _, h := range logs {
		for h.last() < longest {
			if err := l.write(h, round.TickCommand(1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Relay puts the entries of one log from an index on into another as well, those that pick takes.
func (l *Liar) Relay(from, to *history, after uint64, pick func(cmd *coordpb.Command) bool) error {
	f := l.seat.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, data := range slices.Clone(from.entries[after:]) {
		cmd, err := round.ParseCommand(data)
		if err != nil || !pick(cmd) {
			continue
		}
		if err := l.write(to, cmd); err != nil {
			return err
		}
	}
	return nil
}

// write appends commands to a log. The caller holds mu.
func (l *Liar) write(h *history, words ...*coordpb.Command) error {
	for _, w := range words {
		data, err := proto.Marshal(w)
		if err != nil {
			return err
		}
		if _, err := l.seat.f.append(h, data); err != nil {
			return err
		}
	}
	return nil
}
