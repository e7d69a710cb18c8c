package journal

const (
	// LineBytesMax bounds one line of an imported file. A record has to fit into one value of the vault; the longest
	// line of the public corpora that were looked at has 4 kB.
	LineBytesMax = 256 << 10

	// FileBytesMax bounds one imported file, which is held in memory until all of it is checked.
	FileBytesMax = 256 << 20

	// RecordsMax bounds a journal, chosen arbitrarily: a hundred messages a day for 27 years.
	RecordsMax = 1 << 20

	// UserBytesMax bounds a user's name.
	UserBytesMax = 256

	// usersMax bounds the names that an import counts.
	usersMax = 1 << 16

	// batchPart is how much of the vault's largest batch an import fills, so that its own head entry fits too.
	batchPart = 2
)
