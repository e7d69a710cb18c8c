package llm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// product is one of the three matrix products with its operands' shapes.
type product struct {
	name string
	run  func(p *products, c, a, b []float32, m, n, k int, add bool)
	at   func(a, b []float32, m, n, k, i, j, p int) (x, y float32) // the factors of term p of output (i,j)
}

var allProducts = []product{
	{"nt", (*products).nt, func(a, b []float32, m, n, k, i, j, p int) (float32, float32) { return a[i*k+p], b[j*k+p] }},
	{"nn", (*products).nn, func(a, b []float32, m, n, k, i, j, p int) (float32, float32) { return a[i*k+p], b[p*n+j] }},
	{"tn", (*products).tn, func(a, b []float32, m, n, k, i, j, p int) (float32, float32) { return a[p*m+i], b[p*n+j] }},
}

func random(rng *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// checkProduct compares a product with the textbook's triple loop in float64, with and without add, for one to four
// threads, whose bits must be equal.
func checkProduct(t *testing.T, rng *rand.Rand, x product, m, n, k int) {
	t.Helper()
	a, b, before := random(rng, m*k), random(rng, n*k), random(rng, m*n)
	for _, add := range []bool{false, true} {
		var first []float32
		for threads := 1; threads <= 4; threads++ {
			p := newProducts(threads)
			c := append(slices.Clone(before), 7) // and a guard behind the output
			x.run(&p, c[:m*n], a, b, m, n, k, add)
			if c[m*n] != 7 {
				t.Fatalf("%s %dx%dx%d writes behind its output", x.name, m, n, k)
			}
			if first == nil {
				first = c
			}
			for i := range c {
				if math.Float32bits(c[i]) != math.Float32bits(first[i]) {
					t.Fatalf("%s %dx%dx%d add %v: output %d is %v with %d threads, %v with one", x.name, m, n, k, add, i, c[i], threads, first[i])
				}
			}
		}
		for i := range m {
			for j := range n {
				var want, size float64
				if add {
					want = float64(before[i*n+j])
					size = math.Abs(want)
				}
				for p := range k {
					u, v := x.at(a, b, m, n, k, i, j, p)
					want += float64(u) * float64(v)
					size += math.Abs(float64(u) * float64(v))
				}
				// k roundings of at most 2^-24 of the sum of magnitudes, each product's own included.
				if d := math.Abs(float64(first[i*n+j]) - want); d > float64(k+2)*size*0x1p-23 {
					t.Fatalf("%s %dx%dx%d add %v: (%d,%d) is %v, want %v", x.name, m, n, k, add, i, j, first[i*n+j], want)
				}
			}
		}
	}
}

func TestProductsAreTheTextbooks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	most := 9
	if testing.Short() {
		most = 5
	}
	for _, x := range allProducts {
		t.Run(x.name, func(t *testing.T) {
			for m := 1; m <= most; m++ {
				for n := 1; n <= most; n++ {
					for k := 1; k <= most; k++ {
						checkProduct(t, rng, x, m, n, k)
					}
				}
			}
			for _, s := range [][3]int{{1, 4001, 67}, {2, 33, 65}, {15, 16, 17}, {16, 15, 17}, {16, 16, 64}, {17, 31, 129}, {33, 8, 172}, {67, 8, 63}, {129, 64, 8}, {3, 1027, 5}, {65, 1029, 66}, {301, 67, 35}, {172, 64, 64}} {
				checkProduct(t, rng, x, s[0], s[1], s[2])
			}
		})
	}
}

// TestProductsWithRoomForGoroutines has enough work that four goroutines really run.
func TestProductsWithRoomForGoroutines(t *testing.T) {
	const m, n, k = 131, 69, 139
	if share(4, m, 2, m*n*k) >= m/2 {
		t.Fatal("the shape is too small to be shared by four")
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, x := range allProducts {
		checkProduct(t, rng, x, m, n, k)
		checkProduct(t, rng, x, 8191, 8, 17)
		checkProduct(t, rng, x, 9, 8191, 17)
	}
}

func TestSplitCoversEachItemOnce(t *testing.T) {
	for n := 1; n < 40; n++ {
		for _, unit := range []int{1, 2, 4} {
			for threads := 1; threads <= 5; threads++ {
				seen := make([]int, n)
				split(threads, n, unit, 1<<30, func(lo, hi int) {
					if lo%unit != 0 || hi > n {
						t.Errorf("part [%d,%d) of %d in units of %d", lo, hi, n, unit)
					}
					for i := lo; i < hi; i++ {
						seen[i]++ // parts share nothing: the race detector would say otherwise
					}
				})
				for i, v := range seen {
					if v != 1 {
						t.Fatalf("%d items, units of %d, %d threads: item %d was done %d times", n, unit, threads, i, v)
					}
				}
			}
		}
	}
}

func TestTransposeTwiceIsTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, s := range [][2]int{{1, 1}, {3, 5}, {16, 16}, {17, 33}, {40, 7}} {
		rows, columns := s[0], s[1]
		stride := columns + 3
		src := random(rng, rows*stride)
		dst, back := make([]float32, rows*columns), make([]float32, rows*columns)
		transpose(dst, src, rows, columns, stride)
		transpose(back, dst, columns, rows, rows)
		for i := range rows {
			for j := range columns {
				if dst[j*rows+i] != src[i*stride+j] || back[i*columns+j] != src[i*stride+j] {
					t.Fatalf("%dx%d: (%d,%d) went elsewhere", rows, columns, i, j)
				}
			}
		}
	}
}

func TestExp32(t *testing.T) {
	worst := 0.0
	check := func(x float32) {
		want := math.Exp(float64(x))
		rel := math.Abs(float64(exp32(x))-want) / want
		if worst = max(worst, rel); rel > 2e-7 {
			t.Fatalf("exp32(%v) is %v, want %v: relative error %.3g", x, exp32(x), want, rel)
		}
	}
	for _, sign := range []uint32{0, 1 << 31} { // each 1009th float32 of [-87, 88.7], the tiny ones included
		for bits := uint32(0); ; bits += 1009 {
			x := math.Float32frombits(bits | sign)
			if x > 88.7 || x < -87 {
				break
			}
			check(x)
		}
	}
	t.Logf("largest relative error %.3g", worst)
	for _, x := range []struct{ in, out float64 }{{0, 1}, {-87.5, 0}, {-1e30, 0}, {math.Inf(-1), 0}, {89, math.Inf(1)}, {math.Inf(1), math.Inf(1)}} {
		if got := exp32(float32(x.in)); float64(got) != x.out {
			t.Errorf("exp32(%v) is %v, want %v", x.in, got, x.out)
		}
	}
	if nan := exp32(float32(math.NaN())); nan == nan {
		t.Errorf("exp32(NaN) is %v", nan)
	}
}

// BenchmarkProducts reports GFLOP/s at the shapes of a training step: a square, stories260K's layers, and LoRA's two.
func BenchmarkProducts(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, s := range [][3]int{{256, 352, 128}, {768, 64, 64}, {768, 172, 64}, {768, 8, 64}, {768, 64, 8}} {
		m, n, k := s[0], s[1], s[2]
		x, y, c := random(rng, m*k), random(rng, n*k), make([]float32, m*n)
		for _, kind := range allProducts {
			for threads := 1; threads <= 2; threads++ {
				b.Run(fmt.Sprintf("%s/%dx%dx%d/%d", kind.name, m, n, k, threads), func(b *testing.B) {
					p := newProducts(threads)
					for b.Loop() {
						kind.run(&p, c, x, y, m, n, k, false)
					}
					b.ReportMetric(2*float64(m*n*k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
				})
			}
		}
	}
}

func BenchmarkExp32(b *testing.B) {
	x := random(rand.New(rand.NewPCG(9, 10)), 4096)
	y := make([]float32, len(x))
	b.Run("float32", func(b *testing.B) {
		for b.Loop() {
			for i, v := range x {
				y[i] = exp32(v)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/value")
	})
	b.Run("math.Exp", func(b *testing.B) {
		for b.Loop() {
			for i, v := range x {
				y[i] = float32(math.Exp(float64(v)))
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/value")
	})
}
