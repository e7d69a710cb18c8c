package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// Values of --format.
const (
	FormatTable = "table"
	FormatJSON  = "json"
	FormatJSONL = "jsonl"
)

const schemaVersion = "1"

// DemoLabel stands wherever something of a demo charter shows: its cohorts are too small to hide anyone.
const DemoLabel = "DEMO, NOT PRIVATE"

// envelope is what every answer in JSON looks like.
type envelope struct {
	Schema    string `json:"schema_version"`
	Status    string `json:"status"`
	Data      any    `json:"data"`
	ErrorCode string `json:"error_code"`
	Message   string `json:"message"`
	Hint      string `json:"hint"`
}

// Output is where a command's result goes.
type Output struct {
	Format    string
	NoHeaders bool
	Stdout    io.Writer
	Stderr    io.Writer
	colour    bool
}

// Out is the output that the flags of c ask for.
func Out(c *urfave.Context) *Output {
	return &Output{Format: c.String(flagFormat), NoHeaders: c.Bool(flagNoHeaders), Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
		colour: os.Getenv("NO_COLOR") == "" && isTerminal(c.App.Writer)}
}

// checkFormat refuses an unknown format.
func checkFormat(format string) error {
	switch format {
	case FormatTable, FormatJSON, FormatJSONL:
		return nil
	}
	return BadUsage("use --format table, json or jsonl", "format %q is unknown", format)
}

// Value prints one result: data in an envelope, or whatever human writes for people. data must be plain values with
// json tags.
func (o *Output) Value(data any, human func(w io.Writer) error) error {
	if o.Format == FormatTable {
		return human(o.Stdout)
	}
	return writeJSON(o.Stdout, o.Format, envelope{Schema: schemaVersion, Status: "ok", Data: data})
}

// Verdict is Value for a result that may itself be a failure: where err is not nil, people see the result and then the
// error, programs an error's envelope with the result as its data.
func (o *Output) Verdict(data any, human func(w io.Writer) error, err error) error {
	if err == nil {
		return o.Value(data, human)
	}
	e := *Classify(err)
	e.Data = data
	if o.Format == FormatTable {
		if herr := human(o.Stdout); herr != nil {
			return herr
		}
	}
	return &e
}

// Rows prints a list: items in an envelope, one item per line in jsonl, or the table.
func Rows[T any](o *Output, items []T, table func() *Table) error {
	switch o.Format {
	case FormatTable:
		return table().Write(o.Stdout, !o.NoHeaders)
	case FormatJSONL:
		for _, item := range items {
			if err := writeJSON(o.Stdout, FormatJSONL, item); err != nil {
				return err
			}
		}
		return nil
	}
	if items == nil {
		items = []T{}
	}
	return writeJSON(o.Stdout, o.Format, envelope{Schema: schemaVersion, Status: "ok", Data: items})
}

func writeJSON(w io.Writer, format string, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if format == FormatJSON {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

// Notef writes a line for people on stderr.
func (o *Output) Notef(format string, args ...any) { fmt.Fprintf(o.Stderr, format+"\n", args...) }

// Good and Bad colour a word where the output is a terminal and NO_COLOR is unset.
func (o *Output) Good(s string) string { return o.paint("32", s) }

// Bad colours what needs attention.
func (o *Output) Bad(s string) string { return o.paint("31", s) }

func (o *Output) paint(sgr, s string) string {
	if !o.colour {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// Table is aligned text. Cells are never cut: an id in a table can be copied.
type Table struct {
	Columns []string
	Rows    [][]string
}

// Add appends a row; each cell is printed with fmt.Sprint, an empty one as "-", and control characters as U+FFFD.
func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = Printable(fmt.Sprint(c)); row[i] == "" {
			row[i] = "-"
		}
	}
	t.Rows = append(t.Rows, row)
}

// Printable takes out what a terminal would obey: names and reasons come from other people's machines. Good and Bad
// colour a cell by an escape sequence of ours, which stays.
func Printable(s string) string {
	s, coloured := strings.CutPrefix(s, "\x1b[3")
	if coloured {
		sgr, rest, _ := strings.Cut(s, "m")
		if rest, ended := strings.CutSuffix(rest, "\x1b[0m"); ended && (sgr == "1" || sgr == "2") {
			return "\x1b[3" + sgr + "m" + Printable(rest) + "\x1b[0m"
		}
		s = "\x1b[3" + s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

// Write prints the table, its first line only if headers is true.
func (t *Table) Write(w io.Writer, headers bool) error {
	rows := t.Rows
	if headers {
		rows = append([][]string{t.Columns}, rows...)
	}
	width := make([]int, len(t.Columns))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], cellWidth(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-cellWidth(cell)+3))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cellWidth is the number of columns of a cell; the colour of Good and Bad takes none.
func cellWidth(cell string) int {
	if rest, ok := strings.CutPrefix(cell, "\x1b[3"); ok {
		if _, rest, ok = strings.Cut(rest, "m"); ok {
			cell = strings.TrimSuffix(rest, "\x1b[0m")
		}
	}
	return utf8.RuneCountInString(cell)
}

// Age writes a duration for people in at most two units: 42s, 3m20s, 5h12m, 9d4h.
func Age(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	pair := func(a int64, unitA string, b int64, unitB string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, unitA)
		}
		return fmt.Sprintf("%d%s%d%s", a, unitA, b, unitB)
	}
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return pair(s/60, "m", s%60, "s")
	case s < 24*3600:
		return pair(s/3600, "h", s%3600/60, "m")
	}
	return pair(s/(24*3600), "d", s%(24*3600)/3600, "h")
}

// Bytes writes a size for people: 512 B, 4.2 MB (10^6).
func Bytes(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1000, 0
	for v >= 999.95 && unit < 3 {
		v, unit = v/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", v, "kMGT"[unit])
}

// Time writes a log time in milliseconds for JSON: RFC 3339 in UTC, "" for none.
func Time(unixMs int64) string {
	if unixMs == 0 {
		return ""
	}
	return time.UnixMilli(unixMs).UTC().Format("2006-01-02T15:04:05.000Z")
}

// Logger is the structured log on stderr that the flags of c ask for.
func Logger(c *urfave.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String(flagLogLevel))); err != nil {
		return nil, BadUsage("use --log-level debug, info, warn or error", "log level %q is unknown", c.String(flagLogLevel))
	}
	o := &slog.HandlerOptions{Level: level}
	switch f := c.String(flagLogFormat); f {
	case "text":
		return slog.New(slog.NewTextHandler(c.App.ErrWriter, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(c.App.ErrWriter, o)), nil
	default:
		return nil, BadUsage("use --log-format text or json", "log format %q is unknown", f)
	}
}

// Progress is one line on stderr that overwrites itself. Where stderr is no terminal it stays quiet: a log file wants
// no animation. It is for one goroutine.
type Progress struct {
	w    io.Writer
	last time.Time
	open bool
}

// NewProgress is a progress line on the output's stderr.
func (o *Output) NewProgress() *Progress {
	if !isTerminal(o.Stderr) {
		return &Progress{}
	}
	return &Progress{w: o.Stderr}
}

// Setf replaces the line, at most ten times a second.
func (p *Progress) Setf(format string, args ...any) {
	if p.w == nil || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.open = time.Now(), true
	fmt.Fprint(p.w, "\r\x1b[K"+Printable(fmt.Sprintf(format, args...)))
}

// Done removes the line.
func (p *Progress) Done() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.open = false
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
