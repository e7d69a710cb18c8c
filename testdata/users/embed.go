package users

import (
	"bytes"
	_ "embed"
	"io"
)

//go:embed users.jsonl
var file []byte

// Open reads users.jsonl, which programs that show Ruche carry with them.
func Open() io.Reader { return bytes.NewReader(file) }
