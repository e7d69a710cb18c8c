package round

import (
	"fmt"
	"slices"

	"github.com/ruche-federation/ruche/coordinator/statement"
)

// apply decides each Accept of a batch on its own (SA 2.3, Intake).
func (b acceptBatch) apply(m *Machine, index uint64) []Outcome {
	out := make([]Outcome, len(b))
	for i, item := range b {
		if item.err != nil {
			out[i] = refuseErr(item.err)
			continue
		}
		out[i] = m.accept(item.accept, index)
	}
	return out
}

func (m *Machine) accept(a *statement.Accept, index uint64) Outcome {
	r := m.rounds[a.Round]
	if r == nil {
		return refuse(UnknownRound, a.Round.String())
	}
	if i, ok := r.byDevice[a.Device]; ok && r.accepts[i].Header == a.Header {
		return Outcome{Code: Duplicate, Index: r.accepts[i].index}
	}
	d := m.devices[a.Device]
	if d == nil {
		return refuse(UnknownDevice, a.Device.String())
	}
	// Before anything that leaves a trace: no one but the device can take its place, nor count as its refusal.
	if err := statement.VerifyContribution(d.cert.Public, a.Round, a.Header, a.Signature); err != nil {
		return refuse(BadSignature, err.Error())
	}
	if o := m.acceptable(r, d, a); o.Code != OK {
		r.refused[o.Code]++
		return o
	}
	r.byDevice[a.Device] = len(r.accepts)
	r.accepts = append(r.accepts, accept{*a, index})
	r.counts.accepted++
	r.counts.bytes += a.Size
	d.used++
	if len(r.accepts) == int(r.rc.NMax) {
		m.deadlines(r)
	}
	return Outcome{Code: OK, Index: index}
}

// acceptable decides by the log alone whether a contribution that its device signed may be a candidate.
func (m *Machine) acceptable(r *round, d *device, a *statement.Accept) Outcome {
	_, second := r.byDevice[a.Device]
	l := m.line(r.rc.Task)
	switch {
	case r.phase == Proposed:
		return refuse(RoundNotOpen, "the round is proposed")
	case second:
		return refuse(SecondHeader, "the device has another contribution in this round")
	case r.phase != Open || m.timeMs > r.rc.CloseMs:
		return refuse(RoundClosed, fmt.Sprintf("the round is %s", r.phase))
	case len(r.accepts) >= int(r.rc.NMax):
		return refuse(RoundFull, fmt.Sprintf("%d contributions", len(r.accepts)))
	case d.cert.ExpiresMs <= m.timeMs:
		return refuse(Outdated, "the device's certificate has ended")
	case a.Authority != d.cert.Authority:
		return refuse(WrongAuthority, fmt.Sprintf("authority %d, the certificate is of %d", a.Authority, d.cert.Authority))
	case d.used >= d.cert.Quota:
		return refuse(NoQuota, fmt.Sprintf("%d of %d contributions used", d.used, d.cert.Quota))
	case a.Size != r.rc.ContributionSize(m.ch):
		return refuse(BadSize, fmt.Sprintf("%d bytes, want %d", a.Size, r.rc.ContributionSize(m.ch)))
	case (a.Holders & r.listed).Size() < m.ch.Believe():
		return refuse(BadHolders, fmt.Sprintf("holders %v, of the listed %v at least %d hold", a.Holders, r.listed, m.ch.Believe()))
	}
	if _, used := l.used[a.Device]; used && l.usedStart == r.start {
		return refuse(StartUsed, "the device uploaded from this start in a round without a death certificate")
	}
	return Outcome{Code: OK}
}

// floorReached reports whether so many of r's Accepts remain without the f_E largest authorities that the cohort floor
// holds (SA 2.3, Set rule). keep picks Accepts; nil keeps all.
func (m *Machine) floorReached(r *round, keep func(i int) bool) bool {
	var by [statement.MembersMax]int
	for i := range r.accepts {
		if keep == nil || keep(i) {
			by[r.accepts[i].Authority]++
		}
	}
	return CohortFloor(by[:], m.ch.AuthoritiesFaulty) >= int(r.rc.NMin)
}

// CohortFloor is the number of contributors without those of the faulty largest authorities. byAuthority counts the
// contributors of each authority.
func CohortFloor(byAuthority []int, faulty int) int {
	sorted := slices.Clone(byAuthority)
	slices.SortFunc(sorted, func(a, b int) int { return b - a })
	sum := 0
	for _, n := range sorted[min(max(faulty, 0), len(sorted)):] {
		sum += n
	}
	return sum
}
