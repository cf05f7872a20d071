package vfs

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

// sector is the unit that a disk writes whole or not at all.
const sector = 512

// Crash cuts the power: what was synced stays; of the rest, unsyncedPercent
// decides. Each unsynced write survives whole with that probability, otherwise
// some of its 512-byte sectors may; of the unsynced name operations of each
// folder a random first part survives. At 0 nothing unsynced survives, at 100
// everything does, as when only the process is killed. Files that are open
// fail from now on; locks are released.
func (m *Mem) Crash(unsyncedPercent int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crash(unsyncedPercent)
}

// CrashClone returns the file system as a Crash at this moment would leave it,
// by choices that seed makes, and leaves m alone.
func (m *Mem) CrashClone(unsyncedPercent int, seed uint64) *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := NewMem(seed)
	c.capacity, c.nextID, c.nextOp = m.capacity, m.nextID, m.nextOp
	c.root = m.copyTree()
	c.crash(unsyncedPercent)
	return c
}

// nodes returns every node that has a name, now or after a crash, by id.
func (m *Mem) nodes() []*memNode {
	seen := map[uint64]*memNode{}
	var walk func(n *memNode)
	walk = func(n *memNode) {
		if seen[n.id] != nil {
			return
		}
		seen[n.id] = n
		for _, c := range n.names {
			walk(c)
		}
		for _, c := range n.durable {
			walk(c)
		}
		for _, op := range n.log {
			for _, c := range op.changes {
				if c.node != nil {
					walk(c.node)
				}
			}
		}
	}
	walk(m.root)
	return slices.SortedFunc(maps.Values(seen), func(a, b *memNode) int { return int(int64(a.id) - int64(b.id)) })
}

// copyTree copies all nodes and what is pending on them; it returns the new root.
func (m *Mem) copyTree() *memNode {
	nodes := m.nodes()
	copies := map[*memNode]*memNode{nil: nil}
	for _, n := range nodes {
		copies[n] = &memNode{id: n.id, dir: n.dir, data: slices.Clone(n.data), pending: slices.Clone(n.pending)}
	}
	ops := map[*nameOp]*nameOp{}
	copyNames := func(names map[string]*memNode) map[string]*memNode {
		out := make(map[string]*memNode, len(names))
		for name, n := range names {
			out[name] = copies[n]
		}
		return out
	}
	for _, n := range nodes {
		if !n.dir {
			continue
		}
		c := copies[n]
		c.names, c.durable = copyNames(n.names), copyNames(n.durable)
		for _, op := range n.log {
			if ops[op] == nil {
				o := &nameOp{seq: op.seq}
				for _, ch := range op.changes {
					o.changes = append(o.changes, nameChange{copies[ch.dir], ch.name, copies[ch.node]})
				}
				ops[op] = o
			}
			c.log = append(c.log, ops[op])
		}
	}
	return copies[m.root]
}

func (m *Mem) crash(percent int) {
	m.epoch++
	clear(m.locks)
	nodes := m.nodes()
	for _, n := range nodes {
		if n.dir {
			crashNames(n, percent, m.rng)
		} else {
			crashData(n, percent, m.rng)
		}
	}
	for _, n := range nodes {
		n.log = nil
		n.names = maps.Clone(n.durable)
	}
}

// crashNames lets a first part of the folder's pending operations survive.
func crashNames(dir *memNode, percent int, rng *rand.Rand) {
	keep := 0
	for keep < len(dir.log) && rng.IntN(100) < percent {
		keep++
	}
	switch {
	case keep == len(dir.log):
		commit(dir, math.MaxUint64)
	case keep > 0:
		commit(dir, dir.log[keep-1].seq)
	}
}

// crashData undoes the pending changes and redoes those that survive.
func crashData(n *memNode, percent int, rng *rand.Rand) {
	n.undo()
	for _, op := range n.pending {
		switch {
		case rng.IntN(100) < percent:
			redo(n, op, nil)
		case percent > 0 && len(op.data) > 0 && rng.IntN(2) == 0:
			redo(n, op, rng)
		}
	}
	n.pending = nil
}

// redo applies op to what has survived; with rng only some of its sectors.
func redo(n *memNode, op fileOp, rng *rand.Rand) {
	if op.data == nil {
		n.setSize(op.newSize)
		return
	}
	end := op.off + int64(len(op.data))
	n.setSize(max(int64(len(n.data)), end))
	for off := op.off; off < end; {
		next := min(end, (off/sector+1)*sector)
		if rng == nil || rng.IntN(2) == 0 {
			copy(n.data[off:next], op.data[off-op.off:])
		}
		off = next
	}
}
