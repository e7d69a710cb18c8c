package epoch

const (
	// recordMax bounds a record of the vote file; the largest kind has 66 bytes.
	recordMax = 128

	// epochsMax bounds the folders Load opens: at most a few epochs are alive, a day each; chosen arbitrarily.
	epochsMax = 1024
)
