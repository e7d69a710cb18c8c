package node

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ruche-federation/ruche/node/llm"
)

func TestInitMakesADeviceOnce(t *testing.T) {
	base := writeModel(t, 1)
	dir, h := device(t, base, nil)
	if h.Info.Base.Path != base || len(h.Info.Base.SHA256) != 64 || h.Info.Base.Parameters == 0 {
		t.Fatalf("device.json says %+v", h.Info.Base)
	}
	for _, name := range []string{"device.json", "keys/device.key", "keys/storage.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
	if _, err := Init(dir, InitOptions{BasePath: base}, rand.Reader); !errors.Is(err, ErrIsDevice) {
		t.Fatalf("a second init: %v", err)
	}
	again, err := OpenHome(dir)
	must(t, err)
	if again.Device() != h.Device() {
		t.Fatal("the device has another key after reopening")
	}
}

func TestAnInterruptedInitGoesOn(t *testing.T) {
	base := writeModel(t, 1)
	dir, h := device(t, base, nil)
	must(t, os.Remove(filepath.Join(dir, infoFile))) // written last
	if _, err := OpenHome(dir); !errors.Is(err, ErrNoDevice) {
		t.Fatalf("half a device: %v", err)
	}
	again, err := Init(dir, InitOptions{BasePath: base}, rand.Reader)
	must(t, err)
	if again.Device() != h.Device() {
		t.Fatal("the key that was drawn already is lost")
	}
}

func TestTheEmbeddedModelIsWrittenToTheFolder(t *testing.T) {
	files := fstest.MapFS{}
	base := writeModel(t, 1)
	entries, err := os.ReadDir(base)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(base, e.Name()))
		must(t, err)
		files[e.Name()] = &fstest.MapFile{Data: b, Mode: 0o444}
	}
	dir := filepath.Join(t.TempDir(), "device")
	h, err := Init(dir, InitOptions{Embedded: files}, rand.Reader)
	must(t, err)
	_, want, source, err := llm.Load(base, llm.LoadOptions{})
	must(t, err)
	if h.Info.Base.SHA256 != source.SHA256 || h.BasePath() != filepath.Join(dir, "base") {
		t.Fatalf("device.json says %+v", h.Info.Base)
	}
	l, err := h.Language()
	must(t, err)
	if l.Tokenizer.Hash() != want.Hash() {
		t.Fatal("another tokenizer came out")
	}
	// The folder may move: the base moves with it.
	moved := filepath.Join(t.TempDir(), "moved")
	must(t, os.Rename(dir, moved))
	h, err = OpenHome(moved)
	must(t, err)
	_, err = h.Language()
	must(t, err)
}

func TestWhatIsNoDevice(t *testing.T) {
	base := writeModel(t, 1)
	if _, err := Init(t.TempDir(), InitOptions{}, rand.Reader); !errors.Is(err, ErrNoBase) {
		t.Errorf("no base: %v", err)
	}
	if _, err := Init(t.TempDir(), InitOptions{BasePath: filepath.Join(base, "nowhere")}, rand.Reader); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such base: %v", err)
	}
	if _, err := OpenHome(t.TempDir()); !errors.Is(err, ErrNoDevice) {
		t.Errorf("an empty folder: %v", err)
	}
	for name, alter := range map[string]struct {
		do   func(t *testing.T, dir string)
		want string
	}{
		"a later version": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, infoFile), []byte(`{"version":2}`), 0o600))
		}, "version 2"},
		"a key that others can read": {func(t *testing.T, dir string) {
			if runtime.GOOS == "windows" {
				t.Skip("skipped: Windows has no modes")
			}
			must(t, os.Chmod(filepath.Join(dir, "keys", "device.key"), 0o644))
		}, "lets others read it"},
		"a key cut off": {func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "keys", "device.key"), 31))
		}, "has 31 bytes"},
		"no storage key": {func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "keys", "storage.key")))
		}, "storage key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := device(t, base, nil)
			alter.do(t, dir)
			if _, err := OpenHome(dir); err == nil || !strings.Contains(err.Error(), alter.want) {
				t.Fatalf("got %v, want ...%s...", err, alter.want)
			}
		})
	}
}

func TestABaseThatChangedIsRefused(t *testing.T) {
	base := writeModel(t, 1)
	_, h := device(t, base, nil)
	b, err := os.ReadFile(filepath.Join(base, "model.safetensors"))
	must(t, err)
	b[len(b)-1] ^= 1
	must(t, os.WriteFile(filepath.Join(base, "model.safetensors"), b, 0o600))
	var changed *BaseError
	if _, err := h.Language(); !errors.As(err, &changed) {
		t.Fatalf("got %v", err)
	}
}
