package coord

import (
	"sync"

	"github.com/dasudian/dsdb"
)

// Leaders remembers which node led which raft group when it was last heard of.
// What it says is a guess. The zero Leaders knows nothing. Safe for concurrent use.
type Leaders struct {
	mu sync.RWMutex
	of map[dsdb.GroupID]dsdb.NodeID
}

// Leader returns the node that leads a group as far as is known, else 0.
func (l *Leaders) Leader(g dsdb.GroupID) dsdb.NodeID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.of[g]
}

// Learn notes that a node leads a group; 0 says nothing.
func (l *Leaders) Learn(g dsdb.GroupID, node dsdb.NodeID) {
	if node == 0 || l.Leader(g) == node {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[dsdb.GroupID]dsdb.NodeID{}
	}
	l.of[g] = node
}

// Forget notes that a node did not act as the leader of a group.
func (l *Leaders) Forget(g dsdb.GroupID, node dsdb.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[g] == node {
		delete(l.of, g)
	}
}

// Retain forgets the groups that keep does not want: those that are no more.
func (l *Leaders) Retain(keep func(dsdb.GroupID) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.of {
		if !keep(g) {
			delete(l.of, g)
		}
	}
}
