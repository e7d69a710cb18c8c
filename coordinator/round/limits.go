package round

// Bounds of the replicated state and of single entries.
const (
	CommandBytesMax = 512 << 10 // one log entry, as the log store has it
	AcceptItemsMax  = 256       // Accepts in one entry
	DevicesMax      = 1 << 17   // certified devices per authority: about 400 bytes each
	RoundsKept      = 128       // ended rounds per task whose end can be asked for; about 100 kB each
	RoundsFull      = 4         // of these, the newest keep their Accepts, Closes and Acks too
	EpochsKept      = 16        // epochs per member whose erasure is shown: about a week of them, 3.4 kB each once erased
	DetailBytesMax  = 200       // an outcome's text
	codesMax        = 64        // distinct reasons that one round counts: all that there are
)
