package meta

import (
	"cmp"
	"slices"

	"github.com/dasudian/dsdb"
)

// placer chooses the nodes of new replicas and witnesses. Nodes to avoid come last,
// before them those whose disks are full. Replicas, and first-listed replicas (the
// leaders to be), of one time group are spread as evenly as can be, since one group
// takes all current writes; what is left over goes to the nodes with the fewest
// replicas in all, then round robin from the group's id.
type placer struct {
	nodes []dsdb.NodeID // data nodes, ascending
	avoid []int         // 2 for one that is to be avoided, 1 for one whose disk is full, else 0
	load  []int         // replicas of the whole catalogue, per node
	watch []int         // witnesses of the whole catalogue, per node

	group   uint64 // the group being placed
	inGroup []int  // its replicas so far, per node
	firsts  []int  // its first-listed replicas so far, per node
	watches []int  // its witnesses so far, per node
}

// newPlacer returns a placer over the data nodes that are to stay.
func newPlacer(d *Data, avoid []dsdb.NodeID) *placer {
	p := &placer{nodes: d.active(DataNode)}
	p.avoid = make([]int, len(p.nodes))
	for i, n := range p.nodes {
		if process, _ := d.ProcessOf(n); slices.Contains(avoid, n) {
			p.avoid[i] = 2
		} else if process.DataFull {
			p.avoid[i] = 1
		}
	}
	p.load, p.watch = make([]int, len(p.nodes)), make([]int, len(p.nodes))
	for _, db := range d.Databases {
		for _, rp := range db.Policies {
			for _, g := range rp.ShardGroups {
				p.count(g)
			}
		}
	}
	return p
}

func (p *placer) count(g *ShardGroup) {
	for _, s := range g.Shards {
		for _, r := range s.Replicas {
			switch i, found := slices.BinarySearch(p.nodes, r.Node); {
			case found && r.Witness:
				p.watch[i]++
			case found:
				p.load[i]++
			}
		}
	}
}

// begin starts the placement of another time group.
func (p *placer) begin(group uint64) {
	p.group = group
	p.inGroup = make([]int, len(p.nodes))
	p.firsts, p.watches = make([]int, len(p.nodes)), make([]int, len(p.nodes))
}

// robin returns the ordinals of the nodes, from one that depends on the group.
func (p *placer) robin() []int {
	order := make([]int, len(p.nodes))
	for i := range order {
		order[i] = int((p.group + uint64(i)) % uint64(len(p.nodes)))
	}
	return order
}

// witness returns the node of the witness of a shard whose replicas are on nodes,
// 0 if it is to have none: see witnessed.
func (p *placer) witness(replicas int, nodes []dsdb.NodeID) dsdb.NodeID {
	if !witnessed(replicas, len(p.nodes)) {
		return 0
	}
	order := slices.DeleteFunc(p.robin(), func(i int) bool { return slices.Contains(nodes, p.nodes[i]) })
	best := slices.MinFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.avoid[a], p.avoid[b]), cmp.Compare(p.watches[a], p.watches[b]), cmp.Compare(p.watch[a], p.watch[b]))
	})
	p.watches[best]++
	p.watch[best]++
	return p.nodes[best]
}

// place returns the nodes of one shard of the group, as many as replicas says
// and there are.
func (p *placer) place(replicas int) []dsdb.NodeID {
	order := p.robin()
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.avoid[a], p.avoid[b]), cmp.Compare(p.inGroup[a], p.inGroup[b]), cmp.Compare(p.load[a], p.load[b]))
	})
	chosen := order[:min(max(replicas, 1), len(order))]
	slices.SortStableFunc(chosen, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.avoid[a], p.avoid[b]), cmp.Compare(p.firsts[a], p.firsts[b]))
	})
	p.firsts[chosen[0]]++
	nodes := make([]dsdb.NodeID, len(chosen))
	for i, n := range chosen {
		p.inGroup[n]++
		p.load[n]++
		nodes[i] = p.nodes[n]
	}
	return nodes
}

// witnessed reports whether a shard of so many replicas is to have a witness on
// so many data nodes: two replicas alone could not do without either of them.
func witnessed(replicas, nodes int) bool { return replicas == 2 && nodes > 2 }

// NoteDisk notes whether the disk of a data node is full, as far as new replicas are
// concerned.
type NoteDisk struct {
	Node dsdb.NodeID `json:"node"`
	Full bool        `json:"full"`
}

func (c *NoteDisk) op() string { return "NoteDisk" }

func (c *NoteDisk) apply(d *Data) error {
	i := slices.IndexFunc(d.Processes, func(p Process) bool { return p.DataID == c.Node && p.Has(DataNode) })
	if i < 0 {
		return dsdb.Errorf(dsdb.KindNotFound, "there is no data node %d", c.Node)
	}
	d.Processes = slices.Clone(d.Processes)
	d.Processes[i].DataFull = c.Full
	return nil
}
