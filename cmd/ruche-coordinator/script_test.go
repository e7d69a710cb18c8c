package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run the program: `ruche-coordinator …` in a script is main of this package, in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ruche-coordinator": main})
}

// TestScripts runs testdata/script: what people type, and what they see.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
}
