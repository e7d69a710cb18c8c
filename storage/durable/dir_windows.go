package durable

import "os"

// syncDir only checks that the folder is there: Windows offers no way to flush one, NTFS journals its entries.
func syncDir(dir string) error {
	_, err := os.Stat(dir)
	return err
}
