package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Byte-level vocabularies spell each byte as a visible character (GPT-2, encoder.py: bytes_to_unicode): printable
// Latin-1 stands for itself, the other 68 bytes follow from U+0100 on.

// symbolOf returns the character that spells b.
func symbolOf(b byte) rune {
	switch {
	case b <= 0x20:
		return 0x100 + rune(b)
	case b >= 0x7f && b <= 0xa0:
		return 0x121 + rune(b-0x7f)
	case b == 0xad:
		return 0x143
	}
	return rune(b)
}

// byteOf returns the byte that r spells.
func byteOf(r rune) (byte, bool) {
	switch {
	case r >= 0x100 && r <= 0x120:
		return byte(r - 0x100), true
	case r >= 0x121 && r <= 0x142:
		return byte(r-0x121) + 0x7f, true
	case r == 0x143:
		return 0xad, true
	case r > 0xff || r <= 0x20 || r >= 0x7f && r <= 0xa0 || r == 0xad:
		return 0, false
	}
	return byte(r), true
}

// Symbols spells the bytes of text in the alphabet of byte-level vocabularies.
func Symbols(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteRune(symbolOf(text[i]))
	}
	return b.String()
}

// spelled returns the bytes that symbols spell, or false where one is not of the alphabet.
func spelled(symbols string) (string, bool) {
	out := make([]byte, 0, len(symbols))
	for i := 0; i < len(symbols); {
		r, n := utf8.DecodeRuneInString(symbols[i:])
		b, ok := byteOf(r)
		if !ok {
			return "", false
		}
		out = append(out, b)
		i += n
	}
	return string(out), true
}
