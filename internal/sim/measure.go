package sim

import "time"

// sizes are the largest queues and caches of a run.
type sizes struct {
	Appends, Tasks, Backlog int
	Waiting, Cached         uint64
}

// The bounds on them: a run has some clients with one call each, and pauses of
// at most five seconds.
var bounds = sizes{Appends: 2000, Tasks: 500, Backlog: 20000, Waiting: 5000, Cached: 4 << 20}

func (s sizes) max(o sizes) sizes {
	return sizes{max(s.Appends, o.Appends), max(s.Tasks, o.Tasks), max(s.Backlog, o.Backlog),
		max(s.Waiting, o.Waiting), max(s.Cached, o.Cached)}
}

// measure looks at the queues of the nodes ten times a second.
func (c *Cluster) measure() {
	for _, n := range c.Nodes {
		if !n.Up() {
			continue
		}
		s := sizes{Appends: n.run.writer.Waiting(), Tasks: len(n.run.tasks), Backlog: len(n.backlog)}
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
