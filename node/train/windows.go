package train

import "github.com/ruche-federation/ruche/node/llm"

// Encoder is what Windows needs of a tokenizer.
type Encoder interface {
	Encode(text string) []int32
	BOS() int32
	EOS() int32
}

// Windows turns records into training windows: the stream BOS record BOS record …, cut into windows of at most window
// positions, each of which predicts the next token. Windows overlap by the one token that ends one and begins the next,
// so every token but the BOS of a record is scored exactly once. A tokenizer without BOS uses its EOS for it.
func Windows(tok Encoder, records []string, window int) []llm.Sequence {
	window = max(1, window)
	bos := tok.BOS()
	if bos < 0 {
		bos = tok.EOS()
	}
	var stream []int32
	var scored []bool // of the token at the same place: whether it is a target that counts
	for _, r := range records {
		if bos >= 0 {
			stream, scored = append(stream, bos), append(scored, false)
		}
		for _, id := range tok.Encode(r) {
			stream, scored = append(stream, id), append(scored, true)
		}
	}
	var out []llm.Sequence
	for at := 0; at+1 < len(stream); at += window {
		end := min(at+window, len(stream)-1)
		s := llm.Sequence{IDs: stream[at : end+1], Score: scored[at+1 : end+1]}
		for _, counts := range s.Score {
			if counts {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

// Tokens is how many tokens of the windows are scored.
func Tokens(windows []llm.Sequence) int {
	n := 0
	for _, w := range windows {
		for _, counts := range w.Score {
			if counts {
				n++
			}
		}
	}
	return n
}
