package raftlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestGoldenEncodings holds the stored forms of version 1, and the refusal of version 2.
func TestGoldenEncodings(t *testing.T) {
	entry := encodeEntry(&raft.Log{Index: 258, Term: 3, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ex"), AppendedAt: time.Unix(1, 2)})
	window := bounds{first: 3, last: 9, commit: 8, sweepFrom: 1, sweepTo: 2}.encode()
	slot := encodeSlot(11, full)
	if slotTail := bytes.TrimRight(slot[:slotSize-4], "\x00"); !bytes.HasSuffix(slotTail, []byte("member-2:7421")) {
		t.Error("the candidate ends a slot")
	}
	for name, c := range map[string]struct{ got, want []byte }{
		"entry":  {entry[:len(entry)-4], unhex("01 05 0000000000000102 0000000000000003 000000003b9aca02 00000002 00000004 6578 64617461")},
		"bounds": {window[:len(window)-4], unhex("01 0000000000000003 0000000000000009 0000000000000008 0000000000000001 0000000000000002")},
		"slot":   {slot[:52], unhex("7275636865475244 0001 000d 000000000000000b 0000000000000007 0000000000000006 0000000000000028 0000000000000032")},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: %x, want %x", name, c.got, c.want)
		}
	}
	for name, b := range map[string][]byte{"entry": entry, "bounds": window} {
		b[0]++
		binary.BigEndian.PutUint32(b[len(b)-4:], castagnoli(b[:len(b)-4]))
		_, err1 := decodeEntry(b)
		_, err2 := decodeBounds(b)
		if err := map[string]error{"entry": err1, "bounds": err2}[name]; err == nil || !strings.Contains(err.Error(), "format version 2") {
			t.Errorf("%s of version 2: %v", name, err)
		}
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzEntry(f *testing.F) {
	f.Add(encodeEntry(&raft.Log{}))
	f.Add(encodeEntry(&raft.Log{Index: 1, Term: 2, Type: 3, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(1, 2)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeEntry(b); err == nil && !bytes.Equal(encodeEntry(&l), b) {
			t.Fatal("accepted another encoding")
		}
		reseal(b, len(b)) // past the checksum
		if l, err := decodeEntry(b); err == nil && !bytes.Equal(encodeEntry(&l), b) {
			t.Fatal("accepted another encoding")
		}
	})
}

func FuzzBounds(f *testing.F) {
	f.Add(bounds{}.encode())
	f.Add(bounds{first: 3, last: 9, commit: 8, sweepFrom: 1, sweepTo: 2}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		reseal(b, len(b))
		if w, err := decodeBounds(b); err == nil && !bytes.Equal(w.encode(), b) {
			t.Fatal("accepted another encoding")
		}
	})
}

func FuzzGuardSlot(f *testing.F) {
	f.Add(encodeSlot(1, witness{}))
	f.Add(encodeSlot(2, full))
	f.Fuzz(func(t *testing.T, b []byte) {
		reseal(b, slotSize)
		if seq, w, err := decodeSlot(b); err == nil && !bytes.Equal(encodeSlot(seq, w), b) {
			t.Fatal("accepted another encoding")
		}
	})
}

// reseal gives b the right checksum, so that a fuzzer reaches what lies behind it.
func reseal(b []byte, size int) {
	if len(b) == size && size >= 4 {
		binary.BigEndian.PutUint32(b[size-4:], castagnoli(b[:size-4]))
	}
}
