//go:build faults

package journal

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/storage/fault"
)

// TestFaultInAnImport: a batch of an import fails, before it is written or after, and the import is tried again, by the
// same process or by the next one; it fails a second time, and the process dies. In the end every text is there once, in its order.
func TestFaultInAnImport(t *testing.T) {
	first, all := numbered(5), numbered(30)
	passings := 0
	for _, moment := range []fault.Moment{fault.Before, fault.After} {
		for _, dies := range []bool{false, true} {
			for nth := 1; ; nth++ {
				dir := t.TempDir()
				j := small(t, dir)
				_, err := j.Import(t.Context(), strings.NewReader(lines("a", first...)), "")
				must(t, err)
				reached := false
				for i, n := range []int{nth, 1 + nth/2} {
					plan := &fault.Plan{At: fault.Passing{Name: "journal", Moment: moment}, Nth: n}
					remove := fault.Install(dir, plan.Handle)
					_, err := j.Import(t.Context(), strings.NewReader(lines("a", all...)), "")
					remove()
					if plan.Struck() != errors.Is(err, fault.ErrInjected) || !plan.Struck() && err != nil {
						t.Fatalf("%s passing %d: %v", moment, n, err)
					}
					if plan.Struck() {
						reached = true
						passings++
					}
					if dies || i == 1 {
						must(t, j.Close())
						j = small(t, dir)
					}
					if texts, err := j.Texts(All); err != nil || !slices.Equal(texts, first) && !slices.Equal(texts, all) {
						t.Fatalf("%s passing %d: %d records are there (%v)", moment, n, len(texts), err)
					}
				}
				_, err = j.Import(t.Context(), strings.NewReader(lines("a", all...)), "")
				must(t, err)
				must(t, j.Close())
				j = open(t, dir)
				texts, err := j.Texts(All)
				must(t, err)
				if !slices.Equal(texts, all) {
					t.Fatalf("%s passing %d, dies %v: %d texts, want %d", moment, nth, dies, len(texts), len(all))
				}
				must(t, j.Close())
				if !reached {
					break
				}
			}
		}
	}
	if passings < 20 {
		t.Errorf("%d passings failed: the imports are too short", passings)
	}
	t.Logf("1 points, %d cases", passings)
}

// small opens a journal whose imports take many batches.
func small(t *testing.T, dir string) *Journal {
	t.Helper()
	j := open(t, dir)
	j.db = &interrupted{j.db, 1 << 30}
	return j
}
