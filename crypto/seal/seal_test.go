package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
)

func TestBoxOpensOnlyUnderItsOwnInfoAndAad(t *testing.T) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	info, aad, pt := []byte("round and epoch"), []byte("header"), []byte("two seeds")
	box, err := Seal(k.Public(), info, aad, pt)
	if err != nil {
		t.Fatal(err)
	}
	if len(box) != Overhead+len(pt) || len(k.Public()) != PublicSize {
		t.Fatalf("box has %d bytes, key %d", len(box), len(k.Public()))
	}
	got, err := k.Open(box, info, aad)
	if err != nil || !bytes.Equal(got, pt) {
		t.Fatalf("open: %q, %v", got, err)
	}
	garbled := append([]byte(nil), box...)
	garbled[EncSize] ^= 1
	garbledEnc := append([]byte(nil), box...)
	garbledEnc[3] ^= 1
	for name, try := range map[string]func() ([]byte, error){
		"another key":        func() ([]byte, error) { return other.Open(box, info, aad) },
		"another info":       func() ([]byte, error) { return k.Open(box, []byte("another"), aad) },
		"another aad":        func() ([]byte, error) { return k.Open(box, info, []byte("another")) },
		"no aad":             func() ([]byte, error) { return k.Open(box, info, nil) },
		"a flipped bit":      func() ([]byte, error) { return k.Open(garbled, info, aad) },
		"a flipped enc bit":  func() ([]byte, error) { return k.Open(garbledEnc, info, aad) },
		"a lost byte":        func() ([]byte, error) { return k.Open(box[:len(box)-1], info, aad) },
		"a trailing byte":    func() ([]byte, error) { return k.Open(append(append([]byte(nil), box...), 0), info, aad) },
		"an empty box":       func() ([]byte, error) { return k.Open(nil, info, aad) },
		"nothing but an enc": func() ([]byte, error) { return k.Open(box[:EncSize], info, aad) },
	} {
		if _, err := try(); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: error %v, want ErrOpen", name, err)
		}
	}
}

func TestKeysAreMadeFromTheirSeedAlone(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, PrivateSize)
	k, err := GenerateKey(bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	if !k.Equal(again) || !bytes.Equal(k.Public(), again.Public()) || !bytes.Equal(k.Bytes(), seed) {
		t.Fatal("one seed gave two keys")
	}
	if _, err := GenerateKey(bytes.NewReader(seed[:31])); err == nil {
		t.Fatal("a key from 31 bytes of randomness")
	}
	if _, err := ParsePrivateKey(seed[:31]); err == nil {
		t.Fatal("a key of 31 bytes")
	}
	k.Erase()
	if !bytes.Equal(k.Bytes(), make([]byte, PrivateSize)) {
		t.Fatal("erased key still holds its seed")
	}
	if _, err := k.Open(make([]byte, Overhead), nil, nil); !errors.Is(err, ErrErased) {
		t.Fatalf("erased key: %v", err)
	}
}
