package replica

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/ruche-federation/ruche/storage/raftlog"
)

// memoryDisk is a Log that outlives its process and refuses what storage/raftlog refuses: thousands of members start
// and stop in a storm, and most of them on this.
type memoryDisk struct {
	*raft.InmemStore
	mu       sync.Mutex // guards what follows
	applied  uint64
	snapshot uint64
}

func newMemoryDisk() *memoryDisk { return &memoryDisk{InmemStore: raft.NewInmemStore()} }

func (d *memoryDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *memoryDisk) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	last, _ := d.LastIndex()
	if first := logs[0].Index; first <= d.Applied() {
		return &raftlog.AppliedRewriteError{Op: "overwrite", First: first, Last: last, Applied: d.Applied()}
	} else if last >= first {
		if err := d.InmemStore.DeleteRange(first, last); err != nil {
			return err
		}
	}
	return d.InmemStore.StoreLogs(logs)
}

func (d *memoryDisk) DeleteRange(low, high uint64) error {
	first, _ := d.FirstIndex()
	last, _ := d.LastIndex()
	low, high = max(low, first), min(high, last)
	if last == 0 || low > high {
		return nil
	}
	d.mu.Lock()
	applied, snapshot := d.applied, d.snapshot
	d.mu.Unlock()
	switch {
	case high < last && low > first:
		return errors.New("a hole in the log")
	case high == last && low <= applied && !(low == first && snapshot >= applied):
		return &raftlog.AppliedRewriteError{Op: "truncate", First: low, Last: last, Applied: applied}
	}
	return d.InmemStore.DeleteRange(low, high)
}

func (d *memoryDisk) IsMonotonic() bool { return true }

func (d *memoryDisk) SetApplied(index uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied = max(d.applied, index)
	return nil
}

func (d *memoryDisk) Applied() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied
}

func (d *memoryDisk) SetSnapshot(index uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.snapshot = max(d.snapshot, index)
}

func (d *memoryDisk) RecordLast() error { return nil }

func (d *memoryDisk) Close() error { return nil }
