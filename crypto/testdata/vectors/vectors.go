// Package vectors reads known answers kept as text: Read returns the records of a file.
//
// A record is a run of lines "key: value"; an empty line ends it; lines that begin with # are remarks.
package vectors

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// Record is one known answer.
type Record map[string]string

// Read reads a file of records.
func Read(path string) ([]Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []Record
	var now Record
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "":
			now = nil
		default:
			key, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("%s:%d: no colon", path, i+1)
			}
			if now == nil {
				now = Record{}
				out = append(out, now)
			}
			if _, twice := now[key]; twice {
				return nil, fmt.Errorf("%s:%d: %s stands twice", path, i+1, key)
			}
			now[key] = strings.TrimSpace(value)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no records", path)
	}
	return out, nil
}

// Bytes decodes a hexadecimal field. Where a vector file is malformed it panics: vectors are part of the program.
func (r Record) Bytes(key string) []byte {
	v, ok := r[key]
	if !ok {
		panic(fmt.Sprintf("vector has no field %s: %v", key, r["name"]))
	}
	b, err := hex.DecodeString(v)
	if err != nil {
		panic(fmt.Sprintf("vector %v: field %s: %v", r["name"], key, err))
	}
	return b
}
