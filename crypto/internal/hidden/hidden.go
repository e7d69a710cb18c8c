// Package hidden keeps a secret Value out of fmt's reach.
//
// Methods such as Format protect a value only where fmt may call them: not in an unexported field of another type.
// There fmt walks the memory by reflection, and under a verb that does not fit, such as %s, it follows pointers as
// well. It does not look into a function.
package hidden

// Value gives back the one pointer it was made of; nil where it was never made.
type Value[T any] func() *T

// Of hides v.
func Of[T any](v *T) Value[T] { return func() *T { return v } }

// IsZero reports whether nothing was hidden.
func (v Value[T]) IsZero() bool { return v == nil }
