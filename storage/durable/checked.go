package durable

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/crypto/label"
)

// WriteChecked is WriteFile of data and a last line with its checksum, for a small file that nobody could tell from a
// damaged one otherwise. Data ends with a newline, so that the file stays one of lines. The checksum covers the file's
// name: a file under another's name is none.
func WriteChecked(path string, data []byte, perm fs.FileMode) error {
	if !bytes.HasSuffix(data, []byte("\n")) || len(data) > MaxChecked {
		return fmt.Errorf("write %s: a checked file has at most %d bytes and ends with a newline", path, MaxChecked)
	}
	return WriteFile(path, append(bytes.Clone(data), checksum(path, data)+"\n"...), perm)
}

// ReadChecked reads what WriteChecked wrote. Anything else is *CorruptError; a file that is not there is fs.ErrNotExist.
func ReadChecked(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := 2*label.Size + 1
	b, err := io.ReadAll(io.LimitReader(f, int64(MaxChecked+line+1)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	at := max(0, len(b)-line)
	if data := b[:at]; len(b) <= MaxChecked+line && string(b[at:]) == checksum(path, data)+"\n" {
		return data, nil
	}
	return nil, &CorruptError{path, int64(at), "the checksum differs"}
}

func checksum(path string, data []byte) string {
	return label.Sum(label.TagNote, []byte(filepath.Base(path)), []byte{0}, data).String()
}
