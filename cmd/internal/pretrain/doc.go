// Command pretrain makes the tiny base model of testdata/models/tiny: it writes prose (package prose), trains a vocabulary on it
// (package bpe) and a small LLaMA on the result, with the engine's full gradients.
//
//	go run ./cmd/internal/pretrain -out testdata/models/tiny   # make it
//	go run ./cmd/internal/pretrain -check                      # make it again elsewhere and compare with the recorded hashes
//
// The text, the order of the windows, the first weights and the engine's sums all have one order, whatever the number of threads, so
// the same source gives the same bytes on linux/amd64. SHA256SUMS in the model's folder records them.
//
// # Limitations
//
// Other architectures, and GOAMD64=v3, may fuse a multiply and an add: a model made there is as good, with another hash. A change of
// the engine's arithmetic changes the hash too; then the model is made again.
package main
