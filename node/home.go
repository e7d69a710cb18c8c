package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/coordinator/charter"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/fault"
	"github.com/ruche-federation/ruche/storage/vault"
)

var (
	// ErrNoDevice says that a folder holds no device.
	ErrNoDevice = errors.New("no device in this folder")
	// ErrIsDevice says that a folder holds a device already.
	ErrIsDevice = errors.New("the folder holds a device already")
	// ErrNotJoined says that the device is enrolled with no consortium.
	ErrNotJoined = errors.New("the device has joined no consortium")
	// ErrNoBase says that neither a base model was named nor one is built in.
	ErrNoBase = errors.New("no base model is given, and none is built into this program")
)

// Base names the frozen model that a device has.
type Base struct {
	Path       string `json:"path"` // absolute, or below the device's folder
	Tokenizer  string `json:"tokenizer,omitempty"`
	SHA256     string `json:"sha256"`
	Parameters int    `json:"parameters"`
}

// Info is device.json.
type Info struct {
	Version int  `json:"version"`
	Base    Base `json:"base"`
}

const infoVersion = 1

// Names in a device's folder.
const (
	infoFile    = "device.json"
	keysFolder  = "keys"
	baseFolder  = "base"
	charterFile = "charter.json"
	certFile    = "device.cert"
	LedgerFile  = "ledger" // a file of package participant
	lockFile    = "lock"
	statusFile  = "status.json"
	peftFolder  = "adapters/current-peft"
)

// Home is a device's folder: its keys and its base.
type Home struct {
	Dir     string
	Info    Info
	Key     *identity.Key
	Storage *vault.Key
}

// InitOptions say which base model a device gets.
type InitOptions struct {
	BasePath  string // a Hugging Face directory, a .gguf or a llama2.c .bin; empty: Embedded is written to the folder
	Tokenizer string // for formats that bring none
	Embedded  fs.FS  // the files of the model that the program carries; nil if it carries none
}

// Init draws the device's keys and records its base. It refuses a folder that holds a device already; after an
// interrupted Init it goes on.
func Init(dir string, o InitOptions, rand io.Reader) (*Home, error) {
	if _, err := os.Stat(filepath.Join(dir, infoFile)); err == nil {
		return nil, fmt.Errorf("%s: %w", dir, ErrIsDevice)
	}
	if o.BasePath == "" && o.Embedded == nil {
		return nil, ErrNoBase
	}
	keys := filepath.Join(dir, keysFolder)
	if err := durable.MkdirAll(keys, 0o700); err != nil {
		return nil, err
	}
	base, err := initBase(dir, o)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(keys, "device.key")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		key, err := identity.NewKey(rand)
		if err != nil {
			return nil, err
		}
		secret := key.Bytes()
		err = fault.Step("device-key", path, func() error { return durable.WriteFile(path, secret, 0o600) })
		clear(secret)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if _, err := vault.LoadOrCreateKey(filepath.Join(keys, "storage.key"), rand); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(Info{Version: infoVersion, Base: base}, "", "  ")
	if err != nil {
		return nil, err
	}
	path = filepath.Join(dir, infoFile)
	if err := fault.Step("device", path, func() error { return durable.WriteFile(path, append(b, '\n'), 0o600) }); err != nil {
		return nil, err
	}
	return OpenHome(dir)
}

// initBase finds the base that o names, or writes the embedded one, and reads it once to know that it can be used.
func initBase(dir string, o InitOptions) (Base, error) {
	base := Base{Path: o.BasePath, Tokenizer: o.Tokenizer}
	if o.BasePath == "" {
		if err := writeEmbedded(filepath.Join(dir, baseFolder), o.Embedded); err != nil {
			return base, err
		}
		base.Path = baseFolder
	} else {
		var err error
		if base.Path, err = filepath.Abs(o.BasePath); err != nil {
			return base, err
		}
		if base.Tokenizer != "" {
			if base.Tokenizer, err = filepath.Abs(o.Tokenizer); err != nil {
				return base, err
			}
		}
	}
	source, err := inspectBase(resolve(dir, base.Path), resolve(dir, base.Tokenizer))
	base.SHA256, base.Parameters = source.SHA256, source.Parameters
	return base, err
}

// writeEmbedded copies the model that the program carries into a folder, file by file, each durable.
func writeEmbedded(dir string, files fs.FS) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(dir, e.Name()), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// resolve gives a path of device.json its place: below the folder unless it is absolute.
func resolve(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// OpenHome reads a device's folder. It fails with ErrNoDevice where there is none.
func OpenHome(dir string) (*Home, error) {
	h := &Home{Dir: dir}
	b, err := readBounded(filepath.Join(dir, infoFile), deviceFileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoDevice)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &h.Info); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, infoFile), err)
	}
	if h.Info.Version != infoVersion {
		return nil, fmt.Errorf("%s has version %d, this program reads %d", filepath.Join(dir, infoFile), h.Info.Version, infoVersion)
	}
	path := filepath.Join(dir, keysFolder, "device.key")
	if err := checkPrivate(path); err != nil {
		return nil, err
	}
	secret, err := readBounded(path, deviceFileMax)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	if h.Key, err = identity.ParseKey(secret); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Never drawn here: a storage key that is gone must not be replaced silently, the journal would be unreadable.
	path = filepath.Join(dir, keysFolder, "storage.key")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("storage key: %w", err)
	}
	if h.Storage, err = vault.LoadOrCreateKey(path, noRandomness{}); err != nil {
		return nil, err
	}
	return h, nil
}

// noRandomness fails: what must be there already is not drawn.
type noRandomness struct{}

func (noRandomness) Read([]byte) (int, error) { return 0, errors.New("no key is drawn here") }

// checkPrivate refuses a secret that others on this machine can read.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return durable.CheckPrivate(path, info)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}

// Device names the device.
func (h *Home) Device() label.Hash { return identity.DeviceID(h.Key.Public()) }

// BasePath and TokenizerPath are where the base lies.
func (h *Home) BasePath() string { return resolve(h.Dir, h.Info.Base.Path) }

// TokenizerPath is empty where the base brings its own.
func (h *Home) TokenizerPath() string { return resolve(h.Dir, h.Info.Base.Tokenizer) }

// Charter reads the pinned charter and the certificate, both verified. It fails with ErrNotJoined.
func (h *Home) Charter() (*charter.Charter, statement.Signed, error) {
	path := filepath.Join(h.Dir, charterFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, statement.Signed{}, fmt.Errorf("%s: %w", h.Dir, ErrNotJoined)
	}
	ch, err := charter.Load(path)
	if err != nil {
		return nil, statement.Signed{}, err
	}
	b, err := readBounded(filepath.Join(h.Dir, certFile), deviceFileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, statement.Signed{}, fmt.Errorf("%s: %w", h.Dir, ErrNotJoined)
	}
	if err != nil {
		return nil, statement.Signed{}, err
	}
	cert, err := statement.ParseSigned(b)
	if err != nil {
		return nil, statement.Signed{}, fmt.Errorf("%s: %w", filepath.Join(h.Dir, certFile), err)
	}
	c, err := statement.VerifyDeviceCert(ch, cert)
	if err != nil {
		return nil, statement.Signed{}, fmt.Errorf("%s: %w", filepath.Join(h.Dir, certFile), err)
	}
	if !c.Public.Equal(h.Key.Public()) {
		return nil, statement.Signed{}, fmt.Errorf("%s is of another key than this device's", filepath.Join(h.Dir, certFile))
	}
	return ch, cert, nil
}
