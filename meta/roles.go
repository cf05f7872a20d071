package meta

import (
	"slices"

	"github.com/dasudian/dsdb"
)

// SetRoles gives a process the roles that its configuration wants. A role that it
// never had gets a new id. One that it gives up it leaves as after a DropNode, but
// may take up again, under the id that it had; while it is leaving that ends the
// leaving. One that was dropped by a DropNode stays dropped until the process has
// said once that it does not want it. The answer is a Joined.
//
// It is refused if the process would have no role left, or if nobody is there to
// take over: no other meta node, or no data node for the replicas that it holds.
type SetRoles struct {
	UUID string `json:"uuid"`
	Meta bool   `json:"meta,omitempty"`
	Data bool   `json:"data,omitempty"`
}

func (c *SetRoles) op() string { return "SetRoles" }

func (c *SetRoles) answer(d *Data) []byte { return d.joined(c.UUID) }

func (c *SetRoles) wants(kind NodeKind) bool {
	return kind == MetaNode && c.Meta || kind == DataNode && c.Data
}

// Changes reports whether the process is to get or to lose a role. It is false
// for one that is not in the cluster.
func (c *SetRoles) Changes(d *Data) bool {
	p, found := d.Process(c.UUID)
	return found && slices.ContainsFunc(kinds, func(k NodeKind) bool { return p.turn(k, c.wants(k)) != noTurn })
}

// Denied returns the ids of the roles that the process wants and does not get,
// since they were dropped.
func (c *SetRoles) Denied(d *Data) []dsdb.NodeID {
	p, _ := d.Process(c.UUID)
	var ids []dsdb.NodeID
	for _, k := range kinds {
		if id, state := p.role(k); c.wants(k) && id != 0 && state != Active && !p.unwanted(k) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (c *SetRoles) apply(d *Data) error {
	i, found := d.findProcess(c.UUID)
	if !found {
		return dsdb.Errorf(dsdb.KindConflict, "process %s is not in the cluster", c.UUID)
	}
	d.Processes = slices.Clone(d.Processes)
	p := &d.Processes[i]
	if err := p.refused(); err != nil {
		return err
	}
	for _, kind := range kinds {
		switch p.turn(kind, c.wants(kind)) {
		case takeUp:
			d.takeUp(p, kind)
		case giveUp:
			if err := d.spared(p, kind); err != nil {
				return err
			}
			p.leave(kind)
			p.setUnwanted(kind, true)
		case disown:
			p.setUnwanted(kind, true)
		}
	}
	if !p.Is(MetaNode) && !p.Is(DataNode) {
		return dsdb.Errorf(dsdb.KindConflict, "process %s (node %d) would have no role left: one was dropped, the other is not enabled", p.UUID, p.ID())
	}
	for _, kind := range kinds {
		if id, state := p.role(kind); id != 0 && state == Leaving && d.idle(p, kind) {
			p.remove(kind)
		}
	}
	return nil
}

// kinds are the roles, in the order in which they get ids.
var kinds = []NodeKind{MetaNode, DataNode}

// turn is what becomes of a role of a process.
type turn uint8

const (
	noTurn turn = iota
	takeUp      // it gets the role, or gets it back
	giveUp      // it leaves
	disown      // it was dropped, and is not wanted: it may be taken up again
)

// turn says what becomes of a role that the process wants, or does not.
func (p *Process) turn(kind NodeKind, wanted bool) turn {
	id, state := p.role(kind)
	switch {
	case wanted && (id == 0 || state != Active && p.unwanted(kind)):
		return takeUp
	case !wanted && id != 0 && state == Active:
		return giveUp
	case !wanted && id != 0 && !p.unwanted(kind):
		return disown
	}
	return noTurn
}

// unwanted reports whether the process itself does not want a role that is not active.
func (p *Process) unwanted(kind NodeKind) bool {
	if kind == MetaNode {
		return p.MetaUnwanted
	}
	return p.DataUnwanted
}

func (p *Process) setUnwanted(kind NodeKind, unwanted bool) {
	if kind == MetaNode {
		p.MetaUnwanted = unwanted
	} else {
		p.DataUnwanted = unwanted
	}
}

// takeUp gives a process a role, under the id that it had in it if it had it. That
// it was given up counts no more: what it gets now is there.
func (d *Data) takeUp(p *Process, kind NodeKind) {
	id, state := &p.MetaID, &p.MetaState
	if kind == DataNode {
		id, state = &p.DataID, &p.DataState
		p.DataLost = false
	}
	if *id == 0 {
		d.Counters.Node++
		*id = d.Counters.Node
	}
	*state = Active
	p.setUnwanted(kind, false)
}

// spared returns why a process must keep a role, nil if others can take over.
func (d *Data) spared(p *Process, kind NodeKind) error {
	others := func(q Process) bool { return q.UUID != p.UUID && q.Is(kind) }
	held := len(d.ReplicasOn(p.DataID))
	switch {
	case slices.ContainsFunc(d.Processes, others):
	case kind == MetaNode:
		return dsdb.Errorf(dsdb.KindConflict, "node %d is the last meta node: enable [meta] on another node first", p.MetaID)
	case held > 0:
		return dsdb.Errorf(dsdb.KindConflict, "node %d is the last data node and holds %d shards, which no other can take over: enable [data] on another node first", p.DataID, held)
	}
	return nil
}
