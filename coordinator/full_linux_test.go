package coordinator

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/storage/durable"
)

// TestADiskFullOfAnUnfinishedSnapshot: it goes before the log is opened, which takes nothing on a full disk. Nobody has to
// know which file it is that may go.
func TestADiskFullOfAnUnfinishedSnapshot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	var text strings.Builder
	logs := &locked{w: &text}
	home := newHomes(t, 1, 0, time.Hour)[0]
	run(t, home, logs).end(t)
	raft := filepath.Join(home.Dir, raftDir)
	kept := raft + ".kept"
	command := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Logf("%s %v: %s", name, args, out)
		}
		return err
	}
	must(t, os.Rename(raft, kept))
	must(t, os.Mkdir(raft, 0o700))
	if err := command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", raft); err != nil {
		t.Skip("mounting a small file system is not permitted here")
	}
	t.Cleanup(func() { must(t, command("umount", "-l", raft)) })
	must(t, command("cp", "-a", "--sparse=always", kept+"/.", raft))
	unfinished := filepath.Join(raft, "snapshots", "2-9-1.tmp")
	must(t, os.MkdirAll(unfinished, 0o700))
	f, err := os.Create(filepath.Join(unfinished, "state.bin"))
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	p := run(t, home, logs)
	eventually(t, "it leads", func() bool { return p.m.log.Leading() })
	if free, err := durable.FreeBytes(raft); err != nil || free < 32<<20 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
	p.end(t)
}
