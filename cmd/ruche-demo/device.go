package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
	"github.com/ruche-federation/ruche/node"
)

// device is one person's ruche-node.
type device struct {
	person  person
	dir     string
	process *consortium.Process

	stopping bool // the watcher told it to end
}

// prepare initialises a device with the real program: base, text, token, certificate.
func prepare(ctx context.Context, c *consortium.Consortium, dir, base, tokenizer string, i int, who person) (*device, error) {
	d := &device{person: who, dir: filepath.Join(dir, "devices", fmt.Sprintf("%02d", i))}
	args := []string{"--dir", d.dir, "init"}
	if base != "" {
		args = append(args, "--base", base)
	}
	if tokenizer != "" {
		args = append(args, "--tokenizer", tokenizer)
	}
	if _, err := consortium.Command(ctx, c.Programs.Node, args...); err != nil {
		return nil, fmt.Errorf("device of %s: %w", who.Name, err)
	}
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, text := range who.Records {
		if err := enc.Encode(map[string]string{"user": who.Name, "text": text}); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(dir, fmt.Sprintf("user-%02d.jsonl", i))
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		return nil, err
	}
	if _, err := consortium.Command(ctx, c.Programs.Node, "--dir", d.dir, "data", "import", file); err != nil {
		return nil, fmt.Errorf("device of %s: %w", who.Name, err)
	}
	if err := c.Enrol(ctx, d.dir, i%len(c.Dirs)); err != nil {
		return nil, fmt.Errorf("device of %s: %w", who.Name, err)
	}
	run := []string{"--dir", d.dir, "run"}
	if who.Newcomer {
		run = append(run, "--observe")
	} else {
		run = append(run, "--keep-encoded")
	}
	d.process = &consortium.Process{Name: "device of " + who.Name, Program: c.Programs.Node, Args: run, Log: filepath.Join(dir, fmt.Sprintf("device-%02d.log", i))}
	return d, nil
}

// status is what the device wrote of itself last.
func (d *device) status() (node.Status, error) { return node.ReadStatus(d.dir) }

// measured reports whether the device has measured the adapter of round seq.
func (d *device) measured(seq uint64) bool {
	_, ok := d.loss(seq)
	return ok
}

// loss is the device's mean token loss with the adapter of round seq; 0 is the base.
func (d *device) loss(seq uint64) (float64, bool) {
	s, err := d.status()
	if err != nil {
		return 0, false
	}
	for _, e := range s.Evaluations {
		if e.Seq == seq && e.Tokens > 0 {
			return e.LossSum / float64(e.Tokens), true
		}
	}
	return 0, false
}
