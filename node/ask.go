package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/node/llm"
)

// AskOptions shape an answer.
type AskOptions struct {
	Tokens      int     // the most of an answer; 0: what is left of the model's context, at most 256
	Temperature float64 // 0: always the most likely token
	TopP        float64
	Seed        uint64
}

const answerTokens = 256

// Ask streams the base's continuation of text, with the commons where the device has one, to w, token by token. It never
// cuts the text: one that does not fit the model's context is refused.
func Ask(ctx context.Context, dir, text string, w io.Writer, o AskOptions) error {
	h, err := OpenHome(dir)
	if err != nil {
		return err
	}
	l, err := h.Language()
	if err != nil {
		return err
	}
	a, err := h.commons(l.Model)
	if err != nil {
		return err
	}
	prompt := l.Tokenizer.Encode(text)
	if bos := l.Tokenizer.BOS(); bos >= 0 {
		prompt = append([]int32{bos}, prompt...)
	}
	if len(prompt) == 0 {
		return errors.New("nothing was asked")
	}
	room := l.Model.Context - len(prompt)
	if room < 1 {
		return fmt.Errorf("the text has %d tokens, the model's context %d", len(prompt), l.Model.Context)
	}
	most := o.Tokens
	if most <= 0 {
		most = answerTokens
	}
	session, err := l.Model.NewSession(a, 1, len(prompt)+min(most, room))
	if err != nil {
		return err
	}
	out := l.Tokenizer.Stream(false)
	pick := &llm.Sampler{Temperature: o.Temperature, TopP: o.TopP, Rand: rand.New(rand.NewPCG(o.Seed, 0))}
	var writing error
	err = llm.Generate(ctx, session, pick, prompt, min(most, room), func(id int32) bool {
		if id == l.Tokenizer.EOS() || id == l.Tokenizer.BOS() {
			return false
		}
		_, writing = io.WriteString(w, out.Next(id))
		return writing == nil
	})
	if err == nil && writing == nil {
		_, writing = io.WriteString(w, out.Flush())
	}
	return errors.Join(err, writing)
}

// commons reads the adapter that the device adopted last; nil where there is none yet.
func (h *Home) commons(m *llm.Model) (*llm.Adapter, error) {
	dir := filepath.Join(h.Dir, filepath.FromSlash(peftFolder))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return llm.LoadPEFT(dir, m)
}
