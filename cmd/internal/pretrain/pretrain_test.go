package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/cmd/internal/pretrain/prose"
	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/train"
	"github.com/ruche-federation/ruche/testdata/models/tiny"
	"github.com/ruche-federation/ruche/testdata/shared"
	"github.com/ruche-federation/ruche/testdata/users"
)

func quiet(string, ...any) {}

// TestTheKeptModelIsTheRecordedOne: the files' hashes stand in SHA256SUMS and in testdata/README.md, and they are small.
func TestTheKeptModelIsTheRecordedOne(t *testing.T) {
	root := shared.Root(t)
	dir := filepath.Join(root, filepath.FromSlash(kept))
	if err := compare(dir, filepath.Join(dir, sums)); err != nil {
		t.Error(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "testdata", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile(filepath.Join(dir, sums))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(recorded)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if !strings.Contains(string(readme), sum) {
			t.Errorf("testdata/README.md does not record the hash of %s", name)
		}
	}
	bytesTotal := 0
	for _, name := range made {
		data, err := tiny.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bytesTotal += len(data)
	}
	if bytesTotal > 2_000_000 {
		t.Errorf("the model has %d bytes, limit 2000000", bytesTotal)
	}
	c := shape()
	if n := c.Parameters(); n > 400_000 {
		t.Errorf("the model has %d parameters, limit 400000", n)
	}
}

// TestTheKeptVocabularyIsTrainedOnTheProse makes config and vocabulary again, without a step of training.
func TestTheKeptVocabularyIsTrainedOnTheProse(t *testing.T) {
	texts, err := prose.Generate(prose.Seed, prose.Size)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pretrain(context.Background(), dir, texts, 0, 1, quiet); err != nil {
		t.Fatal(err)
	}
	for _, name := range made {
		if name == "model.safetensors" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := tiny.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the kept one; make the model again", name)
		}
	}
}

// TestThreadsDoNotMatter trains three steps with one thread and with three and wants the same bytes.
func TestThreadsDoNotMatter(t *testing.T) {
	texts, err := prose.Generate(prose.Seed, 60_000)
	if err != nil {
		t.Fatal(err)
	}
	var made [2][]byte
	for i, threads := range []int{1, 3} {
		dir := t.TempDir()
		if err := pretrain(context.Background(), dir, texts, 3, threads, quiet); err != nil {
			t.Fatal(err)
		}
		if made[i], err = os.ReadFile(filepath.Join(dir, "model.safetensors")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("one thread and three give different weights")
	}
}

// TestAnotherModelIsNotTaken: -check names what differs.
func TestAnotherModelIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	for _, name := range made {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := record(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, sums)
	if err := compare(dir, path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := compare(dir, path); !errors.Is(err, errOther) {
		t.Errorf("a changed file gave %v", err)
	}
}

// TestTheKeptModelKnowsItsProseAndNotTheUsers: the prose is likelier by far than what people say to an assistant, and that is
// likelier than chance.
func TestTheKeptModelKnowsItsProseAndNotTheUsers(t *testing.T) {
	m, tok, _, err := llm.Load(filepath.Join(shared.Root(t), filepath.FromSlash(kept)), llm.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	loss := func(texts []string) float64 {
		sum, n, err := train.Evaluate(context.Background(), m, nil, train.Windows(tok, texts, 64), 0)
		if err != nil {
			t.Fatal(err)
		}
		return sum / float64(n)
	}
	unread, err := prose.Generate(prose.Seed+1, 8_000)
	if err != nil {
		t.Fatal(err)
	}
	records, err := users.Generate(users.Seed)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for i := 0; i < len(records); i += 60 {
		said = append(said, records[i].Text)
	}
	read, heard := loss(unread), loss(said)
	t.Logf("%.2f nats a token on prose, %.2f on what users say", read, heard)
	if read > 3 || heard < read+1 || heard > 5.5 {
		t.Errorf("prose %.2f, users %.2f; want prose under 3, users at least 1 above it and under 5.5", read, heard)
	}
}
