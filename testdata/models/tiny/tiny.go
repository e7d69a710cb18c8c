// Package tiny carries Files, the base model that cmd/internal/pretrain makes: a LLaMA of 0.23 million parameters with its
// tokenizer, in Hugging Face's layout. It has read invented prose in French and English (package prose there) and none of what the
// people of testdata/users say. SHA256SUMS records its files.
package tiny

import "embed"

//go:embed config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json
var Files embed.FS
