package server

import (
	"context"
	"slices"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
	"github.com/dasudian/dsdb/meta"
)

// The leader of the meta group asks everybody for a report each second, and of a
// thousand shards hardly one is not as it was. So it names the last report that
// it has, and is told which groups are not as in that.

// reportDelta says how the groups of a report are to be read.
type reportDelta struct {
	Number  uint64         `json:"number,omitempty"`  // of the report, never used again by its process; 0: it has none
	Partial bool           `json:"partial,omitempty"` // groups that are not named are as in the report that was asked from
	Ended   []dsdb.GroupID `json:"ended,omitempty"`   // of a partial one: the process leads them no longer
}

// reportTold is the newest report that this process gave with a number. There is
// one leader of the meta group at a time: others get all that they ask for.
type reportTold struct {
	mu     sync.Mutex
	asker  string                             // its UUID
	number uint64                             // of the report
	groups map[dsdb.GroupID]*meta.GroupReport // in it
}

// reduce gives a report a number above first and leaves in it what is not as in
// the report since, if that is what the same process was told last.
func (t *reportTold) reduce(r *report, asker string, since, first uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, known := t.groups, since > 0 && asker == t.asker && since == t.number
	t.asker, t.number, t.groups = asker, max(t.number, first)+1, make(map[dsdb.GroupID]*meta.GroupReport, len(r.Groups))
	all := r.Groups
	r.Number, r.Partial = t.number, known
	if known {
		r.Groups = nil
	}
	for i := range all {
		g := &all[i]
		t.groups[g.Group] = g
		if old := before[g.Group]; known && (old == nil || !old.Equal(g)) {
			r.Groups = append(r.Groups, *g)
		}
	}
	for id := range before {
		if known && t.groups[id] == nil {
			r.Ended = append(r.Ended, id)
		}
	}
	slices.Sort(r.Ended)
}

// reportHeard is what the processes have reported to this one last.
type reportHeard struct {
	n  *Node
	mu sync.Mutex
	of map[string]heardReport // by UUID; guarded by mu
}

type heardReport struct {
	number uint64
	groups []meta.GroupReport
}

// forget has everybody report everything again.
func (h *reportHeard) forget() {
	h.mu.Lock()
	h.of = nil
	h.mu.Unlock()
}

// report asks a process for its report, and returns all of it.
func (h *reportHeard) report(ctx context.Context, p *meta.Process) (report, error) {
	h.mu.Lock()
	last := h.of[p.UUID]
	h.mu.Unlock()
	r, err := h.n.reportOf(ctx, p, wire.AppendUint(nil, last.number))
	if err != nil {
		return r, err
	}
	last.complete(&r)
	h.mu.Lock()
	if h.of == nil {
		h.of = map[string]heardReport{}
	}
	h.of[p.UUID] = heardReport{r.Number, r.Groups}
	h.mu.Unlock()
	return r, nil
}

// complete fills in the groups that are as they were.
func (last *heardReport) complete(r *report) {
	switch {
	case !r.Partial:
		return
	case len(r.Groups)+len(r.Ended) == 0:
		r.Groups = last.groups
		return
	}
	other := make(map[dsdb.GroupID]bool, len(r.Groups)+len(r.Ended))
	for _, g := range r.Groups {
		other[g.Group] = true
	}
	for _, id := range r.Ended {
		other[id] = true
	}
	for _, g := range last.groups {
		if !other[g.Group] {
			r.Groups = append(r.Groups, g)
		}
	}
}
