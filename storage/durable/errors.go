package durable

import "fmt"

// BrokenError says that a write failed and that nobody knows what the disk holds of it. Whoever returns it writes nothing
// more: what is at Path has to be opened again, by the next process most often, which reads what is there.
type BrokenError struct {
	Path string
	Err  error
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("%s: a write failed, open it again: %v", e.Path, e.Err)
}

// Unwrap gives the failure of the write.
func (e *BrokenError) Unwrap() error { return e.Err }
