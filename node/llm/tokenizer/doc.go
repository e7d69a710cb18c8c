// Package tokenizer turns text into the ids a model reads and ids back into text. Its Tokenizer is read from
// tokenizer.json, from vocab.json with merges.txt, from a GGUF vocabulary or from llama2.c's tok.bin.
//
// Two schemes are built: byte-level BPE with the word patterns of GPT-2, Llama 3, Qwen2 and SmolLM, and SentencePiece
// BPE with byte fallback. Everything else (Unigram, WordPiece, an unknown pattern, an unknown normalizer) is refused
// by its name when the file is read: a model fed with nearly the right ids answers nearly sensibly, which is worse
// than an error. The patterns are coded by hand; no regular expression runs over text, so no text can make one slow.
// Merging takes O(n log n) in a word of n bytes.
//
// Text is text: Encode never yields a control token, whatever the text spells, because a journal or a stranger's
// message must not be able to end a turn or open one. EncodeSpecial does recognise them; it is for templates.
//
// # Assumptions
//
// Text is UTF-8. Bytes that are not are kept by byte-level vocabularies and by those with byte fallback.
//
// # Limitations
//
// Added tokens that are not special (Qwen2's <tool_call>) are treated like special ones: Encode reads them as text,
// where Hugging Face and llama.cpp do not. Composition (Qwen2's NFC) puts a grapheme joiner into runs of more than 30
// combining marks. A word of more than a MiB is encoded in pieces.
package tokenizer
