package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/storage/durable"
)

// KeySize is the size of an at-rest key.
const KeySize = 32

// Key is a secret at-rest key.
type Key struct{ b [KeySize]byte }

func (Key) String() string { return "vault.Key" }

// GoString hides the key from %#v.
func (Key) GoString() string { return "vault.Key" }

// Format hides the key from every verb.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, "vault.Key") }

// NewKey draws a key.
func NewKey(rand io.Reader) (*Key, error) {
	k := new(Key)
	if _, err := io.ReadFull(rand, k.b[:]); err != nil {
		return nil, fmt.Errorf("vault key: %w", err)
	}
	return k, nil
}

// ParseKey takes a key that somebody else keeps.
func ParseKey(b []byte) (*Key, error) {
	if len(b) != KeySize {
		return nil, fmt.Errorf("vault key has %d bytes, want %d", len(b), KeySize)
	}
	return &Key{[KeySize]byte(b)}, nil
}

// A key file is magic[8] version[2] key[32] crc32c[4], big-endian. The checksum tells a damaged file from a wrong key.
const (
	keyMagic    = "ruchekey"
	keyVersion  = 1
	keyFileSize = 8 + 2 + KeySize + 4
)

func encodeKeyFile(k *Key) []byte {
	b := binary.BigEndian.AppendUint16([]byte(keyMagic), keyVersion)
	b = append(b, k.b[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeKeyFile(b []byte) (*Key, error) {
	if len(b) < 10 || !bytes.HasPrefix(b, []byte(keyMagic)) {
		return nil, errors.New("not a key file")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != keyVersion {
		return nil, fmt.Errorf("key file has format version %d, this program reads version %d", v, keyVersion)
	}
	if len(b) != keyFileSize {
		return nil, fmt.Errorf("key file has %d bytes, want %d", len(b), keyFileSize)
	}
	n := keyFileSize - 4
	if crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[n:]) {
		return nil, errors.New("key file is damaged: checksum")
	}
	return ParseKey(b[10:n])
}

// LoadOrCreateKey reads the key file at path, or draws a key and writes it durably, for the owner only. A file that
// others may read is refused. Two processes that start together get the same key.
func LoadOrCreateKey(path string, rand io.Reader) (*Key, error) {
	k, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("vault key: %w", err)
	}
	lock, err := durable.Lock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("vault key %s: %w", path, err)
	}
	defer lock.Close()
	if k, err := loadKey(path); !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = NewKey(rand); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(path, encodeKeyFile(k), 0o600); err != nil {
		return nil, fmt.Errorf("vault key: %w", err)
	}
	return k, nil
}

func loadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("vault key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("vault key: %w", err)
	}
	if err := durable.CheckPrivate(path, info); err != nil {
		return nil, fmt.Errorf("vault key: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, keyFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("vault key %s: %w", path, err)
	}
	k, err := decodeKeyFile(b)
	if err != nil {
		return nil, fmt.Errorf("vault key %s: %w", path, err)
	}
	return k, nil
}
