package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/server/coord"
	"github.com/dasudian/dsdb/server/rpc"
)

// How long a query waits before it is told what it cannot have.
const (
	readWait  = 5 * time.Second // for the leader of a raft group, and for the replica that has to catch up
	lostWait  = time.Second     // for that of one most of whose replicas are not connected
	applyWait = time.Second     // for this node's replica to catch up, where another could be asked
	freshWait = time.Second     // to learn how stale a replica is
)

// readIndex returns when this node's replica of a group has applied everything
// that was acknowledged before the call. It reports KindUnavailable if no leader
// with a quorum was found in readWait, or it has not applied that much then.
func (n *Node) readIndex(ctx context.Context, g dsdb.GroupID) error {
	asked := n.routes.age()
	index, err := n.leaderIndex(ctx, g)
	if err == nil {
		err = n.applied(ctx, g, index, readWait)
	}
	if err == nil {
		n.routes.fresh.Current(g, asked)
	}
	return err
}

// applied returns when this node's replica of a group has applied an entry. It
// reports KindUnavailable if it has not for so long: its disk may be full.
func (n *Node) applied(ctx context.Context, g dsdb.GroupID, index uint64, wait time.Duration) error {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := n.host.Applied(within, g, index)
	if err == nil || ctx.Err() != nil || within.Err() == nil {
		return err
	}
	return dsdb.Errorf(dsdb.KindUnavailable, "this node's replica of %s has not applied entry %d within %v%s", groupName(g), index, wait, n.spaceLeft())
}

// groupName names a raft group for people.
func groupName(g dsdb.GroupID) string {
	if g == dsdb.MetaGroup {
		return "the catalogue"
	}
	return fmt.Sprintf("shard %d", g)
}

// catchUp is readIndex for a group that has other replicas: one that follows
// and has much to catch up with is not waited for.
func (n *Node) catchUp(ctx context.Context, g dsdb.GroupID) error {
	if n.host.Status(g).Leading {
		return n.readIndex(ctx, g)
	}
	if mutant.ReplicaReadAsIs {
		return nil
	}
	asked := n.routes.age()
	index, err := n.leaderIndex(ctx, g)
	if err != nil {
		return err
	}
	if err := n.applied(ctx, g, index, applyWait); err != nil {
		return err
	}
	n.routes.fresh.Current(g, asked)
	return nil
}

// noQuorum is how the error of a read begins that found no leader with a quorum.
const noQuorum = "no quorum"

// leaderIndex returns an index of a group's log that includes everything that
// was acknowledged before the call.
func (n *Node) leaderIndex(ctx context.Context, g dsdb.GroupID) (uint64, error) {
	st := n.host.Status(g)
	if st.Leading && len(st.Members.Voters) == 1 {
		return n.host.ReadIndex(ctx, g)
	}
	within, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	if st.Leading {
		if index, err := n.host.ReadIndex(within, g); err == nil {
			return index, nil
		}
	}
	index, err := n.routes.indexes.share(within, g, func(ctx context.Context) (uint64, error) { return n.askIndex(ctx, g) })
	if err != nil && within.Err() != nil && ctx.Err() == nil && dsdb.KindOf(err) == dsdb.KindInternal { // while others asked
		err = n.withAway(g, dsdb.Errorf(dsdb.KindUnavailable, noQuorum+": the leader of %s has not answered within %v", groupName(g), readWait))
	}
	return index, err
}

// askIndex asks the leader of a group, wherever it is, for its index.
func (n *Node) askIndex(ctx context.Context, g dsdb.GroupID) (index uint64, err error) {
	if !n.connected(g) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lostWait)
		defer cancel()
	}
	err = n.attempt(ctx, coord.Request{Group: g, Read: true, Failure: noQuorum}, func(ctx context.Context, node dsdb.NodeID) error {
		if n.is(node) {
			index, err = n.host.ReadIndex(ctx, g)
			return err
		}
		b, err := n.call(ctx, node, methodReadIndex, appendNumber(nil, uint64(g)))
		if err == nil {
			index, err = decodeNumber(b)
		}
		return err
	})
	return index, err
}

// connected reports whether this node is connected to a quorum of a group.
func (n *Node) connected(g dsdb.GroupID) bool {
	nodes, err := n.members(g)
	up := 0
	for _, node := range nodes {
		if n.up(node) {
			up++
		}
	}
	return err != nil || up > len(nodes)/2
}

// serveReadIndex answers the call "readindex": it leads the group, or says who does.
func (n *Node) serveReadIndex(ctx context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	g, err := decodeNumber(body)
	if err != nil {
		return nil, err
	}
	index, err := n.host.ReadIndex(ctx, dsdb.GroupID(g))
	if err != nil {
		return nil, err
	}
	return appendNumber(nil, index), nil
}

// freshEnough reports whether this node's replica has applied everything that
// was acknowledged longer than limit ago; 0: it need not.
func (n *Node) freshEnough(ctx context.Context, g dsdb.GroupID, limit time.Duration) error {
	if n.routes.fresh.Within(g, n.routes.age(), limit) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freshWait)
	defer cancel()
	if err := n.readIndex(ctx, g); err != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "max_staleness: it is not known that this node's replica of %s is at most %v behind: %w", groupName(g), limit, err)
	}
	return nil
}

// readIndexes has the queries that need the read index of one group at the same
// time share calls to its leader: whoever comes while a call is on its way
// shares the next one, since what the leader says counts from when it was asked.
type readIndexes struct {
	mu     sync.Mutex // guards what follows
	groups map[dsdb.GroupID]*indexTurn
}

// indexTurn is the calls of one group: at most one on its way and one to follow.
type indexTurn struct {
	running, next *indexCall
	waiting       int // for the next one
}

// indexCall is one call. What it brought may be read when done is closed.
type indexCall struct {
	done  chan struct{}
	index uint64
	err   error
	void  bool // whoever was to make it has given up: the others ask again
}

// share returns a read index of g that fetch asked for after share was called.
// fetch runs on the goroutine, and with the context, of one of those who share.
func (r *readIndexes) share(ctx context.Context, g dsdb.GroupID, fetch func(context.Context) (uint64, error)) (uint64, error) {
	for {
		call, before := r.join(g)
		if before == call {
			select {
			case <-call.done:
				if call.void {
					continue
				}
				return call.index, call.err
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
		if before != nil {
			select {
			case <-before.done:
			case <-ctx.Done():
				r.give(g, call)
				return 0, context.Cause(ctx)
			}
		}
		r.begin(g, call)
		call.index, call.err = fetch(ctx)
		call.void = ctx.Err() != nil
		r.give(g, call)
		return call.index, call.err
	}
}

// join returns the call to share. If the caller is to make it, before is the
// call to wait for first, nil if there is none; else before is the call itself.
func (r *readIndexes) join(g dsdb.GroupID) (call, before *indexCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.groups[g]
	if t == nil {
		t = &indexTurn{}
		r.groups[g] = t
	}
	t.waiting++
	if t.next != nil {
		return t.next, t.next
	}
	if mutant.ReadIndexShared && t.running != nil {
		return t.running, t.running
	}
	t.next = &indexCall{done: make(chan struct{})}
	return t.next, t.running
}

// begin notes that the call to follow is on its way: nobody shares it any more.
func (r *readIndexes) begin(g dsdb.GroupID, call *indexCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.groups[g]
	t.running, t.next, t.waiting = call, nil, 0
}

// give ends a call, also one that was never made.
func (r *readIndexes) give(g dsdb.GroupID, call *indexCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.groups[g]
	if t.running == call {
		t.running = nil
	} else {
		t.next, t.waiting, call.void = nil, 0, true
	}
	if t.running == nil && t.next == nil {
		delete(r.groups, g)
	}
	close(call.done)
}
