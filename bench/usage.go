package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a process has used since it was started, from /proc.
type Usage struct {
	CPU        float64 // seconds of user and system time
	WriteCalls int64   // write system calls of all kinds
	WriteBytes int64   // bytes sent to disks
	PeakRSS    int64   // bytes; not a difference
}

// Minus returns what was used since before.
func (u Usage) Minus(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.WriteCalls - before.WriteCalls, u.WriteBytes - before.WriteBytes, u.PeakRSS}
}

// clockTicks is the unit of times in /proc/PID/stat: 100 Hz on every Linux that Go runs on.
const clockTicks = 100

// ReadUsage reads the usage of a process; pid 0 has none.
func ReadUsage(pid int) (u Usage, err error) {
	if pid == 0 {
		return u, nil
	}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return u, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	u.CPU = (user + system) / clockTicks
	io, err3 := os.ReadFile(dir + "/io")
	u.WriteCalls, u.WriteBytes = number(io, "syscw:"), number(io, "write_bytes:")
	status, err4 := os.ReadFile(dir + "/status")
	u.PeakRSS = number(status, "VmHWM:") << 10
	return u, errors.Join(err1, err2, err3, err4)
}

// number returns the number that follows key at the start of a line, 0 if there is none.
func number(text []byte, key string) int64 {
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, key); ok {
			v, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return v
		}
	}
	return 0
}

// scrape returns the value of an unlabelled metric of a server, -1 if it has none.
func scrape(ctx context.Context, c *http.Client, base, name string) float64 {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return -1
	}
	resp, err := c.Do(req)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			if v, err := strconv.ParseFloat(rest, 64); err == nil {
				return v
			}
		}
	}
	return -1
}

// FindPID returns the process of this machine that listens where raw points
// to, 0 if that cannot be told.
func FindPID(raw string) int {
	u, err := url.Parse(raw)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return 0
	}
	if ips, err := net.LookupIP(u.Hostname()); err != nil || len(ips) == 0 || !ips[0].IsLoopback() {
		return 0
	}
	inodes := listening(uint16(port))
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is valid
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && inodes[to] {
			pid, _ := strconv.Atoi(strings.Split(l, "/")[2])
			return pid
		}
	}
	return 0
}

// listening returns the sockets that listen on a port, as /proc/PID/fd names them.
func listening(port uint16) map[string]bool {
	out := map[string]bool{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && localPort(f[1]) == port {
				out["socket:["+f[9]+"]"] = true
			}
		}
	}
	return out
}

// localPort reads the port of an address such as 0100007F:1F90.
func localPort(addr string) uint16 {
	_, hex, _ := strings.Cut(addr, ":")
	v, err := strconv.ParseUint(hex, 16, 16)
	if err != nil {
		return 0
	}
	return uint16(v)
}
