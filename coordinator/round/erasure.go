package round

import (
	"fmt"

	"github.com/ruche-federation/ruche/coordinator/statement"
)

// lived is one epoch that a member published: when it ends, and the member's word that its keys are erased.
type lived struct {
	epoch      uint64
	notAfterMs int64
	erasure    *statement.Signed // nil: not said yet
}

// published appends an epoch to those of its member, the oldest going.
func (m *Machine) published(k *statement.KeyPackage) {
	list := append(m.epochs[k.Member], &lived{epoch: k.Epoch, notAfterMs: k.NotAfterMs})
	m.epochs[k.Member] = list[max(0, len(list)-EpochsKept):]
}

// apply keeps a member's word that it erased an epoch (SA 2.6). Its signature was checked by parse. It is taken only when
// no round can need the keys any more: a member that says it before has no authority left over rounds that wait for it.
func (c erasureCommand) apply(m *Machine, _ uint64) []Outcome {
	return []Outcome{m.addErasure(c.signed, c.erasure)}
}

func (m *Machine) addErasure(signed statement.Signed, e *statement.Erasure) Outcome {
	l := m.lived(e.Member, e.Epoch)
	switch {
	case l == nil:
		return refuse(UnknownEpoch, fmt.Sprintf("member %d published no epoch %d, or long ago", e.Member, e.Epoch))
	case l.erasure != nil:
		return Outcome{Code: Duplicate}
	case !m.idle(e.Member, l):
		return refuse(TooEarly, fmt.Sprintf("member %d: epoch %d may still be needed", e.Member, e.Epoch))
	}
	l.erasure = &signed
	return Outcome{Code: OK}
}

func (m *Machine) lived(member int, epoch uint64) *lived {
	if member < 0 || member >= len(m.epochs) {
		return nil
	}
	for _, l := range m.epochs[member] {
		if l.epoch == epoch {
			return l
		}
	}
	return nil
}

// idle reports whether no round needs an epoch any more, now or later: its life is over in log time, or a later one is
// published, so that no further round lists it, and each that does is published or certified dead.
func (m *Machine) idle(member int, l *lived) bool {
	if m.timeMs > l.notAfterMs {
		return true
	}
	if k := m.packages[member]; k == nil || k.parsed.Epoch <= l.epoch {
		return false
	}
	for _, line := range m.lines {
		for _, r := range line.kept {
			if r.phase == Published || r.death == Certified {
				continue
			}
			if k, ok := r.rc.Package(member); ok && k.Epoch == l.epoch {
				return false
			}
		}
	}
	return true
}

// ErasuresDue lists the epochs of a member that no round needs any more and whose erasure the log does not show, oldest
// first. The member owes its word for each once the keys are gone from its disk.
func (m *Machine) ErasuresDue(member int) (epochs []uint64) {
	if member < 0 || member >= len(m.epochs) {
		return nil
	}
	for _, l := range m.epochs[member] {
		if l.erasure == nil && m.idle(member, l) {
			epochs = append(epochs, l.epoch)
		}
	}
	return epochs
}

// Erasure is a member's word that it erased an epoch.
func (m *Machine) Erasure(member int, epoch uint64) (statement.Signed, bool) {
	l := m.lived(member, epoch)
	if l == nil || l.erasure == nil {
		return statement.Signed{}, false
	}
	return *l.erasure, true
}

// OldestEpoch is the first of a member's epochs that the state remembers, 0 before the first.
func (m *Machine) OldestEpoch(member int) uint64 {
	if member < 0 || member >= len(m.epochs) || len(m.epochs[member]) == 0 {
		return 0
	}
	return m.epochs[member][0].epoch
}

// Erased is the highest epoch that a member said it erased, 0 for none.
func (m *Machine) Erased(member int) (epoch uint64) {
	if member < 0 || member >= len(m.epochs) {
		return 0
	}
	for _, l := range m.epochs[member] {
		if l.erasure != nil {
			epoch = l.epoch
		}
	}
	return epoch
}

func (m *Machine) encodeEpochs(w *writer) {
	for _, list := range m.epochs {
		w.u32(uint32(len(list)))
		for _, l := range list {
			w.u64(l.epoch)
			w.i64(l.notAfterMs)
			w.optional(l.erasure != nil, func() statement.Signed { return *l.erasure })
		}
	}
}

// decodeEpochs reads what encodeEpochs wrote. Every erasure is verified again; that the epochs were published, and when
// they end, the log alone knows, but for the newest.
func (m *Machine) decodeEpochs(d *reader) error {
	for j := range m.epochs {
		var last uint64
		for range d.count(EpochsKept, 1) {
			l := &lived{epoch: d.u64(), notAfterMs: d.time()}
			if d.err != nil {
				return d.err
			}
			if l.epoch <= last {
				return fmt.Errorf("epoch %d of member %d is out of order", l.epoch, j)
			}
			last = l.epoch
			if d.flag() {
				s := d.signed()
				e, err := statement.VerifyErasure(m.ch, s)
				if err != nil {
					return d.or(err)
				}
				if e.Member != j || e.Epoch != l.epoch {
					return fmt.Errorf("erasure of member %d, epoch %d, in place of %d, %d", e.Member, e.Epoch, j, l.epoch)
				}
				l.erasure = &s
			}
			m.epochs[j] = append(m.epochs[j], l)
		}
		k := m.packages[j]
		if (k == nil) != (last == 0) || k != nil && (k.parsed.Epoch != last || k.parsed.NotAfterMs != m.lived(j, last).notAfterMs) {
			return fmt.Errorf("the newest epoch of member %d is not that of its key package", j)
		}
	}
	return d.err
}
