package journal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ruche-federation/ruche/storage/fault"
	"github.com/ruche-federation/ruche/storage/vault"
)

// UserError says that a file does not tell whose records are meant. It names no user but the one that was asked for.
type UserError struct {
	Asked string // empty: none
	Users int    // how many the file has
}

func (e *UserError) Error() string {
	if e.Asked == "" {
		return fmt.Sprintf("the file has records of %d users: say which one is the owner of this device", e.Users)
	}
	return fmt.Sprintf("the file has no record of the user %q; it has records of %d users", e.Asked, e.Users)
}

// Imported counts what an import did.
type Imported struct {
	User    string `json:"user"`    // whose records they are
	Lines   int    `json:"lines"`   // records in the file
	Others  int    `json:"others"`  // of other users, left out
	Repeats int    `json:"repeats"` // texts that were there already
	Added   int    `json:"added"`
}

// Import adds the records of one user from a file of JSON lines. Empty lines are skipped. With user empty the file must
// hold records of one user only. An error means that nothing was added.
func (j *Journal) Import(ctx context.Context, r io.Reader, user string) (Imported, error) {
	texts, done, err := readFile(ctx, r, user)
	if err != nil {
		return Imported{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// An import that failed in this process may have reached its end on the disk all the same, which only the disk knows.
	if err := j.settle(); err != nil {
		return Imported{}, err
	}
	if j.count+len(texts) > RecordsMax {
		return Imported{}, fmt.Errorf("journal would have more than %d records", RecordsMax)
	}
	fresh := texts[:0]
	seen := map[[sha256.Size]byte]bool{}
	for _, text := range texts {
		digest := sha256.Sum256([]byte(text))
		_, err := j.db.Get(digestKey(digest))
		if err != nil && !errors.Is(err, vault.ErrNotFound) {
			return Imported{}, err
		}
		if err == nil || seen[digest] {
			done.Repeats++
			continue
		}
		seen[digest] = true
		fresh = append(fresh, text)
	}
	if err := ctx.Err(); err != nil {
		return Imported{}, err
	}
	if err := j.add(done.User, fresh); err != nil {
		return Imported{}, err
	}
	done.Added = len(fresh)
	return done, nil
}

// readFile checks every line and keeps the texts of the one user.
func readFile(ctx context.Context, r io.Reader, user string) ([]string, Imported, error) {
	var texts []string
	done := Imported{User: user}
	users := map[string]int{}
	in := &bounded{r: r, left: FileBytesMax}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), LineBytesMax+2)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if len(line) > LineBytesMax {
			return nil, done, &LineError{n, fmt.Sprintf("longer than %d bytes", LineBytesMax)}
		}
		if n&0xfff == 0 && ctx.Err() != nil {
			return nil, done, ctx.Err()
		}
		of, text, err := parseLine(line)
		if err != nil {
			return nil, done, &LineError{n, err.Error()}
		}
		if done.Lines++; done.Lines > RecordsMax {
			return nil, done, &LineError{n, fmt.Sprintf("more than %d records", RecordsMax)}
		}
		if _, ok := users[of]; !ok && len(users) == usersMax {
			return nil, done, &LineError{n, fmt.Sprintf("more than %d users", usersMax)}
		}
		users[of]++
		if user == of || user == "" && len(users) == 1 {
			texts = append(texts, text)
		} else if user == "" {
			texts = nil // refused below: counting goes on, keeping does not
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, done, &LineError{n + 1, fmt.Sprintf("longer than %d bytes", LineBytesMax)}
	case errors.Is(err, errFileTooLarge):
		return nil, done, fmt.Errorf("the file has more than %d bytes", FileBytesMax)
	case err != nil:
		return nil, done, fmt.Errorf("reading the file after line %d: %w", n, err)
	}
	switch {
	case done.Lines == 0:
		return nil, done, errors.New("the file has no records")
	case user == "" && len(users) > 1, user != "" && users[user] == 0:
		return nil, done, &UserError{user, len(users)}
	}
	if user == "" {
		for name := range users {
			done.User = name
		}
	}
	done.Others = done.Lines - users[done.User]
	return texts, done, nil
}

var errFileTooLarge = errors.New("file too large")

// bounded fails once more than left bytes were read.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errFileTooLarge
	}
	return n, err
}

// add writes records behind the head, batch after batch, and moves the head in the last one: until then nothing of them
// can be seen.
func (j *Journal) add(user string, texts []string) error {
	if len(texts) == 0 {
		return nil
	}
	now := j.now().UTC()
	next := j.count
	maxBytes, maxCount := j.db.MaxBatchBytes()/batchPart, j.db.MaxBatchCount()/batchPart
	for len(texts) > 0 {
		fill := func(b *vault.Batch) error {
			size, count := 0, 0
			for len(texts) > 0 {
				key, value, err := encodeRecord(Record{Seq: next, User: user, Text: texts[0], ImportedAt: now})
				if err != nil {
					return err
				}
				digest := digestKey(sha256.Sum256([]byte(texts[0])))
				cost := vault.BatchCost(len(key), len(value)) + vault.BatchCost(len(digest), 8)
				if count > 0 && (size+cost > maxBytes || count+2 > maxCount) {
					return nil
				}
				if err := b.Set(key, value); err != nil {
					return err
				}
				if err := b.Set(digest, binary.BigEndian.AppendUint64(nil, uint64(next))); err != nil {
					return err
				}
				size, count = size+cost, count+2
				next, texts = next+1, texts[1:]
			}
			return b.Set(headKey, binary.BigEndian.AppendUint64(nil, uint64(next)))
		}
		if err := fault.Step("journal", j.dir, func() error { return j.db.Batch(fill) }); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	j.count = next
	return j.writeStamp()
}

// cleanTail removes what an interrupted import left behind the head, digests included.
func (j *Journal) cleanTail() error {
	for {
		var keys [][]byte
		size := 0
		err := j.db.Scan(recordPrefix, recordKey(j.count), func(k, v []byte) error {
			r, err := decodeRecord(k, v)
			if err != nil {
				return err
			}
			digest := digestKey(sha256.Sum256([]byte(r.Text)))
			keys = append(keys, bytes.Clone(k), digest)
			size += vault.BatchCost(len(k), 0) + vault.BatchCost(len(digest), 0)
			if size > j.db.MaxBatchBytes()/batchPart || len(keys) >= j.db.MaxBatchCount()/batchPart {
				return vault.Stop
			}
			return nil
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		if err := j.db.Batch(func(b *vault.Batch) error {
			for _, k := range keys {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
}
