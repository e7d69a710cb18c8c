package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ruche-federation/ruche/node/llm"
	"github.com/ruche-federation/ruche/node/llm/safetensors"
	"github.com/ruche-federation/ruche/node/llm/tokenizer"
)

// sums lists the hashes of the model's files, as sha256sum writes and checks them.
const sums = "SHA256SUMS"

// made are the files of a model, in the order of sums.
var made = []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

// write lays the model down as Hugging Face does.
func write(dir string, m *llm.Model, tok *tokenizer.Tokenizer) error {
	type object map[string]any
	for name, fields := range map[string]object{
		"config.json": {
			"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu", "torch_dtype": "float32",
			"hidden_size": m.Dim, "intermediate_size": m.Hidden, "num_hidden_layers": m.Layers, "num_attention_heads": m.Heads,
			"num_key_value_heads": m.KVHeads, "head_dim": m.HeadDim, "max_position_embeddings": m.Context, "vocab_size": m.Vocab,
			"rms_norm_eps": m.NormEps, "rope_theta": m.Rope.Theta, "tie_word_embeddings": m.Tied, "attention_bias": false, "mlp_bias": false,
			"bos_token_id": tok.BOS(), "eos_token_id": tok.EOS(),
		},
		"generation_config.json": {"bos_token_id": tok.BOS(), "eos_token_id": tok.EOS(), "do_sample": true, "temperature": 0.8, "top_p": 0.95},
	} {
		data, err := json.MarshalIndent(fields, "", "  ") // names come sorted
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if err := tok.WriteHF(dir); err != nil {
		return err
	}
	var tensors []safetensors.Values
	for _, p := range m.Params() {
		tensors = append(tensors, safetensors.Values{Name: p.Name, Shape: p.Shape, Data: p.Data})
	}
	path := filepath.Join(dir, "model.safetensors")
	if err := safetensors.WriteFile(path, tensors, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// sumUp is the text of sums for the files in dir.
func sumUp(dir string) ([]byte, error) {
	var b bytes.Buffer
	for _, name := range made {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), name)
	}
	return b.Bytes(), nil
}

// record writes sums beside the files.
func record(dir string) error {
	b, err := sumUp(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, sums), b, 0o644)
}

// errOther says that the files are not those that were recorded.
var errOther = errors.New("the files made differ from those recorded")

// compare holds the files in dir to recorded sums.
func compare(dir, recorded string) error {
	want, err := os.ReadFile(recorded)
	if err != nil {
		return err
	}
	got, err := sumUp(dir)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w\nmade:\n%srecorded in %s:\n%s", errOther, got, recorded, want)
	}
	return nil
}
