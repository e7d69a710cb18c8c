package gguf

import (
	"fmt"
	"math"
	"slices"
)

// Keys lists the keys in the order of the file.
func (f *File) Keys() []string { return slices.Clone(f.keys) }

// Has says whether the key is in the file.
func (f *File) Has(key string) bool { _, ok := f.values[key]; return ok }

// Value returns a key's value as its Go type: uint8 to float64, bool, string, or a slice of one of them. Slices
// belong to the file and must not be changed.
func (f *File) Value(key string) (any, bool) { v, ok := f.values[key]; return v, ok }

// Text returns a string.
func (f *File) Text(key string) (string, error) { return get[string](f, key, "a string") }

// Bool returns a bool.
func (f *File) Bool(key string) (bool, error) { return get[bool](f, key, "a bool") }

// BoolOr returns a bool, or otherwise where the key is absent.
func (f *File) BoolOr(key string, otherwise bool) (bool, error) {
	if !f.Has(key) {
		return otherwise, nil
	}
	return f.Bool(key)
}

// TextOr returns a string, or otherwise where the key is absent.
func (f *File) TextOr(key, otherwise string) (string, error) {
	if !f.Has(key) {
		return otherwise, nil
	}
	return f.Text(key)
}

// Uint returns an integer of any width that is not negative.
func (f *File) Uint(key string) (uint64, error) {
	v, ok := f.values[key]
	if !ok {
		return 0, f.missing(key)
	}
	switch n := v.(type) {
	case uint8:
		return uint64(n), nil
	case uint16:
		return uint64(n), nil
	case uint32:
		return uint64(n), nil
	case uint64:
		return n, nil
	}
	if n, ok := signed(v); ok && n >= 0 {
		return uint64(n), nil
	}
	return 0, f.mistyped(key, v, "an integer that is not negative")
}

// UintOr returns what Uint does, or otherwise where the key is absent.
func (f *File) UintOr(key string, otherwise uint64) (uint64, error) {
	if !f.Has(key) {
		return otherwise, nil
	}
	return f.Uint(key)
}

func signed(v any) (int64, bool) {
	switch n := v.(type) {
	case int8:
		return int64(n), true
	case int16:
		return int64(n), true
	case int32:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

// Float returns a float of either width.
func (f *File) Float(key string) (float64, error) {
	v, ok := f.values[key]
	if !ok {
		return 0, f.missing(key)
	}
	switch n := v.(type) {
	case float32:
		return float64(n), nil
	case float64:
		return n, nil
	}
	return 0, f.mistyped(key, v, "a float")
}

// FloatOr returns what Float does, or otherwise where the key is absent.
func (f *File) FloatOr(key string, otherwise float64) (float64, error) {
	if !f.Has(key) {
		return otherwise, nil
	}
	return f.Float(key)
}

// Token returns the id of a token, or false where the key is absent or says that there is none (NoToken).
func (f *File) Token(key string) (int32, bool, error) {
	if !f.Has(key) {
		return 0, false, nil
	}
	if v := f.values[key]; v == int32(-1) || v == int64(-1) {
		return 0, false, nil
	}
	n, err := f.Uint(key)
	if err != nil || n == NoToken {
		return 0, false, err
	}
	if n > math.MaxInt32 {
		return 0, false, fmt.Errorf("gguf: %s: %s is %d, beyond any token", f.name, quote(key), n)
	}
	return int32(n), true, nil
}

// Strings returns an array of strings. It belongs to the file.
func (f *File) Strings(key string) ([]string, error) {
	return get[[]string](f, key, "an array of strings")
}

// Float32s returns an array of float32. It belongs to the file.
func (f *File) Float32s(key string) ([]float32, error) {
	return get[[]float32](f, key, "an array of float32")
}

// Int32s returns an array of int32, also where a writer chose uint32 for values that fit.
func (f *File) Int32s(key string) ([]int32, error) {
	if u, ok := f.values[key].([]uint32); ok {
		out := make([]int32, len(u))
		for i, n := range u {
			if n > math.MaxInt32 {
				return nil, fmt.Errorf("gguf: %s: %s holds %d, beyond int32", f.name, quote(key), n)
			}
			out[i] = int32(n)
		}
		return out, nil
	}
	return get[[]int32](f, key, "an array of int32")
}

func get[T any](f *File, key, want string) (T, error) {
	v, ok := f.values[key]
	if !ok {
		var none T
		return none, f.missing(key)
	}
	t, ok := v.(T)
	if !ok {
		return t, f.mistyped(key, v, want)
	}
	return t, nil
}

func (f *File) missing(key string) error {
	return fmt.Errorf("gguf: %s: %s: %w", f.name, quote(key), ErrMissing)
}

func (f *File) mistyped(key string, v any, want string) error {
	return fmt.Errorf("gguf: %s: %s is a %T, want %s", f.name, quote(key), v, want)
}
