// Package ruche holds no code: the repository's rules live here as tests (style_test.go). Start reading in docs/ARCHITECTURE.md.
package ruche
