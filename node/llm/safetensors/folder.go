package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	indexName  = "model.safetensors.index.json"
	singleName = "model.safetensors"
)

// Folder is a model's weights in a folder: one file, or several that an index names. It reads like a File.
type Folder struct {
	dir   string
	files []*File // open shards, in the order of their names
	where map[string]*File
	names []string // sorted
}

// OpenIndexed opens the weights in dir: the shards named by model.safetensors.index.json or, where there is no such
// file, model.safetensors. Index and shards must name the same tensors, each once.
func OpenIndexed(dir string) (*Folder, error) {
	f := &Folder{dir: dir, where: map[string]*File{}}
	if err := f.open(); err != nil {
		f.Close()
		return nil, err
	}
	f.names = slices.Sorted(maps.Keys(f.where))
	return f, nil
}

func (f *Folder) open() error {
	raw, err := readBounded(filepath.Join(f.dir, indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return f.add(singleName, nil)
	}
	if err != nil {
		return err
	}
	weights, err := parseIndex(raw)
	if err != nil {
		return fmt.Errorf("safetensors: %s: %w", filepath.Join(f.dir, indexName), err)
	}
	shards := map[string][]string{}
	for tensor, shard := range weights {
		shards[shard] = append(shards[shard], tensor)
	}
	if len(shards) > maxShards {
		return fmt.Errorf("safetensors: %s names %d files, limit %d", filepath.Join(f.dir, indexName), len(shards), maxShards)
	}
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		if err := f.add(shard, shards[shard]); err != nil {
			return err
		}
	}
	return nil
}

// add opens one file. want lists the tensors the index expects there, nil for whatever is in it.
func (f *Folder) add(name string, want []string) error {
	file, err := Open(filepath.Join(f.dir, name))
	if err != nil {
		return err
	}
	f.files = append(f.files, file)
	for _, tensor := range want {
		if _, ok := file.tensors[tensor]; !ok {
			return fmt.Errorf("safetensors: %s: no tensor %s, which the index says is here", file.name, quoteName(tensor))
		}
	}
	if want != nil {
		named := make(map[string]bool, len(want))
		for _, tensor := range want {
			named[tensor] = true
		}
		for _, tensor := range file.names {
			if !named[tensor] {
				return fmt.Errorf("safetensors: %s: tensor %s is not in the index, or in another file there", file.name, quoteName(tensor))
			}
		}
	}
	for _, tensor := range file.names {
		f.where[tensor] = file
	}
	return nil
}

// parseIndex reads weight_map: tensor name to the file it lies in, a plain name beside the index.
func parseIndex(raw []byte) (map[string]string, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("index is not UTF-8")
	}
	h := &headerReader{dec: json.NewDecoder(bytes.NewReader(raw))}
	h.dec.UseNumber()
	weights := map[string]string{}
	err := h.object("index", 16, func(field string) error {
		if field != "weight_map" {
			var skipped json.RawMessage
			return h.dec.Decode(&skipped)
		}
		return h.object("weight_map", maxTensors, func(tensor string) error {
			shard, err := h.text("weight_map " + quoteName(tensor))
			if err != nil {
				return err
			}
			if shard != filepath.Base(shard) || !filepath.IsLocal(shard) || strings.ContainsAny(shard, `/\`) || !strings.HasSuffix(shard, ".safetensors") {
				return fmt.Errorf("weight_map %s: %s is not the plain name of a .safetensors file", quoteName(tensor), quoteName(shard))
			}
			weights[tensor] = shard
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if rest := bytes.TrimSpace(raw[h.dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("index has %d bytes after its object", len(rest))
	}
	if len(weights) == 0 {
		return nil, errors.New("index has no weight_map, or an empty one")
	}
	return weights, nil
}

// readBounded reads a whole file of at most maxHeader bytes.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxHeader+1))
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if len(raw) > maxHeader {
		return nil, fmt.Errorf("safetensors: %s has more than %d bytes", path, maxHeader)
	}
	return raw, nil
}

// Close closes every file.
func (f *Folder) Close() error {
	var errs []error
	for _, file := range f.files {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

// Names lists the tensors of all files, sorted.
func (f *Folder) Names() []string { return slices.Clone(f.names) }

// Files lists the paths of the files, sorted.
func (f *Folder) Files() []string {
	out := make([]string, len(f.files))
	for i, file := range f.files {
		out[i] = file.name
	}
	return out
}

// Metadata is that of the first file.
func (f *Folder) Metadata() map[string]string { return f.files[0].Metadata() }

// Tensor describes the named tensor; its Offset counts in the file it lies in.
func (f *Folder) Tensor(name string) (Tensor, bool) {
	file, ok := f.where[name]
	if !ok {
		return Tensor{}, false
	}
	return file.Tensor(name)
}

// Float32 reads the named tensor as float32, row-major, with its shape.
func (f *Folder) Float32(name string) ([]float32, []int, error) {
	file, ok := f.where[name]
	if !ok {
		return nil, nil, fmt.Errorf("safetensors: %s: no tensor %s", f.dir, name)
	}
	return file.Float32(name)
}

// ReadFloat32 reads the named tensor into dst, which must have exactly its number of values.
func (f *Folder) ReadFloat32(name string, dst []float32) error {
	file, ok := f.where[name]
	if !ok {
		return fmt.Errorf("safetensors: %s: no tensor %s", f.dir, name)
	}
	return file.ReadFloat32(name, dst)
}
