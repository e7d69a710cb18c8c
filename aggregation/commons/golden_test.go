package commons

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/ruche-federation/ruche/aggregation/encode"
	"github.com/ruche-federation/ruche/aggregation/layout"
	"github.com/ruche-federation/ruche/crypto/label"
	"github.com/ruche-federation/ruche/crypto/prg"
)

var update = flag.Bool("update", false, "rewrite the golden file")

const goldenFile = "testdata/golden.txt"

// hashValues hashes the little-endian bytes of values.
func hashValues[T float32 | float64](values []T) string {
	h := sha256.New()
	if err := binary.Write(h, binary.LittleEndian, values); err != nil {
		panic(err) // a hash does not fail
	}
	return hex.EncodeToString(h.Sum(nil))
}

// goldenValues computes everything that members must agree on, from public streams only; also what it is in float64, since
// the last rounding hides nearly every difference below it.
func goldenValues(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, shape := range [][]int{{1, 3}, {4, 64}, {8, 288}, {16, 16}, {64, 512}} {
		name := fmt.Sprintf("golden.%dx%d.lora_A.weight", shape[0], shape[1])
		tensor, public := layout.Tensor{Name: name, Shape: shape}, label.Sum(label.TagStart, []byte("golden"))
		fmt.Fprintf(&out, "orthonormal %dx%d %s\n", shape[0], shape[1], hashValues(Orthonormal(public, tensor)))
		q := orthonormalise(shape[0], shape[1], publicVectors(public, tensor))
		fmt.Fprintf(&out, "  before rounding %s\n", hashValues(q))
	}
	seed, err := prg.SeedFromBytes(make([]byte, prg.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		d, contributors int
		cReal           float64
		c               uint32
	}{{1, 1, 1, 64}, {1000, 3, 0.1, 2253}, {70000, 24, 1.7, 2253}, {70000, 999, 1e-3, 1000}} {
		l, err := layout.Vector("golden", c.d, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := encode.New(l, c.cReal, c.c, 1000, label.Sum(label.TagRotation, []byte("golden")))
		if err != nil {
			t.Fatal(err)
		}
		stream := prg.NewStream(seed, label.PurposeData, []byte(fmt.Sprint(c)))
		lanes := make([]uint32, p.Len())
		span := int64(c.c) * int64(c.contributors) / int64(math.Sqrt(float64(len(lanes)))+1)
		for i := range lanes {
			lanes[i] = uint32(int32(int64(stream.Uint64N(uint64(2*span+1))) - span))
		}
		sum, err := p.Decode(lanes, c.contributors)
		if err != nil {
			t.Fatal(err)
		}
		next := Init(l)
		for i := range next {
			next[i] = float32(uniform(stream.Uint64()) / 3)
		}
		before := make([]float64, p.D)
		for i, x := range sum.Body {
			before[i] = step(next[i], x, p.Gamma()/float64(encode.RotationRoot*c.contributors))
		}
		for round := range 3 { // what one round rounds, the next begins with
			if next, err = Average(next, sum, c.contributors, p); err != nil {
				t.Fatal(round, err)
			}
		}
		fmt.Fprintf(&out, "average D=%d n=%d C_real=%g C=%d gamma=%#x %s\n", c.d, c.contributors, c.cReal, c.c,
			math.Float64bits(p.Gamma()), hashValues(next))
		fmt.Fprintf(&out, "  before rounding %s\n", hashValues(before))
	}
	return out.String()
}

func TestGoldenBits(t *testing.T) {
	got := goldenValues(t)
	if *update {
		if err := os.WriteFile(goldenFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Fatalf("on %s:\n%swant\n%s", runtime.GOARCH, got, want)
	}
}

// TestArm64 compiles this package's tests for arm64 once, looks into the code and, where there is an emulator, runs it.
func TestArm64(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("skipped: this machine is arm64, TestGoldenBits says it all")
	}
	if testing.Short() {
		t.Skip("skipped: -short; this test compiles for arm64")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("skipped: no go command to compile for arm64 with")
	}
	binary := filepath.Join(t.TempDir(), "commons.test")
	cmd := exec.Command(goTool, "test", "-c", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compiling for arm64: %v\n%s", err, out)
	}
	t.Run("golden bits", func(t *testing.T) { runEmulated(t, binary) })
	t.Run("no fused multiply-add", func(t *testing.T) { searchFused(t, goTool, binary) })
}

func runEmulated(t *testing.T, binary string) {
	var emulator string
	for _, name := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
		if path, err := exec.LookPath(name); err == nil {
			emulator = path
			break
		}
	}
	if emulator == "" {
		t.Skip("skipped: no qemu-aarch64 or qemu-aarch64-static (packages qemu-user, qemu-user-static) to run arm64 code")
	}
	out, err := exec.Command(emulator, binary, "-test.run=^TestGoldenBits$", "-test.v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestGoldenBits") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// fusable is what a compiler for arm64 does fuse: it shows that the search finds what it looks for.
//
//go:noinline
func fusable(a, b, c float64) float64 { return a*b + c }

// searchFused looks for instructions that round a product and a sum once, in all code of the packages whose results
// members sign, and in what was inlined into it.
func searchFused(t *testing.T, goTool, binary string) {
	if fusable(2, 3, 4) != 10 {
		t.Fatal("arithmetic")
	}
	out, err := exec.Command(goTool, "tool", "objdump", "-s", `aggregation/(commons|encode)\.`, binary).Output()
	if err != nil {
		t.Skipf("skipped: go tool objdump does not run: %v", err)
	}
	fused := regexp.MustCompile(`\bFN?M(ADD|SUB)[SD]?\b`)
	function, control, average := "", false, false
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(line, "TEXT "); ok {
			function, _, _ = strings.Cut(name, "(SB)")
			average = average || strings.HasSuffix(function, "commons.Average")
			continue
		}
		if !fused.MatchString(line) {
			continue
		}
		switch {
		case strings.HasSuffix(function, "commons.fusable"):
			control = true
		case strings.Contains(line, "_test.go"):
		default:
			t.Errorf("%s is fused: %s", function, strings.TrimSpace(line))
		}
	}
	if !control || !average {
		t.Fatalf("the search is blind: found fusable %v, Average %v", control, average)
	}
}
