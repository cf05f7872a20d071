package sim

import (
	"errors"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Nemesis makes things go wrong until it is stopped. What it does is counted
// in the cluster's Counts.
type Nemesis struct {
	cluster *Cluster
	stopped bool
	err     error
}

// faults is what a Nemesis does, each as often as its weight says.
var faults = []struct {
	weight int
	strike func(*Nemesis, *Node)
}{
	{2, (*Nemesis).kill},
	{2, (*Nemesis).cutPower},
	{1, (*Nemesis).blackout},
	{2, (*Nemesis).partition},
	{2, (*Nemesis).oneWay},
	{1, (*Nemesis).pause},
	{1, (*Nemesis).pauseLeader},
	{1, (*Nemesis).noise},
	{1, (*Nemesis).slowMachines},
	{1, (*Nemesis).stallDisk},
	{1, (*Nemesis).failSync},
	{2, (*Nemesis).failPower},
	{1, (*Nemesis).falseAlarm},
	{4, (*Nemesis).receiver},
	{2, (*Nemesis).fillDisk},
}

// StartNemesis starts one on a cluster.
func StartNemesis(c *Cluster) *Nemesis {
	n := &Nemesis{cluster: c}
	c.voted, c.joint, c.died, c.failed, c.put = n.voted, n.joint, n.died, n.failed, n.put
	n.next()
	return n
}

// Stop ends all faults, starts the nodes that are down, and returns the first
// error that a node had when it started.
func (n *Nemesis) Stop() error {
	n.stopped = true
	n.cluster.voted = func(*Node) {}
	n.cluster.joint = func(*Node, dsdb.GroupID) {}
	n.cluster.put = func(*Node) {}
	n.cluster.network.heal()
	for _, node := range n.cluster.Nodes {
		node.disk.repair()
		node.lagging = 0
		n.start(node)
	}
	return n.err
}

func (n *Nemesis) next() {
	n.cluster.After(n.cluster.Between(100*time.Millisecond, 3*time.Second), func() {
		if n.stopped || n.err != nil {
			return
		}
		n.strike()
		n.next()
	})
}

// strike does one evil thing and sees to its end.
func (n *Nemesis) strike() {
	c := n.cluster
	victim := c.Nodes[c.Rand.IntN(len(c.Nodes))]
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	lot := c.Rand.IntN(sum)
	for _, f := range faults {
		if lot -= f.weight; lot < 0 {
			f.strike(n, victim)
			return
		}
	}
}

func (n *Nemesis) kill(victim *Node) {
	if !victim.Up() {
		return
	}
	n.cluster.count("kills")
	victim.Kill()
	n.startLater(victim)
}

func (n *Nemesis) cutPower(victim *Node) {
	c := n.cluster
	c.count("power cuts")
	victim.CutPower([]int{0, 0, 30, 70}[c.Rand.IntN(4)])
	n.startLater(victim)
}

// blackout cuts the power of all nodes at once.
func (n *Nemesis) blackout(*Node) {
	c := n.cluster
	c.count("blackouts")
	for _, node := range c.Nodes {
		node.CutPower(c.Rand.IntN(2) * 50)
		n.startLater(node)
	}
}

// voted now and then cuts the power of a node right after its vote, and starts
// it again while the other candidate's request may still be on its way.
func (n *Nemesis) voted(node *Node) {
	c := n.cluster
	if !c.Chance(0.15) {
		return
	}
	c.After(c.Between(0, 4*time.Millisecond), func() {
		if node.Up() && !n.stopped {
			c.count("power cuts of voters")
			node.CutPower(0)
			c.After(c.Between(100*time.Microsecond, 2*time.Millisecond), func() { n.start(node) })
		}
	})
}

// joint now and then cuts the power of a node in the middle of a joint change.
func (n *Nemesis) joint(node *Node, g dsdb.GroupID) {
	c := n.cluster
	if !c.Chance(0.3) {
		return
	}
	c.After(c.Between(0, 4*time.Millisecond), func() {
		if node.Up() && !n.stopped {
			if node.Leads(g) {
				c.count("power cuts of leaders in joint changes")
			}
			node.CutPower(0)
			n.startLater(node)
		}
	})
}

// put now and then cuts the power of a node while it installs a snapshot.
func (n *Nemesis) put(node *Node) {
	c, p := n.cluster, node.run
	if !c.Chance(0.15) {
		return
	}
	c.After(c.Between(0, 8*time.Millisecond), func() {
		if node.run == p && !n.stopped {
			c.count("power cuts amid installs")
			node.CutPower(c.Rand.IntN(2) * 50)
			n.startLater(node)
		}
	})
}

// died sees to a process that its disk has ended.
func (n *Nemesis) died(node *Node, err error) {
	switch {
	case errors.Is(err, errPower):
		n.cluster.count("power cuts amid changes of files")
	case errors.Is(err, errSync):
		n.cluster.count("failed syncs")
	case errors.Is(err, errWiped), dsdb.KindOf(err) == dsdb.KindUnavailable, vfs.NoSpace(err):
	default:
		n.cluster.fail("node %d ended itself: %v", node.Index, err)
	}
	n.startLater(node)
}

// failed sees to a replica that a full or failing disk did not let take in a
// snapshot: its process starts again, if nobody replaces it before.
func (n *Nemesis) failed(node *Node, g dsdb.GroupID, err error) {
	c := n.cluster
	if !vfs.NoSpace(err) && !errors.Is(err, errSync) {
		c.fail("replica of group %d on node %d failed: %v", g, node.Index, err)
	}
	c.count("replicas failed")
	c.After(c.Between(100*time.Millisecond, 3*time.Second), func() {
		if node.Holds(g) && node.Status(g).Failed != nil {
			node.Kill()
			n.startLater(node)
		}
	})
}

func (n *Nemesis) startLater(node *Node) {
	n.cluster.After(n.cluster.Between(10*time.Millisecond, 3*time.Second), func() { n.start(node) })
}

// start boots a node that is down; while its disk is full or fails it tries again later.
func (n *Nemesis) start(node *Node) {
	if node.Up() || node.scrapped || n.err != nil {
		return
	}
	err := node.Start()
	if !n.stopped && (dsdb.KindOf(err) == dsdb.KindUnavailable || vfs.NoSpace(err) || errors.Is(err, errSync) || errors.Is(err, errPower)) {
		n.cluster.count("failed starts")
		n.startLater(node)
		return
	}
	n.err = err
}

// partition cuts a node off from one or more others for a while.
func (n *Nemesis) partition(victim *Node) {
	n.cluster.count("partitions")
	n.isolate(victim.Index, true)
}

// oneWay does so in one direction, which differs from one other node to the next.
func (n *Nemesis) oneWay(victim *Node) {
	n.cluster.count("one-way partitions")
	n.isolate(victim.Index, false)
}

func (n *Nemesis) isolate(victim int, bothWays bool) {
	c := n.cluster
	var cut [][2]int
	for other := range c.Nodes {
		if other == victim || c.Chance(0.2) {
			continue
		}
		pair := [2]int{victim, other}
		if c.Chance(0.5) {
			pair = [2]int{other, victim}
		}
		cut = append(cut, pair)
		if bothWays {
			cut = append(cut, [2]int{pair[1], pair[0]})
		}
	}
	for _, p := range cut {
		c.network.cut[p] = true
		c.Note("cut", uint64(p[0]), uint64(p[1]))
	}
	c.After(c.Between(100*time.Millisecond, 6*time.Second), func() {
		for _, p := range cut {
			delete(c.network.cut, p)
		}
		c.Note("mend")
	})
}

func (n *Nemesis) pause(victim *Node) {
	if victim.Up() {
		n.cluster.count("pauses")
		victim.Pause(n.cluster.Between(10*time.Millisecond, 4*time.Second))
	}
}

// pauseLeader stops a leader for long enough to be replaced.
func (n *Nemesis) pauseLeader(*Node) {
	c := n.cluster
	groups := c.Running()
	if len(groups) == 0 {
		return
	}
	if l := c.Leader(groups[c.Rand.IntN(len(groups))]); l != nil {
		c.count("pauses of leaders")
		l.Pause(c.Between(2*time.Second, 5*time.Second))
	}
}

// slowMachines lets the state machines of a node fall behind its log.
func (n *Nemesis) slowMachines(victim *Node) {
	c := n.cluster
	c.count("slow state machines")
	victim.lagging = c.Now() + c.Between(time.Second, 6*time.Second)
	c.Note("lag", uint64(victim.Index))
}

// noise changes how many messages are lost, repeated and late.
func (n *Nemesis) noise(*Node) {
	c := n.cluster
	c.count("changes of noise")
	c.network.drop = c.Rand.Float64() * 0.1
	c.network.repeat = c.Rand.Float64() * 0.05
	c.network.slow = c.Rand.Float64() * 0.05
	c.Note("noise")
}

func (n *Nemesis) stallDisk(victim *Node) {
	c := n.cluster
	c.count("disk stalls")
	victim.disk.slow = c.Now() + c.Between(100*time.Millisecond, 4*time.Second)
	c.Note("stall", uint64(victim.Index))
}

func (n *Nemesis) failSync(victim *Node) {
	victim.disk.failNextSync()
	n.cluster.Note("fail sync", uint64(victim.Index))
}

// failPower cuts the power after so many changes to the disk: in the middle of
// whatever uses it then.
func (n *Nemesis) failPower(victim *Node) {
	if victim.Up() {
		victim.disk.failPower(1 + n.cluster.Rand.IntN(300))
		n.cluster.Note("fail power", uint64(victim.Index))
	}
}

// receiver does something to a node to which a snapshot is on its way.
func (n *Nemesis) receiver(*Node) {
	c := n.cluster
	if len(c.shipments) == 0 {
		return
	}
	victim := c.shipments[c.Rand.IntN(len(c.shipments))].to.node
	c.count("receivers of snapshots struck")
	strikes := []func(*Nemesis, *Node){(*Nemesis).kill, (*Nemesis).cutPower, (*Nemesis).failPower, (*Nemesis).failSync, (*Nemesis).fillDisk}
	strikes[c.Rand.IntN(len(strikes))](n, victim)
}

// falseAlarm tells a node that the process of another is gone, which may be wrong.
func (n *Nemesis) falseAlarm(victim *Node) {
	c := n.cluster
	if other := c.Nodes[c.Rand.IntN(len(c.Nodes))]; other.Up() {
		c.count("false alarms")
		other.PeerDown(victim.names()...)
	}
}

// fillDisk leaves little room on a disk, and now and then on a second one.
func (n *Nemesis) fillDisk(victim *Node) {
	c := n.cluster
	victim.disk.full(c.Rand.Int64N(128 << 10))
	c.Note("fill disk", uint64(victim.Index))
	c.After(c.Between(500*time.Millisecond, 5*time.Second), func() {
		victim.disk.SetCapacity(0)
		c.Note("empty disk", uint64(victim.Index))
	})
	if c.Chance(0.3) {
		n.fillDisk(c.Nodes[c.Rand.IntN(len(c.Nodes))])
	}
}
