//go:build !linux

package main

import "errors"

func unsynced([]string) error { return errors.ErrUnsupported }
