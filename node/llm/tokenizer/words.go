package tokenizer

import (
	"iter"
	"unicode"
	"unicode/utf8"
)

// pattern is how a byte-level vocabulary cuts text into words before it merges. Each is the hand-coded form of a
// regular expression; patternsByRegex knows those by their exact text.
type pattern string

const (
	patternGPT2   pattern = "gpt2"
	patternLlama3 pattern = "llama3" // as cl100k, digits by threes
	patternQwen2  pattern = "qwen2"  // as Llama 3, digits one by one
	patternSmolLM pattern = "smollm" // digits one by one, GPT-2's pattern between them
)

const (
	regexGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	regexLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	regexQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// Words yields the words of text as GPT-2's pattern cuts them: what a vocabulary for NewByteLevel is trained on.
func Words(text string) iter.Seq[string] { return patternGPT2.words(text) }

// words yields the words of text. Together they are the text; each is at least one character.
func (p pattern) words(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch p {
		case patternSmolLM:
			for start := 0; start < len(text); {
				// A digit stands alone; GPT-2's pattern sees each stretch between digits as a text of its own.
				end := start
				for end < len(text) {
					c, n := classAt(text, end)
					if c == number {
						break
					}
					end += n
				}
				if end == start {
					_, n := classAt(text, start)
					end = start + n
				}
				if !each(text[start:end], endGPT2, yield) {
					return
				}
				start = end
			}
		case patternLlama3:
			each(text, func(s string) int { return endCL100K(s, 3) }, yield)
		case patternQwen2:
			each(text, func(s string) int { return endCL100K(s, 1) }, yield)
		default:
			each(text, endGPT2, yield)
		}
	}
}

func each(text string, end func(string) int, yield func(string) bool) bool {
	for len(text) > 0 {
		n := end(text)
		if !yield(text[:n]) {
			return false
		}
		text = text[n:]
	}
	return true
}

// class is what the patterns ask of a character. No character is in two of them.
type class uint8

const (
	other  class = iota // [^\s\p{L}\p{N}]
	letter              // \p{L}
	number              // \p{N}
	space               // \s
)

// classAt returns the class and the length of the character at i. A byte that is no UTF-8 is a character of its own.
func classAt(s string, i int) (class, int) {
	if c := s[i]; c < utf8.RuneSelf {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			return letter, 1
		case '0' <= c && c <= '9':
			return number, 1
		case c == ' ' || '\t' <= c && c <= '\r':
			return space, 1
		}
		return other, 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case unicode.Is(unicode.L, r):
		return letter, n
	case unicode.Is(unicode.N, r):
		return number, n
	case unicode.Is(unicode.White_Space, r):
		return space, n
	}
	return other, n
}

// run returns the end of the longest run of class c from i, and how many characters it has.
func run(s string, i int, c class) (end, count int) {
	for i < len(s) {
		k, n := classAt(s, i)
		if k != c {
			break
		}
		i += n
		count++
	}
	return i, count
}

// endGPT2 returns the length of the first match of regexGPT2 in s, which is not empty.
func endGPT2(s string) int {
	if n := contraction(s, false); n > 0 {
		return n
	}
	// ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+`
	i := 0
	if s[0] == ' ' && len(s) > 1 {
		i = 1
	}
	if c, _ := classAt(s, i); c != space {
		end, _ := run(s, i, c)
		return end
	}
	return endSpace(s)
}

// endSpace returns the length of the first match of `\s+(?!\S)|\s+` in s, which begins with \s: all of the run at the
// end of the text, else all but its last character, else the only one.
func endSpace(s string) int {
	end, count := run(s, 0, space)
	if end == len(s) || count == 1 {
		return end
	}
	_, last := utf8.DecodeLastRuneInString(s[:end])
	return end - last
}

// endCL100K returns the length of the first match of regexLlama3 (digits 3) or regexQwen2 (digits 1) in s, which is
// not empty.
func endCL100K(s string, digits int) int {
	if n := contraction(s, true); n > 0 {
		return n
	}
	first, width := classAt(s, 0)
	// `[^\r\n\p{L}\p{N}]?\p{L}+`
	switch {
	case first == letter:
		end, _ := run(s, 0, letter)
		return end
	case first != number && s[0] != '\r' && s[0] != '\n':
		if end, count := run(s, width, letter); count > 0 {
			return end
		}
	}
	// `\p{N}{1,3}` or `\p{N}`
	if first == number {
		end := 0
		for range digits {
			if end == len(s) {
				break
			}
			c, n := classAt(s, end)
			if c != number {
				break
			}
			end += n
		}
		return end
	}
	// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
	i := 0
	if s[0] == ' ' {
		i = 1
	}
	if end, count := run(s, i, other); count > 0 {
		for end < len(s) && (s[end] == '\r' || s[end] == '\n') {
			end++
		}
		return end
	}
	// `\s*[\r\n]+`: up to the last line end in the run of spaces
	end, _ := run(s, 0, space)
	for i := end; i > 0; i-- {
		if s[i-1] == '\r' || s[i-1] == '\n' {
			return i
		}
	}
	return endSpace(s)
}

// contraction returns the length of `'s|'t|'re|'ve|'m|'ll|'d` at the start of s, or 0. Folding case includes U+017F, the long s.
func contraction(s string, fold bool) int {
	if s[0] != '\'' || len(s) < 2 {
		return 0
	}
	lower := func(i int) byte {
		if i >= len(s) {
			return 0
		}
		if c := s[i]; fold && 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return s[i]
	}
	switch lower(1) {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if lower(2) == 'e' {
			return 3
		}
	case 'l':
		if lower(2) == 'l' {
			return 3
		}
	}
	if fold && len(s) >= 3 && s[1:3] == "ſ" {
		return 3
	}
	return 0
}
