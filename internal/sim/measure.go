package sim

import (
	"reflect"
	"time"
)

// sizes are the largest queues, caches and logs of a run.
type sizes struct {
	Appends, Tasks, Backlog int
	Waiting, Cached         uint64
	Log                     int64 // bytes on disk
}

// The bounds on them: a run has some clients with one call each, and pauses of
// at most five seconds. Logs have segments of 128 KiB, of which one short entry
// that is needed keeps all that follow.
var bounds = sizes{Appends: 2000, Tasks: 500, Backlog: 20000, Waiting: 5000, Cached: 4 << 20, Log: 16 << 20}

func (s sizes) max(o sizes) sizes {
	return sizes{max(s.Appends, o.Appends), max(s.Tasks, o.Tasks), max(s.Backlog, o.Backlog),
		max(s.Waiting, o.Waiting), max(s.Cached, o.Cached), max(s.Log, o.Log)}
}

// missing names what was never more than nothing: it cannot have been measured.
func (s sizes) missing() (names []string) {
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			names = append(names, v.Type().Field(i).Name)
		}
	}
	return names
}

// measure looks at the queues of the nodes ten times a second.
func (c *Cluster) measure() {
	for _, n := range c.Nodes {
		if !n.Up() {
			continue
		}
		s := sizes{Appends: n.run.writer.Waiting(), Tasks: len(n.run.tasks), Backlog: len(n.backlog), Log: n.run.log.Stats().DiskBytes}
		for _, g := range n.run.groups {
			st := n.Status(g)
			if st.Leading && st.Quiescent {
				c.count("looks at quiescent leaders")
			}
			s.Waiting, s.Cached = s.Waiting+st.Waiting, max(s.Cached, st.Cached)
		}
		c.most = c.most.max(s)
	}
	c.After(100*time.Millisecond, c.measure)
}
