package raftlog

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	raftbench "github.com/hashicorp/raft/bench"
)

// dense lets hashicorp's benchmarks run on a store without gaps: they store index 0, and groups of three entries ten
// indices apart. It renumbers both.
type dense struct {
	*Store
	groups bool
}

func (d dense) number(i uint64) uint64 {
	if d.groups {
		return i/10*3 + min(i%10, 2) + 1
	}
	return i + 1
}

func (d dense) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d dense) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		l.Index = d.number(l.Index)
	}
	return d.Store.StoreLogs(logs)
}

func (d dense) DeleteRange(low, high uint64) error {
	return d.Store.DeleteRange(d.number(low), d.number(high))
}

func (d dense) GetLog(i uint64, l *raft.Log) error { return d.Store.GetLog(d.number(i), l) }

func BenchmarkRaftbench(b *testing.B) {
	for name, f := range map[string]func(*testing.B, raft.LogStore){
		"FirstIndex": raftbench.FirstIndex, "LastIndex": raftbench.LastIndex, "GetLog": raftbench.GetLog,
		"StoreLog": raftbench.StoreLog, "StoreLogs": raftbench.StoreLogs,
	} {
		b.Run(name, func(b *testing.B) { f(b, dense{Store: openFresh(b)}) })
	}
	b.Run("DeleteRange", func(b *testing.B) { raftbench.DeleteRange(b, dense{openFresh(b), true}) })
	for name, f := range map[string]func(*testing.B, raft.StableStore){
		"Set": raftbench.Set, "Get": raftbench.Get, "SetUint64": raftbench.SetUint64, "GetUint64": raftbench.GetUint64,
	} {
		b.Run(name, func(b *testing.B) { f(b, openFresh(b)) })
	}
}

// BenchmarkAppend is the leader's write: 1 KB entries, alone and grouped.
func BenchmarkAppend(b *testing.B) {
	for _, group := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dx1KB", group), func(b *testing.B) {
			s := openFresh(b)
			next, data := uint64(1), make([]byte, 1024)
			for b.Loop() {
				logs := make([]*raft.Log, group)
				for i := range logs {
					logs[i] = &raft.Log{Index: next, Term: 1, Data: data}
					next++
				}
				if err := s.StoreLogs(logs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(next-1)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkSetApplied(b *testing.B) {
	s := openFresh(b)
	for i := uint64(1); b.Loop(); i++ {
		if err := s.SetApplied(i); err != nil {
			b.Fatal(err)
		}
	}
}
