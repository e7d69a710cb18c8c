package main

import "io/fs"

// embedded is the base model that this program carries; nil: none.
func embedded() fs.FS { return nil }
