//go:build unix

package byhand

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
)

// endWait is for processes that were told to end.
const endWait = 2 * time.Minute

// block is a fenced block of the README that is marked to be run.
var block = regexp.MustCompile("(?ms)^<!-- byhand -->\n```sh\n(.*?)^```$")

// TestTheReadmeByHand founds a consortium of four, lets three devices join, and waits for a round, by the README's own
// commands. Only the ports are others: the README's may be taken.
func TestTheReadmeByHand(t *testing.T) {
	if testing.Short() {
		t.Skip("runs seven processes for about half a minute")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash on this machine")
	}
	root, err := filepath.Abs("../../..")
	must(t, err)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	must(t, err)
	script := "set -euo pipefail\nmake() { echo \"make $*: done before\"; }\nPS4='$ '; set -x\n"
	blocks := block.FindAllSubmatch(readme, -1)
	for _, b := range blocks {
		script += string(b[1])
	}
	if len(blocks) < 6 {
		t.Fatalf("README has %d blocks to run", len(blocks))
	}
	script = onFreePorts(t, script)

	// A checkout with nothing in it but what the commands use.
	checkout, home := t.TempDir(), t.TempDir()
	must(t, os.Symlink(filepath.Join(root, "testdata"), filepath.Join(checkout, "testdata")))
	build := exec.Command("go", "build", "-o", filepath.Join(checkout, "bin")+string(filepath.Separator), "./cmd/ruche", "./cmd/ruche-node", "./cmd/ruche-coordinator")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bash, "-c", script)
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), "HOME="+home)
	out := new(transcript)
	cmd.Stdout, cmd.Stderr = out, out
	// All that the commands start is one process group, so that nothing outlives the test.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = endWait // what it leaves running holds its output open until it has ended
	must(t, cmd.Start())
	group := cmd.Process.Pid
	err = cmd.Wait()
	waitFor(group)
	if err != nil {
		t.Fatalf("the README's commands: %v\n%s\n%s", err, out, logs(filepath.Join(home, "hive")))
	}

	t.Log(out)
	for _, want := range []string{"signed by all 4 members", "published", "result_certificate", "3 receipts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("nothing printed holds %q:\n%s", want, out)
		}
	}
	if bad := "✗"; strings.Contains(out.String(), bad) {
		t.Errorf("a check failed:\n%s", out)
	}
	for _, file := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		if info, err := os.Stat(filepath.Join(home, "hive", "commons-1", file)); err != nil || info.Size() == 0 {
			t.Errorf("the exported adapter lacks %s: %v", file, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// transcript is what the commands printed; the processes that they leave running print too.
type transcript struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// onFreePorts replaces every loopback port of the script by a free one, the same for the same.
func onFreePorts(t *testing.T, script string) string {
	t.Helper()
	loopback := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	fresh := map[string]string{}
	for _, old := range loopback.FindAllString(script, -1) {
		fresh[old] = ""
	}
	ports, err := consortium.FreePorts(len(fresh))
	must(t, err)
	for old := range fresh {
		fresh[old], ports = fmt.Sprintf("127.0.0.1:%d", ports[0]), ports[1:]
	}
	return loopback.ReplaceAllStringFunc(script, func(old string) string { return fresh[old] })
}

// waitFor lets the group's processes end by themselves, as they were told, and kills what stays.
func waitFor(group int) {
	for end := time.Now().Add(endWait); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if syscall.Kill(-group, 0) != nil {
			return
		}
	}
	_ = syscall.Kill(-group, syscall.SIGKILL)
}

// logs are the last words of every process.
func logs(hive string) string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(hive, "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(&out, "--- %s\n%s\n", filepath.Base(f), strings.Join(lines[max(0, len(lines)-8):], "\n"))
	}
	return out.String()
}
