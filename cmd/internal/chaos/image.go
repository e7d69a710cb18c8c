package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/cmd/internal/consortium"
)

// image is a file system of its own in a file, mounted: a member's disk, whose power can be cut (coordinator.md 2.4).
type image struct {
	file  string // what the disk holds
	mount string // where it shows
}

// newImage makes and mounts a disk. Nothing is written to it but by whoever syncs, and by the kernel only long after:
// commit=300 keeps the file system's own journal from doing our syncs for us.
func newImage(ctx context.Context, dir, name string) (*image, error) {
	d := &image{file: filepath.Join(dir, name+".img"), mount: filepath.Join(dir, name)}
	f, err := os.Create(d.file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(imageBytes), f.Close()); err != nil {
		return nil, err
	}
	if _, err := consortium.Command(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.file); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.mount, 0o700); err != nil {
		return nil, err
	}
	return d, d.attach(ctx)
}

func (d *image) attach(ctx context.Context) error {
	_, err := consortium.Command(ctx, "mount", "-o", "loop,commit=300", d.file, d.mount)
	return err
}

// detach unmounts the disk. What was not synced reaches the file now.
func (d *image) detach(ctx context.Context) error {
	_, err := consortium.Command(ctx, "umount", d.mount)
	return err
}

// errTorn says that the disk changed while it was copied.
var errTorn = errors.New("the image changes while it is copied")

// copyAs copies what the disk holds now, without telling its file system: what waits in memory is not in the copy. The
// copy is compared with the disk afterwards; one that was torn is made again.
func (d *image) copyAs(path string) error {
	err := errTorn
	for try := 0; errors.Is(err, errTorn) && try < copyTries; try++ {
		err = copySparse(d.file, path)
	}
	return err
}

// The whence of a seek to the next data, and to the next hole.
const (
	seekData = 3
	seekHole = 4
)

func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	extents, err := extentsOf(src, info.Size())
	if err != nil {
		return err
	}
	for _, e := range extents {
		if _, err := io.Copy(io.NewOffsetWriter(dst, e[0]), io.NewSectionReader(src, e[0], e[1]-e[0])); err != nil {
			return err
		}
	}
	return unchanged(src, dst, extents, info.Size())
}

// unchanged compares a file with its copy: its data lies where it lay, and is the same.
func unchanged(src, dst *os.File, extents [][2]int64, size int64) error {
	again, err := extentsOf(src, size)
	if err != nil {
		return err
	}
	if fmt.Sprint(again) != fmt.Sprint(extents) {
		return errTorn
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for _, e := range extents {
		for at := e[0]; at < e[1]; at += int64(len(a)) {
			n := int(min(int64(len(a)), e[1]-at))
			if _, err := src.ReadAt(a[:n], at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if _, err := dst.ReadAt(b[:n], at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if !bytes.Equal(a[:n], b[:n]) {
				return errTorn
			}
		}
	}
	return nil
}

// extentsOf lists where a file has data.
func extentsOf(f *os.File, size int64) (out [][2]int64, err error) {
	for at := int64(0); at < size; {
		begin, err := f.Seek(at, seekData)
		if err != nil {
			return out, nil // no data from here on
		}
		end, err := f.Seek(begin, seekHole)
		if err != nil {
			return nil, err
		}
		out = append(out, [2]int64{begin, end})
		at = end
	}
	return out, nil
}
