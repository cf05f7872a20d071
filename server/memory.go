package server

import (
	"bytes"
	"strconv"
)

// queriesShare is the part of the memory, in hundredths, that all queries may
// hold together.
const queriesShare = 40

// machineMemory returns how many bytes of memory this process may use: those of
// the machine, or fewer if its control group has a limit; 0 if it cannot be told.
// read reads a file.
func machineMemory(read func(name string) ([]byte, error)) (bytesInAll int64) {
	if text, err := read("/proc/meminfo"); err == nil {
		for line := range bytes.Lines(text) {
			if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "MemTotal:" && string(f[2]) == "kB" {
				bytesInAll = 1024 * positive(f[1])
			}
		}
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := read(limit)
		if n := positive(bytes.TrimSpace(text)); err == nil && n > 0 && (bytesInAll == 0 || n < bytesInAll) {
			bytesInAll = n
		}
	}
	return bytesInAll
}

// positive returns a number, 0 if the text is none, such as "max".
func positive(text []byte) int64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}
