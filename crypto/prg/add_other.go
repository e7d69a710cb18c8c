//go:build !amd64 || purego

package prg

func addTile(dst []uint32, keystream []byte) { addTilePure(dst, keystream) }
