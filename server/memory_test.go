package server

import (
	iofs "io/fs"
	"testing"
)

func TestMachineMemory(t *testing.T) {
	const info = "MemFree:  5 kB\nMemTotal:       2048 kB\nBuffers: 7 kB\n"
	for _, c := range []struct {
		files map[string]string
		want  int64
	}{
		{nil, 0},
		{map[string]string{"/proc/meminfo": info}, 2 << 20},
		{map[string]string{"/proc/meminfo": info, "/sys/fs/cgroup/memory.max": "max\n"}, 2 << 20},
		{map[string]string{"/proc/meminfo": info, "/sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		{map[string]string{"/proc/meminfo": info, "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2 << 20},
		{map[string]string{"/sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		{map[string]string{"/proc/meminfo": "MemTotal: many kB\n"}, 0},
	} {
		got := machineMemory(func(name string) ([]byte, error) {
			if text, ok := c.files[name]; ok {
				return []byte(text), nil
			}
			return nil, iofs.ErrNotExist
		})
		if got != c.want {
			t.Errorf("%v: %d bytes, want %d", c.files, got, c.want)
		}
	}
}
