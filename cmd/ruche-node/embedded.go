package main

import (
	"io/fs"

	"github.com/ruche-federation/ruche/testdata/models/tiny"
)

// embedded is the base model that this program carries.
func embedded() fs.FS { return tiny.Files }
