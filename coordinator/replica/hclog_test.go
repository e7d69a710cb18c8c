package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestOnlyWarningsAndErrorsReachTheLog(t *testing.T) {
	var out bytes.Buffer
	q := (&quiet{to: slog.New(slog.NewTextHandler(&out, nil))}).Named("raft").With("member", "a")
	q.Trace("1")
	q.Debug("2")
	q.Info("3")
	q.Log(hclog.Info, "4")
	q.StandardLogger(nil).Print("5")
	if out.Len() != 0 {
		t.Fatalf("raft's diary came through: %s", out.String())
	}
	q.Warn("slow", "peers", hclog.Fmt("%d of %d", 1, 4))
	q.Log(hclog.Error, "lost")
	got := out.String()
	for _, want := range []string{`level=WARN msg="raft: slow" member=a peers="1 of 4"`, `level=ERROR msg="raft: lost" member=a`} {
		if !strings.Contains(got, want) {
			t.Errorf("log lacks %s:\n%s", want, got)
		}
	}
	if q.Name() != "raft" || len(q.ImpliedArgs()) != 2 || q.IsInfo() || !q.IsError() {
		t.Error("the adapter misreports itself")
	}
}
