//go:build unix

package consortium

import (
	"os"
	"runtime"
	"syscall"
)

// peakOf is a process's largest resident set in bytes, as its parent learns it at the end.
func peakOf(s *os.ProcessState) uint64 {
	ru, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return uint64(ru.Maxrss)
	}
	return uint64(ru.Maxrss) << 10
}
