// Package bpe trains a byte-level vocabulary: Train merges the most frequent pair of neighbours until there are enough pieces
// (Sennrich et al. 2016, section 3.2; words are cut and spelled as in GPT-2).
//
// Ties go to the pair whose pieces have the smaller ids, the left one first, so the same texts give the same vocabulary everywhere.
package bpe
