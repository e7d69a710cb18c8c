package llm

import (
	"runtime"
	"sync"
)

// The three products of a linear layer y = x·Wᵀ, with x [m,k] and W [n,k] row-major:
//
//	matmulNT  c[m,n] = a[m,k] · b[n,k]ᵀ    forward
//	matmulNN  c[m,n] = a[m,k] · b[k,n]     gradient of the input
//	matmulTN  c[m,n] = a[k,m]ᵀ · b[k,n]    gradient of the weights
//
// With add, c is added to. Every output is summed in one fixed order by one goroutine, so results do not depend on the
// number of threads. These are the definition that faster kernels are tested against.

// parallelMin is the work, in multiplications, below which a second goroutine costs more than it brings.
const parallelMin = 1 << 17

// split runs f over [0,n) in at most threads contiguous parts, each a multiple of unit long but the last.
func split(threads, n, unit, work int, f func(lo, hi int)) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	threads = min(threads, max(1, work/parallelMin), (n+unit-1)/unit)
	if threads <= 1 {
		f(0, n)
		return
	}
	per := ((n+threads-1)/threads + unit - 1) / unit * unit
	var wg sync.WaitGroup
	for lo := per; lo < n; lo += per {
		wg.Add(1)
		go func(lo int) {
			defer wg.Done()
			f(lo, min(lo+per, n))
		}(lo)
	}
	f(0, min(per, n))
	wg.Wait()
}

func matmulNT(c, a, b []float32, m, n, k int, add bool, threads int) {
	if m == 1 {
		// One token: the rows of b are what there is to share out.
		split(threads, n, 2, n*k, func(lo, hi int) { rowsNT(c, a, b, 0, 1, lo, hi, n, k, add) })
		return
	}
	split(threads, m, 4, m*n*k, func(lo, hi int) { rowsNT(c, a, b, lo, hi, 0, n, n, k, add) })
}

// rowsNT computes rows [m0,m1) and columns [n0,n1) of c in tiles of 4x2.
func rowsNT(c, a, b []float32, m0, m1, n0, n1, n, k int, add bool) {
	i := m0
	for ; i+4 <= m1; i += 4 {
		a0, a1, a2, a3 := a[i*k:i*k+k], a[(i+1)*k:(i+1)*k+k], a[(i+2)*k:(i+2)*k+k], a[(i+3)*k:(i+3)*k+k]
		j := n0
		for ; j+2 <= n1; j += 2 {
			b0, b1 := b[j*k:j*k+k], b[(j+1)*k:(j+1)*k+k]
			var s00, s01, s10, s11, s20, s21, s30, s31 float32
			// The lengths are equal: said once here, it frees the loop of bounds checks.
			a0, a1, a2, a3, b1 := a0[:len(b0)], a1[:len(b0)], a2[:len(b0)], a3[:len(b0)], b1[:len(b0)]
			for p, y0 := range b0 {
				y1 := b1[p]
				x := a0[p]
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
			put(c, i*n+j, s00, add)
			put(c, i*n+j+1, s01, add)
			put(c, (i+1)*n+j, s10, add)
			put(c, (i+1)*n+j+1, s11, add)
			put(c, (i+2)*n+j, s20, add)
			put(c, (i+2)*n+j+1, s21, add)
			put(c, (i+3)*n+j, s30, add)
			put(c, (i+3)*n+j+1, s31, add)
		}
		for ; j < n1; j++ {
			bj := b[j*k : j*k+k]
			put(c, i*n+j, dot(a0, bj), add)
			put(c, (i+1)*n+j, dot(a1, bj), add)
			put(c, (i+2)*n+j, dot(a2, bj), add)
			put(c, (i+3)*n+j, dot(a3, bj), add)
		}
	}
	for ; i < m1; i++ {
		ai := a[i*k : i*k+k]
		for j := n0; j < n1; j++ {
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

// dot sums in one order, like a tile does: a row gives the same bits in a tile and beside one.
func dot(a, b []float32) float32 {
	var s float32
	b = b[:len(a)]
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

func matmulNN(c, a, b []float32, m, n, k int, add bool, threads int) {
	split(threads, m, 2, m*n*k, func(lo, hi int) { rowsXN(c, a, b, lo, hi, n, k, k, 1, add) })
}

func matmulTN(c, a, b []float32, m, n, k int, add bool, threads int) {
	split(threads, m, 2, m*n*k, func(lo, hi int) { rowsXN(c, a, b, lo, hi, n, k, 1, m, add) })
}

// rowsXN computes rows [m0,m1) of c as sums of rows of b; a's element (i,p) is a[i*si+p*sp]. Two rows of c and four of b
// at a time keep the loop busy with arithmetic.
func rowsXN(c, a, b []float32, m0, m1, n, k, si, sp int, add bool) {
	i := m0
	for ; i+2 <= m1; i += 2 {
		c0, c1 := c[i*n:i*n+n], c[(i+1)*n:(i+1)*n+n]
		if !add {
			clear(c0)
			clear(c1)
		}
		p := 0
		for ; p+4 <= k; p += 4 {
			x0, x1, x2, x3 := a[i*si+p*sp], a[i*si+(p+1)*sp], a[i*si+(p+2)*sp], a[i*si+(p+3)*sp]
			y0, y1, y2, y3 := a[(i+1)*si+p*sp], a[(i+1)*si+(p+1)*sp], a[(i+1)*si+(p+2)*sp], a[(i+1)*si+(p+3)*sp]
			b0, b1, b2, b3 := b[p*n:p*n+n], b[(p+1)*n:(p+1)*n+n], b[(p+2)*n:(p+2)*n+n], b[(p+3)*n:(p+3)*n+n]
			c1, b0, b1, b2, b3 := c1[:len(c0)], b0[:len(c0)], b1[:len(c0)], b2[:len(c0)], b3[:len(c0)]
			for j := range c0 {
				w0, w1, w2, w3 := b0[j], b1[j], b2[j], b3[j]
				c0[j] += x0*w0 + x1*w1 + x2*w2 + x3*w3
				c1[j] += y0*w0 + y1*w1 + y2*w2 + y3*w3
			}
		}
		for ; p < k; p++ {
			x, y := a[i*si+p*sp], a[(i+1)*si+p*sp]
			bp := b[p*n : p*n+n]
			c1 := c1[:len(bp)]
			c0 := c0[:len(bp)]
			for j, w := range bp {
				c0[j] += x * w
				c1[j] += y * w
			}
		}
	}
	for ; i < m1; i++ {
		ci := c[i*n : i*n+n]
		if !add {
			clear(ci)
		}
		p := 0
		for ; p+4 <= k; p += 4 {
			x0, x1, x2, x3 := a[i*si+p*sp], a[i*si+(p+1)*sp], a[i*si+(p+2)*sp], a[i*si+(p+3)*sp]
			b0, b1, b2, b3 := b[p*n:p*n+n], b[(p+1)*n:(p+1)*n+n], b[(p+2)*n:(p+2)*n+n], b[(p+3)*n:(p+3)*n+n]
			b0, b1, b2, b3 = b0[:len(ci)], b1[:len(ci)], b2[:len(ci)], b3[:len(ci)]
			for j := range ci {
				ci[j] += x0*b0[j] + x1*b1[j] + x2*b2[j] + x3*b3[j]
			}
		}
		for ; p < k; p++ {
			x := a[i*si+p*sp]
			bp := b[p*n : p*n+n]
			ci := ci[:len(bp)]
			for j, w := range bp {
				ci[j] += x * w
			}
		}
	}
}
