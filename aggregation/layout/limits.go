package layout

const (
	// Version is the first byte of every canonical form. A decoder refuses any other.
	Version = 1

	// TensorsMax bounds Trained and Frozen. A 100-layer model with every linear layer adapted has 700.
	TensorsMax = 4096

	// NameMax bounds a tensor's name in bytes. The longest names of published models are below 100.
	NameMax = 200

	// DimsMax bounds the dimensions of a tensor. Convolution kernels have four; nothing published has more than five.
	DimsMax = 5

	// ValuesMax bounds the trained values of a layout, and so an upload (64 MiB). It is also where int64 arithmetic on
	// a sum is proved exact, with room: see package encode.
	ValuesMax = 1 << 24

	// FrozenMax bounds the frozen values: rank 64 on every linear layer of a 7B model is below it.
	FrozenMax = 1 << 27

	// RankMax bounds a LoRA rank. Published adapters stay at or below 256.
	RankMax = 512

	// AlphaMax bounds a LoRA alpha, chosen arbitrarily above every published one.
	AlphaMax = 4096

	// TailMax bounds the private metrics: each further one makes all coarser (package encode, κ = ⌊C/(2√h)⌋).
	TailMax = 16

	// MetricNameMax bounds a metric's name in bytes, chosen arbitrarily.
	MetricNameMax = 64

	// MetricMaxMax bounds the public range of a metric, far inside the integers that a float64 holds exactly.
	MetricMaxMax = 1e12

	// CanonicalMax bounds the canonical bytes of a layout: twice TensorsMax entries of a full name and DimsMax
	// dimensions, and the rest, rounded up.
	CanonicalMax = 4 << 20

	// TaskIDMax bounds a task's id in bytes, chosen arbitrarily.
	TaskIDMax = 128
)
