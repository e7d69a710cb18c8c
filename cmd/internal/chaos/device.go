package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/node"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/node/participant"
)

// device is one `ruche-node contribute` after the other, each with a vector of its own.
type device struct {
	name    string
	dir     string
	id      label.Hash
	task    *charter.Task
	rng     *rand.Rand // the loop's own
	process *consortium.Process
	held    sync.Mutex // whoever holds it keeps the loop from starting the process

	mu   sync.Mutex // guards what follows
	ends map[string]int
	bad  []string
}

// newDevice initialises and enrols a device with the real program.
func newDevice(ctx context.Context, c *consortium.Consortium, dir string, i int, task *charter.Task, seed uint64) (*device, error) {
	d := &device{name: fmt.Sprintf("device %d", i), dir: filepath.Join(dir, "devices", fmt.Sprint(i)), task: task,
		rng: rand.New(rand.NewPCG(seed, uint64(i)+1)), ends: map[string]int{}}
	if _, err := consortium.Command(ctx, c.Programs.Node, "--dir", d.dir, "init"); err != nil {
		return nil, err
	}
	if err := c.Enrol(ctx, d.dir, i%len(c.Dirs)); err != nil {
		return nil, err
	}
	h, err := node.OpenHome(d.dir)
	if err != nil {
		return nil, err
	}
	d.id = h.Device()
	d.process = &consortium.Process{Name: d.name, Program: c.Programs.Node, Log: filepath.Join(dir, fmt.Sprintf("device-%d.log", i)),
		Args: []string{"--dir", d.dir, "--format", "json", "contribute", "--task", task.ID, "--vector", d.vector(), "--once", "--keep-encoded"}}
	return d, nil
}

func (d *device) vector() string { return filepath.Join(d.dir, "vector.safetensors") }

// loop contributes, round after round, until the context ends or enough is closed. Killed, it goes on where it was.
func (d *device) loop(ctx context.Context, enough <-chan struct{}) error {
	for {
		if err := d.draw(); err != nil {
			return err
		}
		at := size(d.process.Log)
		d.held.Lock()
		err := d.process.Start()
		d.held.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.process.Done():
		}
		d.note(at)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-enough:
			return nil
		case <-time.After(time.Duration(d.rng.IntN(1500)) * time.Millisecond):
		}
	}
}

// draw writes another vector.
func (d *device) draw() error {
	values := make([]float32, d.task.Layout.D())
	for i := range values {
		values[i] = float32(d.rng.NormFloat64()) * 1e-3
	}
	t := d.task.Layout.Trained[0]
	return safetensors.WriteFile(d.vector(), []safetensors.Values{{Name: t.Name, Shape: t.Shape, Data: values}}, map[string]string{layout.MetricExamples: "3"})
}

// note counts how the process ended. What it printed last is an envelope with a word.
func (d *device) note(from int64) {
	code, told := d.process.Exit()
	word := "killed"
	if !told {
		word = envelopeWord(d.process.Log, from)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends[word]++
	switch word {
	case "killed", "ok", "round_dead", "round_expired", "refused":
		// Refused is a round from a start that this device uploaded to in a round whose end it does not know yet.
	default:
		d.bad = append(d.bad, fmt.Sprintf("%s ended by itself with status %d (%s)", d.name, code, word))
	}
}

// envelopeWord is the error code in the JSON that a program printed at the end of its log, "ok" if there is none.
func envelopeWord(log string, from int64) string {
	f, err := os.Open(log)
	if err != nil {
		return "no log"
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return "no log"
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return "no log"
	}
	for i := range b {
		if b[i] != '{' || i > 0 && b[i-1] != '\n' {
			continue
		}
		var envelope struct {
			Status string `json:"status"`
			Code   string `json:"error_code"`
		}
		if json.Unmarshal(b[i:], &envelope) == nil {
			if envelope.Status == "ok" {
				return "ok"
			}
			return envelope.Code
		}
	}
	return "nothing printed"
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// ledger is what the device knows that left it.
func (d *device) ledger() ([]participant.Entry, error) {
	path := filepath.Join(d.dir, "ledger")
	if _, err := os.Stat(path); err != nil {
		return nil, nil // it has not contributed yet
	}
	return participant.ReadLedger(path)
}

// witness is the device as Evidence.
func (d *device) witness() (Witness, error) {
	entries, err := d.ledger()
	return Witness{d.name, d.id, entries}, err
}
