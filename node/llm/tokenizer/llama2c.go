package tokenizer

import (
	"encoding/binary"
	"fmt"
	"math"
)

// LoadLlama2c reads llama2.c's tokenizer file (tok512.bin, tokenizer.bin) of a vocabulary of the given size: for each
// id a score and its text, ids 0 to 2 being unknown, BOS and EOS (run.c, build_tokenizer). The size is not in the
// file; the model's header has it.
func LoadLlama2c(path string, vocab int) (*Tokenizer, error) {
	raw, err := readFile(path)
	if err != nil {
		return nil, err
	}
	t, err := parseLlama2c(raw, vocab)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", path, err)
	}
	return t, nil
}

func parseLlama2c(raw []byte, vocab int) (*Tokenizer, error) {
	if vocab < 3 || vocab > maxVocab {
		return nil, fmt.Errorf("vocabulary of %d, want 3 to %d", vocab, maxVocab)
	}
	t := &Tokenizer{
		scheme: sentencePiece, space: " ", prefix: prefixAlways, strip: true, addBOS: true,
		byteFallback: true, fuseUnknown: true, unknown: 0, bos: 1, eos: 2,
		pieces: make([]piece, vocab), scores: make([]float32, vocab),
	}
	if len(raw) < 4 {
		return nil, fmt.Errorf("file has %d bytes, less than the 4 of its header", len(raw))
	}
	longest := binary.LittleEndian.Uint32(raw)
	if longest > maxPiece {
		return nil, fmt.Errorf("longest token has %d bytes, limit %d", longest, maxPiece)
	}
	raw = raw[4:]
	for id := range t.pieces {
		if len(raw) < 8 {
			return nil, fmt.Errorf("file ends at token %d of %d", id, vocab)
		}
		t.scores[id] = math.Float32frombits(binary.LittleEndian.Uint32(raw))
		n := binary.LittleEndian.Uint32(raw[4:])
		raw = raw[8:]
		if n > longest || uint64(n) > uint64(len(raw)) {
			return nil, fmt.Errorf("token %d has %d bytes, the longest may have %d and the file %d more", id, n, longest, len(raw))
		}
		p := piece{text: string(raw[:n]), kind: ordinary}
		raw = raw[n:]
		if id < 3 {
			p.kind = control
		} else if _, ok := byteName(p.text); ok {
			p.kind = single
		}
		t.pieces[id] = p
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("%d bytes follow token %d, the last", len(raw), vocab-1)
	}
	// The exporter writes BOS and EOS with line ends around them, which no other file has.
	t.pieces[0].text, t.pieces[1].text, t.pieces[2].text = "<unk>", "<s>", "</s>"
	if err := checkScores(t.scores); err != nil {
		return nil, err
	}
	return vocabulary{t: t}.finish()
}
