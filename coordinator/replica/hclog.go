package replica

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// quiet passes raft's warnings and errors on to slog and drops the rest, which is raft's diary.
type quiet struct {
	to      *slog.Logger
	name    string
	implied []any
}

var _ hclog.Logger = (*quiet)(nil)

// Log is hclog.Logger's, and so is everything below.
func (q *quiet) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Warn:
		q.emit(slog.LevelWarn, msg, args)
	case hclog.Error:
		q.emit(slog.LevelError, msg, args)
	}
}

func (q *quiet) emit(level slog.Level, msg string, args []any) {
	ctx := context.Background()
	if !q.to.Enabled(ctx, level) {
		return
	}
	plain := make([]any, len(args))
	for i, a := range args {
		plain[i] = a
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			plain[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	q.to.Log(ctx, level, "raft: "+msg, plain...)
}

func (q *quiet) Trace(string, ...any)             {}
func (q *quiet) Debug(string, ...any)             {}
func (q *quiet) Info(string, ...any)              {}
func (q *quiet) Warn(msg string, args ...any)     { q.emit(slog.LevelWarn, msg, args) }
func (q *quiet) Error(msg string, args ...any)    { q.emit(slog.LevelError, msg, args) }
func (q *quiet) IsTrace() bool                    { return false }
func (q *quiet) IsDebug() bool                    { return false }
func (q *quiet) IsInfo() bool                     { return false }
func (q *quiet) IsWarn() bool                     { return true }
func (q *quiet) IsError() bool                    { return true }
func (q *quiet) ImpliedArgs() []any               { return q.implied }
func (q *quiet) Name() string                     { return q.name }
func (q *quiet) Named(name string) hclog.Logger   { return &quiet{q.to, name, q.implied} }
func (q *quiet) SetLevel(hclog.Level)             {}
func (q *quiet) GetLevel() hclog.Level            { return hclog.Warn }
func (q *quiet) ResetNamed(n string) hclog.Logger { return q.Named(n) }

func (q *quiet) With(args ...any) hclog.Logger {
	return &quiet{q.to.With(args...), q.name, append(q.implied[:len(q.implied):len(q.implied)], args...)}
}

func (q *quiet) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}

func (q *quiet) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
