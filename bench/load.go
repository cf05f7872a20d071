package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"
)

// Load makes the points of a monitoring agent: measurement cpu with ten
// integer fields of Hosts hosts, each a clamped random walk, one point per host
// and Step. Equal seeds give equal bytes. Not safe for concurrent use.
type Load struct {
	Hosts int
	Step  time.Duration

	rnd    *rand.Rand
	prefix []string
	state  [][len(fields)]float64
	time   int64 // of the tick that is being written
	host   int   // next to be written
}

var fields = [...]string{"usage_user", "usage_system", "usage_idle", "usage_nice", "usage_iowait",
	"usage_irq", "usage_softirq", "usage_steal", "usage_guest", "usage_guest_nice"}

// ValuesPerPoint is the number of fields of a point.
const ValuesPerPoint = len(fields)

// NewLoad returns a load that starts at start.
func NewLoad(hosts int, step time.Duration, start time.Time, seed uint64) *Load {
	l := &Load{Hosts: hosts, Step: step, rnd: rand.New(rand.NewPCG(seed, 2)), time: start.UnixNano()}
	regions := []string{"eu-west-1", "us-east-1", "us-west-2", "ap-south-1"}
	for i := range hosts {
		region := regions[l.rnd.IntN(len(regions))]
		l.prefix = append(l.prefix, fmt.Sprintf("cpu,arch=x64,datacenter=%s%c,hostname=host_%d,os=Debian12,rack=%d,region=%s,service=%d,team=%s ",
			region, 'a'+rune(l.rnd.IntN(3)), i, l.rnd.IntN(100), region, l.rnd.IntN(20), []string{"NYC", "LON", "SHA"}[l.rnd.IntN(3)]))
		var s [len(fields)]float64
		for k := range s {
			s[k] = l.rnd.Float64() * 100
		}
		l.state = append(l.state, s)
	}
	return l
}

// Append appends n points as line protocol.
func (l *Load) Append(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, l.prefix[l.host]...)
		s := &l.state[l.host]
		for k := range s {
			s[k] = math.Min(100, math.Max(0, s[k]+l.rnd.NormFloat64()))
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(dst, fields[k]...), '=')
			dst = append(strconv.AppendInt(dst, int64(s[k]), 10), 'i')
		}
		dst = append(strconv.AppendInt(append(dst, ' '), l.time, 10), '\n')
		if l.host++; l.host == l.Hosts {
			l.host = 0
			l.time += int64(l.Step)
		}
	}
	return dst
}
