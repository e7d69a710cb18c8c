package intake

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ruche-federation/ruche/coordinator/coordpb"
	"github.com/ruche-federation/ruche/coordinator/statement"
	"github.com/ruche-federation/ruche/crypto/identity"
	"github.com/ruche-federation/ruche/crypto/label"
)

// TestBadHeads: every lie in a head has its word. Each is signed by its device unless it says otherwise.
func TestBadHeads(t *testing.T) {
	w := newWorld(t, 4, 1, 100)
	resigned := func(d *device, change func(h *statement.Header)) *coordpb.UploadOpen {
		change(d.header)
		return d.open()
	}
	for name, c := range map[string]struct {
		open func(d *device) *coordpb.UploadOpen
		code string
	}{
		"nothing":     {func(*device) *coordpb.UploadOpen { return nil }, CodeBadHeader},
		"empty":       {func(*device) *coordpb.UploadOpen { return &coordpb.UploadOpen{} }, CodeBadHeader},
		"no header":   {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Header = nil; return o }, CodeBadHeader},
		"cut header":  {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Header.Body = o.Header.Body[:40]; return o }, CodeBadHeader},
		"long header": {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Header.Body = append(o.Header.Body, 0); return o }, CodeBadHeader},
		"other round": {func(d *device) *coordpb.UploadOpen { o := d.open(); o.RoundId = make([]byte, 32); return o }, CodeBadHeader},
		"no round":    {func(d *device) *coordpb.UploadOpen { o := d.open(); o.RoundId = nil; return o }, CodeBadHeader},
		"unknown round": {func(d *device) *coordpb.UploadOpen {
			return resigned(d, func(h *statement.Header) { h.Round[0] ^= 1 })
		}, CodeUnknownRound},
		"noise":  {func(d *device) *coordpb.UploadOpen { return resigned(d, func(h *statement.Header) { h.Kind = 2 }) }, CodeBadHeader},
		"bits":   {func(d *device) *coordpb.UploadOpen { return resigned(d, func(h *statement.Header) { h.Bits[0] = 1 }) }, CodeBadHeader},
		"length": {func(d *device) *coordpb.UploadOpen { return resigned(d, func(h *statement.Header) { h.Len++ }) }, CodeWrongLength},
		"length beyond 2^31": {func(d *device) *coordpb.UploadOpen {
			return resigned(d, func(h *statement.Header) { h.Len = 1<<32 - 1 })
		}, CodeWrongLength},
		"one commitment too few": {func(d *device) *coordpb.UploadOpen {
			return resigned(d, func(h *statement.Header) { h.Commitments = h.Commitments[1:] })
		}, CodeBadHeader},
		"no boxes":         {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Boxes = nil; return o }, CodeBadBoxes},
		"one box too many": {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Boxes = append(o.Boxes, o.Boxes[0]); return o }, CodeBadBoxes},
		"boxes swapped": {func(d *device) *coordpb.UploadOpen {
			o := d.open()
			o.Boxes[0], o.Boxes[1] = o.Boxes[1], o.Boxes[0]
			return o
		}, CodeBadBoxes},
		"a short box": {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Boxes[2] = o.Boxes[2][:10]; return o }, CodeBadBoxes},
		"boxes of another size, signed": {func(d *device) *coordpb.UploadOpen {
			d.boxes[0] = append(d.boxes[0], 0)
			return resigned(d, func(h *statement.Header) { h.Boxes = statement.HashBoxes(d.boxes) })
		}, CodeBadBoxes},
		"a head of 64 KiB": {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Boxes[0] = make([]byte, headBytesMax); return o }, CodeBadHeader},
		"a stranger": {func(d *device) *coordpb.UploadOpen {
			key, err := identity.NewKey(w.random)
			must(t, err)
			d.key = key
			return resigned(d, func(h *statement.Header) { h.Device = identity.DeviceID(key.Public()) })
		}, CodeUnknownDevice},
		"another certificate": {func(d *device) *coordpb.UploadOpen { return resigned(d, func(h *statement.Header) { h.Cert[0] ^= 1 }) }, CodeUnknownDevice},
		"no signature":        {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Header.Signature = nil; return o }, CodeBadSignature},
		"bad signature":       {func(d *device) *coordpb.UploadOpen { o := d.open(); o.Header.Signature[5] ^= 1; return o }, CodeBadSignature},
		"long signature": {func(d *device) *coordpb.UploadOpen {
			o := d.open()
			o.Header.Signature = append(o.Header.Signature, 0)
			return o
		}, CodeBadSignature},
		"in another's name": {func(d *device) *coordpb.UploadOpen {
			victim := w.device()
			return resigned(d, func(h *statement.Header) { h.Device, h.Cert = victim.id, victim.cert.Hash() })
		}, CodeBadSignature},
		"an old header's signature": {func(d *device) *coordpb.UploadOpen {
			old := d.open().Header.Signature
			w.contribute(d)
			o := d.open()
			o.Header.Signature = old
			return o
		}, CodeBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			d := w.device()
			open := c.open(d)
			_, _, err := Check(w, open)
			wantCode(t, err, c.code)
			if strings.Contains(err.Error(), d.id.String()) {
				t.Errorf("the refusal names the device: %v", err)
			}
			_, err = w.members[0].ingress.Upload(t.Context(), messages(open, d.chunks(0)))
			wantCode(t, err, c.code)
		})
	}
	if rounds, err := w.members[0].shelf.Rounds(); err != nil || len(rounds) != 0 {
		t.Errorf("refused heads left something: %v, %v", rounds, err)
	}
}

// TestAnEndedRoundTakesNoMore: a device that comes back after its round is told so, whether the log took its contribution
// or not; an unknown round may be one that this member has yet to hear of.
func TestAnEndedRoundTakesNoMore(t *testing.T) {
	w := newWorld(t, 4, 1, 100)
	taken, late := w.device(), w.device()
	w.contribute(taken)
	w.over, w.verdict = true, codeClosed
	for name, d := range map[string]*device{"taken": taken, "late": late} {
		_, err := w.members[0].ingress.Upload(t.Context(), d.upload())
		if wantCode(t, err, codeClosed); strings.Contains(err.Error(), "certified") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.verdict = "round_not_open"
	_, err := w.members[0].ingress.Upload(t.Context(), late.upload())
	wantCode(t, err, CodeUnknownRound)
}

// TestHeadIsKeptAsItIsNamed: fields that a sender adds are not kept, the signed bytes are, and a head that was kept
// reads back as it was checked.
func TestHeadIsKeptAsItIsNamed(t *testing.T) {
	w := newWorld(t, 4, 1, 100)
	d := w.device()
	plain, _, err := Check(w, d.open())
	must(t, err)
	open := d.open()
	unknown := protowire.AppendString(protowire.AppendTag(nil, 77, protowire.BytesType), "more")
	open.ProtoReflect().SetUnknown(unknown)
	open.Header.ProtoReflect().SetUnknown(unknown)
	open.Offset = 5
	more, _, err := Check(w, open)
	must(t, err)
	if !bytes.Equal(plain.head, more.head) {
		t.Error("a head holds what its sender added")
	}
	shelved := plain.shelved(7)
	back, err := ParseHead(d.hash(), shelved)
	must(t, err)
	again, _, err := Check(w, back.Open(0))
	must(t, err)
	if again.Hash != d.hash() || !bytes.Equal(again.head, plain.head) || !bytes.Equal(again.body, d.header.Bytes()) || back.yCRC != 7 {
		t.Error("a head that was kept is another")
	}
	if back.Size() != uint64(len(d.y)+len(d.boxes)*len(d.boxes[0])) {
		t.Errorf("%d bytes", back.Size())
	}
	if _, err := ParseHead(label.Hash{1}, shelved); err == nil {
		t.Error("a head under another name")
	}
	// No byte of a head leaves this member once it has rotted: neither of the signature, which no hash covers.
	for i := range shelved {
		shelved[i] ^= 0x10
		if _, err := ParseHead(d.hash(), shelved); err == nil {
			t.Fatalf("byte %d of a head may rot", i)
		}
		shelved[i] ^= 0x10
	}
	for n := range shelved {
		if _, err := ParseHead(d.hash(), shelved[:n]); err == nil {
			t.Fatalf("a head cut to %d bytes", n)
		}
	}
}

// FuzzCheck: whatever a device sends as its head is refused by a word or names what it holds.
func FuzzCheck(f *testing.F) {
	w := newWorld(f, 4, 1, 100)
	d := w.device()
	whole, err := proto.Marshal(d.open())
	must(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	f.Add([]byte{0x12, 0x02, 0x0a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		var open coordpb.UploadOpen
		if proto.Unmarshal(b, &open) != nil {
			return
		}
		c, _, err := Check(w, &open)
		if err != nil {
			if _, ok := err.(*Refusal); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		// Only the one enrolled device's own words pass, whatever they are wrapped in. Boxes are sealed with other
		// randomness in every process, so its header is not always the one above.
		if c.Header.Device != d.id || c.Header.Round != w.round.ID {
			t.Fatal("somebody else's head passes")
		}
		if _, err := ParseHead(c.Hash, c.shelved(0)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParseHead: whatever lies on the shelf is refused, or is the head whose name it has.
func FuzzParseHead(f *testing.F) {
	w := newWorld(f, 4, 1, 100)
	whole := w.checked(w.device()).shelved(7)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte{})
	f.Add(make([]byte, headTrailer))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := label.Hash{1}
		var open coordpb.UploadOpen
		if at := len(b) - headTrailer; at >= 0 && proto.Unmarshal(b[:at], &open) == nil {
			name = statement.HashHeader(open.GetHeader().GetBody())
			b = binary.LittleEndian.AppendUint32(b[:at+crc32.Size:at+crc32.Size], crc32.Checksum(b[:at+crc32.Size], castagnoli))
		}
		if c, err := ParseHead(name, b); err == nil && (c.Hash != name || c.Header.Hash() != name) {
			t.Fatal("a head of another name")
		}
	})
}

// FuzzChunks: whatever chunks arrive, what is held is the contribution.
func FuzzChunks(f *testing.F) {
	w := newWorld(f, 1, 0, 100)
	f.Add([]byte{0, 200, 200, 200, 144, 1})
	f.Add([]byte{0, 255, 3, 9})
	f.Fuzz(func(t *testing.T, plan []byte) {
		w.t = t
		d := w.device()
		m := w.members[0]
		var chunks []*coordpb.Chunk
		for ; len(plan) >= 3; plan = plan[3:] { // from, length, flaw
			from := int(plan[0]) * 2
			to := min(from+int(plan[1])*2, len(d.y))
			c := chunkOf(d.y, min(from, to), to)
			switch plan[2] % 5 {
			case 1:
				c.Offset += uint64(plan[2])
			case 2:
				c.Crc32C++
			}
			chunks = append(chunks, c)
		}
		err := m.shelf.Receive(t.Context(), w.checked(d), feed(chunks...))
		if (err == nil) != m.shelf.Has(w.round.ID, d.hash()) {
			t.Fatalf("held: %v, error %v", m.shelf.Has(w.round.ID, d.hash()), err)
		}
		if err == nil {
			wantHeld(t, m.shelf, d)
		}
		must(t, m.shelf.RemoveRound(w.round.ID))
	})
}
