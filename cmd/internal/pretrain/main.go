package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/pretrain/prose"
)

// kept is where the repository keeps the model, from its root.
const kept = "testdata/models/tiny"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pretrain:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("pretrain", flag.ExitOnError)
	out := flags.String("out", "", "folder for the model's files; with -check a temporary one by default")
	check := flags.Bool("check", false, "compare what was made with "+kept+"/"+sums)
	threads := flags.Int("threads", runtime.GOMAXPROCS(0), "goroutines; the result does not depend on it")
	steps := flags.Int("steps", steps, "optimiser steps; the recorded model has the default")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir := *out
	switch {
	case dir == "" && !*check:
		return errors.New("say where with -out, or -check the recorded hashes")
	case dir == "":
		temporary, err := os.MkdirTemp("", "ruche-tiny-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temporary)
		dir = temporary
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	begun := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%4.0f s  "+format+"\n", append([]any{time.Since(begun).Seconds()}, args...)...)
	}
	texts, err := prose.Generate(prose.Seed, prose.Size)
	if err != nil {
		return err
	}
	say("%d texts", len(texts))
	if err := pretrain(ctx, dir, texts, *steps, *threads, say); err != nil {
		return err
	}
	if *check {
		if err := compare(dir, filepath.Join(kept, sums)); err != nil {
			return err
		}
		say("all files are as recorded in %s/%s", kept, sums)
		return nil
	}
	if err := record(dir); err != nil {
		return err
	}
	say("wrote %s", dir)
	return nil
}
