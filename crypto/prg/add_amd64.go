//go:build !purego

package prg

import "golang.org/x/sys/cpu"

// addLanesAVX2 is addTile of a positive multiple of 32 lanes.
//
//go:noescape
func addLanesAVX2(dst *uint32, keystream *byte, lanes int)

// addTile is addTilePure, 32 lanes at a time where the processor can. keystream holds at least four bytes per lane.
func addTile(dst []uint32, keystream []byte) {
	if n := len(dst) &^ 31; cpu.X86.HasAVX2 && n > 0 {
		_ = keystream[4*n-1]
		addLanesAVX2(&dst[0], &keystream[0], n)
		dst, keystream = dst[n:], keystream[4*n:]
	}
	addTilePure(dst, keystream)
}
