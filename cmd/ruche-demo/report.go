package main

// Report is what --report writes. The names are fixed: scripts read them.
type Report struct {
	SchemaVersion string        `json:"schema_version"` // "1"
	Status        string        `json:"status"`         // ok or failed
	Failures      []string      `json:"failures,omitempty"`
	Base          BaseReport    `json:"base"`
	Charter       CharterReport `json:"charter"`
	Participants  int           `json:"participants"`
	Newcomers     int           `json:"newcomers"`
	Rounds        []RoundReport `json:"rounds"`
	Loss          LossReport    `json:"loss"`
	PeakRSS       PeakReport    `json:"peak_rss_bytes"`
	Seconds       float64       `json:"seconds"`
}

// BaseReport names the base model.
type BaseReport struct {
	Path       string `json:"path"`
	SHA256     string `json:"sha256"`
	Parameters int    `json:"parameters"`
}

// CharterReport is the consortium's size.
type CharterReport struct {
	N    int  `json:"n"`
	F    int  `json:"f"`
	Q    int  `json:"q"`
	Demo bool `json:"demo"`
}

// RoundReport is one round.
type RoundReport struct {
	ID             string            `json:"id"`
	Seq            uint64            `json:"seq"`
	State          string            `json:"state"` // published or dead
	Contributors   int               `json:"contributors"`
	Refused        map[string]uint32 `json:"refused"`
	BytesUpMean    float64           `json:"bytes_up_mean"`
	BytesPlain     int               `json:"bytes_plain"` // the same vector without masks and boxes
	Seconds        PhaseSeconds      `json:"seconds"`
	Leader         string            `json:"leader"`
	LeaderKilled   bool              `json:"leader_killed"`
	AdapterSHA256  string            `json:"adapter_sha256"`
	SumEqualsPlain bool              `json:"sum_equals_plain"`
}

// PhaseSeconds are how long a round's phases took, by the log's clock; train is a device's own.
type PhaseSeconds struct {
	Train   float64 `json:"train"`
	Upload  float64 `json:"upload"`
	Close   float64 `json:"close"`
	Vote    float64 `json:"vote"`
	Reveal  float64 `json:"reveal"`
	Publish float64 `json:"publish"`
}

// LossReport is what was learned: the mean over users of their mean token loss.
type LossReport struct {
	Unit         string           `json:"unit"` // nats/token
	Participants ParticipantsLoss `json:"participants"`
	Newcomers    NewcomersLoss    `json:"newcomers"`
}

// ParticipantsLoss is measured on each participant's held-out text.
type ParticipantsLoss struct {
	Base      float64   `json:"base"`
	AloneMean float64   `json:"alone_mean"` // each with the adapter it trained alone
	Rounds    []float64 `json:"rounds"`
}

// NewcomersLoss is measured on the text of users who never contribute.
type NewcomersLoss struct {
	Base        float64   `json:"base"`
	AloneBest   float64   `json:"alone_best"` // the single participant's adapter that serves them best
	AloneMedian float64   `json:"alone_median"`
	Rounds      []float64 `json:"rounds"`
}

// PeakReport is the most memory that one process held.
type PeakReport struct {
	DeviceMax uint64 `json:"device_max"`
	MemberMax uint64 `json:"member_max"`
}

func last(v []float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	return v[len(v)-1], true
}
