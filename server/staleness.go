package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
)

// methodAge is the call that asks a node how old its replica of a group is: as
// appendNumber, a group, and a number of nanoseconds plus one, 0 if it is not known.
const methodAge = "age"

// A replica that is known to be younger than youngAge is told to be as old as
// that. Of any other the leader is asked, if there may be one, but for ageWait only.
const (
	youngAge = time.Second
	ageWait  = 50 * time.Millisecond
)

// staleness is how old what a statement has read is, of one that may miss
// something: everything is in it that had been acknowledged by a certain time.
type staleness struct {
	mu      sync.Mutex     // guards what follows
	asOf    time.Duration  // on the clock of routes.age
	read    bool           // something was read
	unknown bool           // of something that was read it is not known
	damaged []dsdb.ShardID // of which nothing but files is read, see Node.filesOnly
}

// add notes a replica that is to be read.
func (s *staleness) add(asOf time.Duration, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.read || asOf < s.asOf {
		s.asOf = asOf
	}
	s.read, s.unknown = true, s.unknown || !known
}

// atMost returns what is known of a replica as of a time, given that it is read
// only if it is at most limit behind, of which it is made sure after asked; 0: no limit.
func atMost(limit, asked, asOf time.Duration, known bool) (time.Duration, bool) {
	if limit > 0 && (!known || asOf < asked-limit) {
		return asked - limit, true
	}
	return asOf, known
}

// lacks notes a shard that lacks what was in the log.
func (s *staleness) lacks(id dsdb.ShardID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown = true
	if !slices.Contains(s.damaged, id) {
		s.damaged = append(s.damaged, id)
	}
}

// tell sets how old an answer is at time now.
func (s *staleness) tell(r *httpd.QueryRequest, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.damaged) > 0 {
		slices.Sort(s.damaged)
		r.Warning = fmt.Sprintf("the log of the only copy of shards %v is damaged: this is what is in their files, without what was written last", s.damaged)
	}
	if r.Stale = s.read; s.unknown {
		r.Age = -1
	} else if s.read {
		r.Age = now - s.asOf
	}
}

// asOf returns a time by which everything that had been acknowledged is in this
// node's replica of a group.
func (n *Node) asOf(ctx context.Context, g dsdb.GroupID) (at time.Duration, known bool) {
	at, known = n.routes.fresh.AsOf(g)
	if known && n.routes.age()-at <= youngAge || !n.connected(g) {
		return at, known
	}
	within, cancel := context.WithTimeout(ctx, ageWait)
	defer cancel()
	_ = n.readIndex(within, g) // that it is not known is told
	return n.routes.fresh.AsOf(g)
}

// asOfOn is asOf for the replica on any node.
func (n *Node) asOfOn(ctx context.Context, node dsdb.NodeID, g dsdb.GroupID) (at time.Duration, known bool) {
	if n.is(node) {
		return n.asOf(ctx, g)
	}
	asked := n.routes.age()
	ctx, cancel := context.WithTimeout(ctx, pingWait)
	defer cancel()
	b, err := n.call(ctx, node, methodAge, appendNumber(nil, uint64(g)))
	if err != nil {
		return 0, false // an older program, or it will be missed when it is read
	}
	age, err := decodeNumber(b)
	if err != nil || age == 0 || age > 1<<62 {
		return 0, false
	}
	return asked - time.Duration(age-1), true
}

// serveAge answers the call "age".
func (n *Node) serveAge(ctx context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	g, err := decodeNumber(body)
	if err != nil {
		return nil, err
	}
	at, known := n.asOf(ctx, dsdb.GroupID(g))
	if !known {
		return appendNumber(nil, 0), nil
	}
	return appendNumber(nil, uint64(n.routes.age()-at)+1), nil
}
