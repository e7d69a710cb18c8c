package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ruche-federation/ruche/coordinator"
)

// TestMain lets scripts run the program: `ruche …` in a script is main of this package, in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ruche": main})
}

// TestScripts runs testdata/script: what people type, and what they see.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir) // ~/.ruche is nobody's
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// member NAME PORT: what `ruche-coordinator init` does, in the folder NAME.
			"member": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 2 {
					ts.Fatalf("usage: member NAME PORT")
				}
				_, err := coordinator.InitHome(ts.MkAbs(args[0]), coordinator.HomeOptions{Name: filepath.Base(args[0]),
					DeviceURL: "https://127.0.0.1:" + args[1], MeshAddr: "127.0.0.1:1" + args[1]}, rand.Reader)
				ts.Check(err)
			},
			// status N COMMAND…: the command ends with the exit status N.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) < 2 {
					ts.Fatalf("usage: status N COMMAND…")
				}
				got := "0"
				var exit *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
					got = fmt.Sprint(exit.ExitCode())
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if got != args[0] {
					ts.Fatalf("exit status %s, want %s", got, args[0])
				}
			},
			// flip FILE: the first digit 3 of the file becomes a 4.
			"flip": func(ts *testscript.TestScript, neg bool, args []string) {
				path := ts.MkAbs(args[0])
				b, err := os.ReadFile(path)
				ts.Check(err)
				for i := range b {
					if b[i] == '3' {
						b[i] = '4'
						break
					}
				}
				ts.Check(os.WriteFile(path, b, 0o600))
			},
		},
	})
}
