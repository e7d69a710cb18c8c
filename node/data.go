package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/ruche-federation/ruche/node/journal"
	"github.com/ruche-federation/ruche/storage/durable"
	"github.com/ruche-federation/ruche/storage/vault"
)

const journalFolder = "journal"

// openJournal opens the device's journal, waiting a little where another of the owner's programs has it.
func (h *Home) openJournal(ctx context.Context, now func() time.Time, logger *slog.Logger) (*journal.Journal, error) {
	o := journal.Options{Dir: filepath.Join(h.Dir, journalFolder), Key: h.Storage, Now: now, Logger: logger}
	for try := 1; ; try++ {
		j, err := journal.Open(o)
		if !errors.Is(err, durable.ErrLocked) || try == journalTries {
			return j, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(journalWait):
		}
	}
}

// ImportData adds the records of one user to the device's journal.
func ImportData(ctx context.Context, dir string, r io.Reader, user string, now func() time.Time, logger *slog.Logger) (done journal.Imported, records int, err error) {
	h, err := OpenHome(dir)
	if err != nil {
		return done, 0, err
	}
	j, err := h.openJournal(ctx, now, logger)
	if err != nil {
		return done, 0, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	done, err = j.Import(ctx, r, user)
	return done, j.Count(), err
}

// journalTexts gives the parts of the journal, read again only when something was added: opening it for every round
// would cost a device more than its round's upload.
func (h *Home) journalTexts(now func() time.Time, logger *slog.Logger) texts {
	return textsOf(filepath.Join(h.Dir, journalFolder), logger, func(ctx context.Context) (opened, error) {
		j, err := h.openJournal(ctx, now, logger)
		if j == nil {
			return nil, err
		}
		return j, err
	})
}

// opened is what textsOf needs of a journal; tests let it fail.
type opened interface {
	Texts(journal.Split) ([]string, error)
	Close() error
}

func textsOf(dir string, logger *slog.Logger, open func(context.Context) (opened, error)) texts {
	var all []string
	seen := ""
	var held opened // a full disk did not let it close: it has the folder, for an import too, until a later call closes it
	full := func(err error) bool { return errors.As(err, new(*vault.FullError)) }
	return func(ctx context.Context, s journal.Split) (out []string, err error) {
		stamp := journal.Stamp(dir)
		if stamp == "" {
			return nil, journal.ErrEmpty // no journal: none is made for reading it
		}
		if held != nil {
			err := held.Close()
			if !full(err) {
				held = nil
			}
			if err != nil && (held == nil || stamp != seen) {
				return nil, err
			}
		}
		if stamp == seen {
			return s.Of(all), nil
		}
		j, err := open(ctx)
		if err != nil {
			held = j
			return nil, err
		}
		defer func() {
			closing := j.Close()
			if !full(closing) {
				err = errors.Join(err, closing)
				return
			}
			held = j
			logger.Warn("the journal cannot be closed: no import gets it until the disk has room and a round asks for it", "error", closing)
		}()
		fresh, err := j.Texts(journal.All)
		if err != nil {
			return nil, err
		}
		// The stamp of before the reading: what was added meanwhile is read at the next call.
		all, seen = fresh, stamp
		return s.Of(all), nil
	}
}

// splitFor is what a device measures published adapters on: what it never trained on.
func splitFor(observe bool) journal.Split {
	if observe {
		return journal.All
	}
	return journal.Test
}
