package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/intake"
	"github.com/ruche-federation/ruche/coordinator/replica"
	"github.com/ruche-federation/ruche/coordinator/round"
)

// words reads the string constants of a file: the codes that refusals and outcomes are made of.
func words(t *testing.T, path string) (out []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	must(t, err)
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, v := range s.(*ast.ValueSpec).Values {
				if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
					w, err := strconv.Unquote(l.Value)
					must(t, err)
					out = append(out, w)
				}
			}
		}
	}
	return out
}

// TestEveryWordHasItsCode: no refusal reaches a device as an internal error because somebody forgot its word.
func TestEveryWordHasItsCode(t *testing.T) {
	all := append(words(t, "intake/refusal.go"), words(t, "round/outcome.go")...)
	if len(all) < 40 {
		t.Fatalf("only %d words found: %v", len(all), all)
	}
	known := map[string]bool{}
	for _, w := range all {
		known[w] = true
		if _, ok := codeOf[w]; !ok {
			t.Errorf("%q has no code", w)
		}
	}
	for w := range codeOf {
		if !known[w] {
			t.Errorf("%q is said by nobody", w)
		}
	}
}

// TestStatus: each refusal with its code and its word; whatever else went wrong stays here.
func TestStatus(t *testing.T) {
	var logs bytes.Buffer
	m := &Member{cfg: Config{Logger: slog.New(slog.NewTextHandler(&logs, nil))}}
	if m.statusOf(nil) != nil {
		t.Error("nil is an error")
	}
	for word, code := range codeOf {
		if code == codes.OK {
			code = codes.Internal // what is no refusal is none
		}
		err := m.statusOf(fmt.Errorf("wrapped: %w", &intake.Refusal{Code: word, Detail: "why"}))
		s := status.Convert(err)
		if s.Code() != code || s.Message() != word+": why" {
			t.Errorf("%s: %v", word, err)
		}
		retry := false
		for _, d := range s.Details() {
			_, is := d.(*errdetails.RetryInfo)
			retry = retry || is
		}
		if retry != (code == codes.ResourceExhausted) {
			t.Errorf("%s: retry info: %v", word, retry)
		}
	}
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"a later word":  {&intake.Refusal{Code: "of a later version"}, codes.Internal},
		"deadline":      {fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		"cancelled":     {context.Canceled, codes.Canceled},
		"too large":     {&replica.TooLargeError{Bytes: 7}, codes.InvalidArgument},
		"not leader":    {&replica.NotLeaderError{Leader: "org-1/secret-id"}, codes.Unavailable},
		"a path":        {&fs.PathError{Op: "open", Path: "/var/lib/ruche/keys", Err: errors.New("secret")}, codes.Unavailable},
		"a peer's word": {fmt.Errorf("member 2: %w", status.Error(codes.PermissionDenied, "secret: give up")), codes.Unavailable},
	} {
		err := m.statusOf(c.err)
		if status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if s := err.Error(); strings.Contains(s, "secret") || strings.Contains(s, "/var") {
			t.Errorf("%s leaks: %v", name, err)
		}
	}
	if !strings.Contains(logs.String(), "/var/lib/ruche/keys") {
		t.Error("the operator does not learn what went wrong")
	}
	if _, ok := codeOf[string(round.OK)]; !ok {
		t.Error("ok is no word")
	}
}

// TestTheLeadersWordsAreBounded: whatever a leader answers goes on to a device or into a log line, its code too.
func TestTheLeadersWordsAreBounded(t *testing.T) {
	long := strings.Repeat("x", round.DetailBytesMax+1)
	for _, o := range []*coordpb.Outcome{{Code: long}, {Detail: long}} {
		if bounded([]*coordpb.Outcome{{Code: "ok"}, o}) == nil {
			t.Errorf("%d and %d bytes pass", len(o.GetCode()), len(o.GetDetail()))
		}
	}
	if err := bounded([]*coordpb.Outcome{{Code: long[1:], Detail: long[1:]}}); err != nil {
		t.Error(err)
	}
}
