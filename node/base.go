package node

import (
	"fmt"

	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/llm/tokenizer"
)

// Language is a base model and its tokenizer. Both are read-only and may be shared.
type Language struct {
	Model     *llm.Model
	Tokenizer *tokenizer.Tokenizer
	Source    llm.Source
}

// LoadLanguage reads a base model from a path; tokenizer names its tokenizer where the model brings none.
func LoadLanguage(path, tokenizer string) (*Language, error) {
	m, tok, source, err := llm.Load(path, llm.LoadOptions{Tokenizer: tokenizer})
	if err != nil {
		return nil, fmt.Errorf("base model: %w", err)
	}
	return &Language{m, tok, source}, nil
}

// BaseError says that a device's base model is not the one it was initialised with.
type BaseError struct{ Path, Got, Want string }

func (e *BaseError) Error() string {
	return fmt.Sprintf("base model %s has changed: it is %s, the device was made with %s", e.Path, e.Got, e.Want)
}

// Language loads the device's base and checks that it is still the same.
func (h *Home) Language() (*Language, error) {
	l, err := LoadLanguage(h.BasePath(), h.TokenizerPath())
	if err != nil {
		return nil, err
	}
	if l.Source.SHA256 != h.Info.Base.SHA256 {
		return nil, &BaseError{h.BasePath(), l.Source.SHA256, h.Info.Base.SHA256}
	}
	return l, nil
}

// inspectBase reads a base once, to know its hash and that it can be used.
func inspectBase(path, tokenizer string) (llm.Source, error) {
	l, err := LoadLanguage(path, tokenizer)
	if err != nil {
		return llm.Source{}, err
	}
	return l.Source, nil
}
