package llm

import (
	"runtime"
	"sync"
)

// products computes the three products of a linear layer y = x·Wᵀ, with x [m,k] and W [n,k] row-major:
//
//	nt  c[m,n] = a[m,k] · b[n,k]ᵀ    forward
//	nn  c[m,n] = a[m,k] · b[k,n]     gradient of the input
//	tn  c[m,n] = a[k,m]ᵀ · b[k,n]    gradient of the weights
//
// With add, c is added to. All three end in one of two loops: rowsWide, for outputs of many columns, adds rows of b;
// rowsNarrow, for few columns or few rows, takes products of rows. An operand that lies the other way round is turned
// first: it is the smaller one. Which loop runs follows from the shapes and every output is summed in one fixed order by
// one goroutine, so results do not depend on the number of threads. These loops are the definition that faster kernels
// are tested against.
type products struct {
	threads int
	turned  []float32 // scratch: an operand or a result, transposed
}

// newProducts uses that many goroutines, one per processor if threads is 0.
func newProducts(threads int) products {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return products{threads: threads}
}

const (
	// parallelMin is the work, in multiplications, below which a second goroutine costs more than it brings.
	parallelMin = 1 << 18
	// wide is the number of columns, and of rows, from which rowsWide is the faster loop.
	wide = 16
	// panelRows x panelColumns of b stay in a core's second-level cache while rows of a pass over them.
	panelRows    = 64
	panelColumns = 1024
)

// share is the length of the parts in which at most threads goroutines take n items: a multiple of unit.
func share(threads, n, unit, work int) int {
	threads = max(1, min(threads, work/parallelMin, (n+unit-1)/unit))
	return ((n+threads-1)/threads + unit - 1) / unit * unit
}

// split runs f over [0,n) in contiguous parts of share's length.
func split(threads, n, unit, work int, f func(lo, hi int)) {
	per := share(threads, n, unit, work)
	if per >= n {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	for lo := per; lo < n; lo += per {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(lo, min(lo+per, n))
		}()
	}
	f(0, per)
	wg.Wait()
}

func (p *products) nt(c, a, b []float32, m, n, k int, add bool) {
	switch {
	case m == 1: // one token: the rows of b are what there is to share out
		split(p.threads, n, 4, n*k, func(lo, hi int) { rowsNarrow(c[lo:hi], a, b[lo*k:], 1, hi-lo, k, add) })
	case m < wide || n < wide:
		split(p.threads, m, 4, m*n*k, func(lo, hi int) { rowsNarrow(c[lo*n:], a[lo*k:], b, hi-lo, n, k, add) })
	default:
		bt := p.turn(b, n, k)
		split(p.threads, m, 2, m*n*k, func(lo, hi int) { rowsWide(c[lo*n:], a[lo*k:], bt, hi-lo, n, k, n, k, 1, n, add) })
	}
}

func (p *products) nn(c, a, b []float32, m, n, k int, add bool) {
	if n < wide && m >= wide {
		bt := p.turn(b, k, n)
		split(p.threads, m, 4, m*n*k, func(lo, hi int) { rowsNarrow(c[lo*n:], a[lo*k:], bt, hi-lo, n, k, add) })
		return
	}
	split(p.threads, m, 2, m*n*k, func(lo, hi int) { rowsWide(c[lo*n:], a[lo*k:], b, hi-lo, n, k, n, k, 1, n, add) })
}

func (p *products) tn(c, a, b []float32, m, n, k int, add bool) {
	if n < wide && m >= wide {
		// bᵀ·a has long rows; turned, it is what was asked for.
		ct := p.scratch(n * m)
		split(p.threads, n, 2, m*n*k, func(lo, hi int) { rowsWide(ct[lo*m:], b[lo:], a, hi-lo, m, k, m, 1, n, m, false) })
		for i := range m {
			for j := range n {
				put(c, i*n+j, ct[j*m+i], add)
			}
		}
		return
	}
	split(p.threads, m, 2, m*n*k, func(lo, hi int) { rowsWide(c[lo*n:], a[lo:], b, hi-lo, n, k, n, 1, m, n, add) })
}

func (p *products) scratch(n int) []float32 {
	if cap(p.turned) < n {
		p.turned = make([]float32, n)
	}
	return p.turned[:n]
}

func (p *products) turn(b []float32, rows, columns int) []float32 {
	out := p.scratch(rows * columns)
	transpose(out, b, rows, columns, columns)
	return out
}

// transpose writes src [rows,columns], whose rows are stride apart, to dst [columns,rows].
func transpose(dst, src []float32, rows, columns, stride int) {
	const block = 16 // lines of dst at a time
	for j0 := 0; j0 < columns; j0 += block {
		j1 := min(j0+block, columns)
		for i := range rows {
			for j, v := range src[i*stride+j0 : i*stride+j1] {
				dst[(j0+j)*rows+i] = v
			}
		}
	}
}

// rowsWide computes c[i,:] = Σ_p a(i,p)·b[p,:] for m rows of n columns. Rows of c are ldc apart and rows of b ldb; a's
// element (i,p) is a[i*si+p*sp].
func rowsWide(c, a, b []float32, m, n, k, ldc, si, sp, ldb int, add bool) {
	for j := 0; j < n; j += panelColumns {
		for p := 0; p < k; p += panelRows {
			panel(c[j:], a[p*sp:], b[p*ldb+j:], m, min(panelColumns, n-j), min(panelRows, k-p), ldc, si, sp, ldb, add || p > 0)
		}
	}
}

// panel is rowsWide where b is small. Two rows of c and four of b at a time are as much as the registers hold.
func panel(c, a, b []float32, m, n, k, ldc, si, sp, ldb int, add bool) {
	i := 0
	for ; i+2 <= m; i += 2 {
		c0 := c[i*ldc : i*ldc+n]
		c1 := c[(i+1)*ldc : (i+1)*ldc+n][:len(c0)] // equal lengths, said once: no bounds checks inside
		if !add {
			clear(c0)
			clear(c1)
		}
		x, y := a[i*si:], a[(i+1)*si:]
		p := 0
		for ; p+4 <= k; p += 4 {
			x0, x1, x2, x3 := x[p*sp], x[(p+1)*sp], x[(p+2)*sp], x[(p+3)*sp]
			y0, y1, y2, y3 := y[p*sp], y[(p+1)*sp], y[(p+2)*sp], y[(p+3)*sp]
			b0, b1 := b[p*ldb : p*ldb+n][:len(c0)], b[(p+1)*ldb : (p+1)*ldb+n][:len(c0)]
			b2, b3 := b[(p+2)*ldb : (p+2)*ldb+n][:len(c0)], b[(p+3)*ldb : (p+3)*ldb+n][:len(c0)]
			for j := range c0 {
				w0, w1, w2, w3 := b0[j], b1[j], b2[j], b3[j]
				c0[j] += x0*w0 + x1*w1 + x2*w2 + x3*w3
				c1[j] += y0*w0 + y1*w1 + y2*w2 + y3*w3
			}
		}
		for ; p < k; p++ {
			x0, y0 := x[p*sp], y[p*sp]
			for j, w := range b[p*ldb : p*ldb+n][:len(c0)] {
				c0[j] += x0 * w
				c1[j] += y0 * w
			}
		}
	}
	if i < m {
		c0, x := c[i*ldc:i*ldc+n], a[i*si:]
		if !add {
			clear(c0)
		}
		p := 0
		for ; p+4 <= k; p += 4 {
			x0, x1, x2, x3 := x[p*sp], x[(p+1)*sp], x[(p+2)*sp], x[(p+3)*sp]
			b0, b1 := b[p*ldb : p*ldb+n][:len(c0)], b[(p+1)*ldb : (p+1)*ldb+n][:len(c0)]
			b2, b3 := b[(p+2)*ldb : (p+2)*ldb+n][:len(c0)], b[(p+3)*ldb : (p+3)*ldb+n][:len(c0)]
			for j := range c0 {
				c0[j] += x0*b0[j] + x1*b1[j] + x2*b2[j] + x3*b3[j]
			}
		}
		for ; p < k; p++ {
			x0 := x[p*sp]
			for j, w := range b[p*ldb : p*ldb+n][:len(c0)] {
				c0[j] += x0 * w
			}
		}
	}
}

// rowsNarrow computes c[m,n] = a[m,k]·b[n,k]ᵀ in tiles of 4x2 and, for rows left over, 1x4. Each output is the sum of
// its products in order, wherever it lies.
func rowsNarrow(c, a, b []float32, m, n, k int, add bool) {
	i := 0
	for ; i+4 <= m; i += 4 {
		a0, a1, a2, a3 := a[i*k:i*k+k], a[(i+1)*k:(i+1)*k+k], a[(i+2)*k:(i+2)*k+k], a[(i+3)*k:(i+3)*k+k]
		j := 0
		for ; j+2 <= n; j += 2 {
			b0 := b[j*k : j*k+k]
			b1, a0, a1, a2, a3 := b[(j+1)*k : (j+1)*k+k][:len(b0)], a0[:len(b0)], a1[:len(b0)], a2[:len(b0)], a3[:len(b0)]
			var s00, s01, s10, s11, s20, s21, s30, s31 float32
			p := 1
			for ; p < len(b0); p += 2 { // two at a time: half the counting
				y0, y1, x := b0[p-1], b1[p-1], a0[p-1]
				s00 += x * y0
				s01 += x * y1
				x = a1[p-1]
				s10 += x * y0
				s11 += x * y1
				x = a2[p-1]
				s20 += x * y0
				s21 += x * y1
				x = a3[p-1]
				s30 += x * y0
				s31 += x * y1
				y0, y1, x = b0[p], b1[p], a0[p]
				s00 += x * y0
				s01 += x * y1
				x = a1[p]
				s10 += x * y0
				s11 += x * y1
				x = a2[p]
				s20 += x * y0
				s21 += x * y1
				x = a3[p]
				s30 += x * y0
				s31 += x * y1
			}
			if p == len(b0) {
				y0, y1 := b0[p-1], b1[p-1]
				s00 += a0[p-1] * y0
				s01 += a0[p-1] * y1
				s10 += a1[p-1] * y0
				s11 += a1[p-1] * y1
				s20 += a2[p-1] * y0
				s21 += a2[p-1] * y1
				s30 += a3[p-1] * y0
				s31 += a3[p-1] * y1
			}
			put(c, i*n+j, s00, add)
			put(c, i*n+j+1, s01, add)
			put(c, (i+1)*n+j, s10, add)
			put(c, (i+1)*n+j+1, s11, add)
			put(c, (i+2)*n+j, s20, add)
			put(c, (i+2)*n+j+1, s21, add)
			put(c, (i+3)*n+j, s30, add)
			put(c, (i+3)*n+j+1, s31, add)
		}
		if j < n {
			bj := b[j*k : j*k+k]
			put(c, i*n+j, dot(a0, bj), add)
			put(c, (i+1)*n+j, dot(a1, bj), add)
			put(c, (i+2)*n+j, dot(a2, bj), add)
			put(c, (i+3)*n+j, dot(a3, bj), add)
		}
	}
	for ; i < m; i++ {
		ai := a[i*k : i*k+k]
		j := 0
		for ; j+4 <= n; j += 4 {
			s0, s1, s2, s3 := dot4(ai, b[j*k:j*k+k], b[(j+1)*k:(j+1)*k+k], b[(j+2)*k:(j+2)*k+k], b[(j+3)*k:(j+3)*k+k])
			put(c, i*n+j, s0, add)
			put(c, i*n+j+1, s1, add)
			put(c, i*n+j+2, s2, add)
			put(c, i*n+j+3, s3, add)
		}
		for ; j < n; j++ {
			put(c, i*n+j, dot(ai, b[j*k:j*k+k]), add)
		}
	}
}

func put(c []float32, at int, v float32, add bool) {
	if add {
		c[at] += v
	} else {
		c[at] = v
	}
}

func dot(a, b []float32) float32 {
	var s float32
	b = b[:len(a)]
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

// dot4 is four dot products, whose additions do not wait for each other.
func dot4(a, b0, b1, b2, b3 []float32) (s0, s1, s2, s3 float32) {
	b0, b1, b2, b3 = b0[:len(a)], b1[:len(a)], b2[:len(a)], b3[:len(a)]
	for i, x := range a {
		s0 += x * b0[i]
		s1 += x * b1[i]
		s2 += x * b2[i]
		s3 += x * b3[i]
	}
	return
}
