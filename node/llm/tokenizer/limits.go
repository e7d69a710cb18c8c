package tokenizer

const (
	// maxFile bounds the files that are read whole. The largest published tokenizer.json have some 35 MB.
	maxFile = 1 << 26

	// maxVocab bounds the ids. The largest published vocabularies have some 260,000.
	maxVocab = 1 << 20

	// maxMerges bounds the merges; byte-level vocabularies have fewer than ids, converted SentencePiece ones several times as many.
	maxMerges = 1 << 22

	// maxPiece bounds one token in bytes; chosen arbitrarily. The longest published ones are runs of some hundred spaces.
	maxPiece = 4096

	// maxWord bounds what is merged at once, and with it the working memory: some 60 bytes for each byte of a word.
	maxWord = 1 << 20

	// maxNesting bounds sequences within sequences in tokenizer.json; published files have one.
	maxNesting = 4
)
