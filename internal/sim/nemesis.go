package sim

import "time"

// Faults counts what a Nemesis did.
type Faults struct {
	Crashes, PowerCuts, VoterCrashes, Blackouts, Partitions, Pauses, Noise int
}

func (f Faults) plus(o Faults) Faults {
	return Faults{f.Crashes + o.Crashes, f.PowerCuts + o.PowerCuts, f.VoterCrashes + o.VoterCrashes, f.Blackouts + o.Blackouts,
		f.Partitions + o.Partitions, f.Pauses + o.Pauses, f.Noise + o.Noise}
}

// Nemesis makes things go wrong until it is stopped.
type Nemesis struct {
	Faults  Faults
	cluster *Cluster
	stopped bool
	err     error
}

// StartNemesis starts one on a cluster.
func StartNemesis(c *Cluster) *Nemesis {
	n := &Nemesis{cluster: c}
	c.voted = n.voted
	n.next()
	return n
}

// Stop ends all faults, starts the nodes that are down, and returns the first
// error that a node had when it started.
func (n *Nemesis) Stop() error {
	n.stopped = true
	n.cluster.voted = func(*Node) {}
	n.cluster.network.heal()
	for _, node := range n.cluster.Nodes {
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
	switch c.Rand.IntN(10) {
	case 0, 1:
		n.Faults.Crashes += n.crash(victim, 100)
	case 2, 3:
		n.Faults.PowerCuts += n.crash(victim, []int{0, 0, 30, 70}[c.Rand.IntN(4)])
	case 4:
		n.Faults.Blackouts++
		for _, node := range c.Nodes {
			n.crash(node, c.Rand.IntN(2)*50)
		}
	case 5, 6:
		n.isolate(victim.Index, true)
	case 7:
		n.isolate(victim.Index, false)
	case 8:
		if victim.Up() {
			n.Faults.Pauses++
			victim.Pause(c.Between(10*time.Millisecond, 4*time.Second))
		}
	case 9:
		n.Faults.Noise++
		c.network.drop = c.Rand.Float64() * 0.1
		c.network.repeat = c.Rand.Float64() * 0.05
		c.network.slow = c.Rand.Float64() * 0.05
		c.Note("noise")
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
			n.Faults.VoterCrashes++
			node.Crash(0)
			c.After(c.Between(100*time.Microsecond, 2*time.Millisecond), func() { n.start(node) })
		}
	})
}

// crash ends a process, to be started again later; it returns 1 if it ran.
func (n *Nemesis) crash(node *Node, unsyncedPercent int) int {
	if !node.Up() {
		return 0
	}
	node.Crash(unsyncedPercent)
	n.cluster.After(n.cluster.Between(10*time.Millisecond, 3*time.Second), func() { n.start(node) })
	return 1
}

func (n *Nemesis) start(node *Node) {
	if node.Up() || n.err != nil {
		return
	}
	n.err = node.Start()
}

// isolate cuts a node off from one or more others for a while, in both
// directions or in one.
func (n *Nemesis) isolate(victim int, bothWays bool) {
	c := n.cluster
	n.Faults.Partitions++
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
