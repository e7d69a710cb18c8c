// Command testrun runs `go test` over the packages it is given and closes with one line that counts what
// passed, failed and was skipped, and why: a skipped test never looks like a passed one.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
}

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 5
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 5
	}
	var passed, failed int
	reasons := map[string]int{}
	output := map[string][]string{} // what a test printed, kept until it is known whether it failed
	sc := bufio.NewScanner(out)
	sc.Buffer(make([]byte, 64<<10), 16<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Println(sc.Text()) // a build error is plain text
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
			if e.Action == "build-output" {
				fmt.Print(e.Output)
			}
		case "pass":
			if e.Test != "" {
				passed++
			} else {
				fmt.Printf("ok    %s\n", strings.TrimPrefix(e.Package, "github.com/ruche-federation/"))
			}
			delete(output, key)
		case "fail":
			if e.Test != "" {
				failed++
			}
			fmt.Printf("FAIL  %s\n%s", key, strings.Join(output[key], ""))
			delete(output, key)
		case "skip":
			if e.Test != "" {
				reasons[reason(output[key])]++
			}
			delete(output, key)
		}
	}
	err = cmd.Wait()
	skipped := 0
	var why []string
	for r, n := range reasons {
		skipped += n
		why = append(why, fmt.Sprintf("%s (%d)", r, n))
	}
	sort.Strings(why)
	if skipped > 0 {
		fmt.Printf("skipped: %s\n", strings.Join(why, "; "))
	}
	if err != nil && failed == 0 {
		failed = 1 // a package that did not build or a process that died
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 {
		return 1
	}
	return 0
}

// reason takes the words of t.Skip from what a test printed: the line with the file position.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "---") || strings.HasPrefix(l, "===") || l == "" {
			continue
		}
		if i := strings.Index(l, ".go:"); i >= 0 {
			if j := strings.Index(l[i:], ": "); j >= 0 {
				return strings.TrimPrefix(l[i+j+2:], "skipped: ")
			}
		}
		return l
	}
	return "no reason given"
}
