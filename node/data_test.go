package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ruche-federation/ruche/node/journal"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/vault"
)

// crowded is a journal that a full disk does not let close, at first.
type crowded struct {
	opened
	full *int
}

func (c *crowded) Close() error {
	if *c.full--; *c.full >= 0 {
		return &vault.FullError{}
	}
	return c.opened.Close()
}

// TestAJournalThatDoesNotCloseIsClosedLater: what was read is given all the same, and the folder goes back to the owner's
// other programs at the first call that finds room, whether the reading failed or not.
func TestAJournalThatDoesNotCloseIsClosedLater(t *testing.T) {
	errRead := errors.New("a page cannot be read")
	for _, failing := range []string{"nothing", "reading", "opening"} {
		dir, h := device(t, writeModel(t, 1), sayings(10))
		folder := filepath.Join(dir, journalFolder)
		full, opens := 2, 0
		read := textsOf(folder, quiet(), func(ctx context.Context) (opened, error) {
			j, err := h.openJournal(ctx, time.Now, quiet())
			if j == nil {
				return nil, err
			}
			opens++
			c := &crowded{j, &full}
			if opens > 1 {
				return c, err
			}
			switch failing {
			case "reading":
				return &unread{c, errRead}, err
			case "opening":
				return c, errors.Join(errRead, c.Close())
			}
			return c, err
		})
		out, err := read(t.Context(), journal.All)
		if want := failing != "nothing"; want != errors.Is(err, errRead) || want != (err != nil) || want != (len(out) == 0) {
			t.Fatalf("%s fails: %d texts, %v", failing, len(out), err)
		}
		locked := func() bool {
			_, err := vault.Open(vault.Options{Dir: filepath.Join(folder, "records"), Key: h.Storage, Profile: vault.Device})
			return errors.Is(err, durable.ErrLocked)
		}
		if !locked() {
			t.Fatal("the journal was closed; the test needs one that is not")
		}
		// The disk is full still: what is known is given, what is not is refused for what it is.
		out, err = read(t.Context(), journal.All)
		if failing == "nothing" && (err != nil || len(out) != 10) || failing != "nothing" && !errors.As(err, new(*vault.FullError)) {
			t.Fatalf("%s failed: then %d texts, %v", failing, len(out), err)
		}
		if out, err = read(t.Context(), journal.All); err != nil || len(out) != 10 {
			t.Fatalf("%s failed: with room again %d texts, %v", failing, len(out), err)
		}
		if _, n, err := ImportData(t.Context(), dir, strings.NewReader(`{"user":"u","text":"more"}`), "", time.Now, quiet()); err != nil || n != 11 {
			t.Fatalf("%s failed: an import afterwards: %d records, %v", failing, n, err)
		}
		if out, err := read(t.Context(), journal.All); err != nil || len(out) != 11 {
			t.Fatalf("%s failed: after the import %d texts, %v", failing, len(out), err)
		}
	}
}

// unread is a journal that cannot be read.
type unread struct {
	opened
	err error
}

func (u *unread) Texts(journal.Split) ([]string, error) { return nil, u.err }
