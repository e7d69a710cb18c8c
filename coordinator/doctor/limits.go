package doctor

// Free space below which a member does less.
const (
	uploadsStop = 128 << 20 // contributions leave so much
	logStops    = 32 << 20  // the log takes nothing more
)
