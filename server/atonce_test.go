package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/shard"
)

// meeting is where calls about several shards wait for each other.
type meeting struct {
	size int           // how many shards there are to be
	all  chan struct{} // closed when there are

	mu   sync.Mutex
	here map[dsdb.ShardID]bool // guarded by mu
}

func newMeeting(size int) *meeting {
	return &meeting{size: size, all: make(chan struct{}), here: map[dsdb.ShardID]bool{}}
}

// come waits until there are calls about so many shards, or ctx ends.
func (m *meeting) come(ctx context.Context, id dsdb.ShardID) error {
	m.mu.Lock()
	before := len(m.here)
	m.here[id] = true
	if len(m.here) == m.size && before < m.size {
		close(m.all)
	}
	m.mu.Unlock()
	select {
	case <-m.all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// As many shards are changed at a time as may be. After a failure no more are begun,
// and what went wrong with those that were is told in their order.
func TestShardsAreChangedSeveralAtATime(t *testing.T) {
	var ids []dsdb.ShardID
	var want []string
	for id := range dsdb.ShardID(3 * changesAtOnce) {
		if ids = append(ids, id); id < changesAtOnce {
			want = append(want, fmt.Sprintf("shard %d is full", id))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), *patience)
	defer cancel()
	m := newMeeting(changesAtOnce)
	err := changeShards(ids, func(id dsdb.ShardID) error {
		if err := m.come(ctx, id); err != nil {
			return err
		}
		return fmt.Errorf("shard %d is full", id)
	})
	if err == nil || err.Error() != strings.Join(want, "\n") || len(m.here) != changesAtOnce {
		t.Errorf("%d were begun: %v", len(m.here), err)
	}
	m = newMeeting(changesAtOnce)
	if err := changeShards(ids, func(id dsdb.ShardID) error { return m.come(ctx, id) }); err != nil || len(m.here) != len(ids) {
		t.Errorf("%d were changed, not %d: %v", len(m.here), len(ids), err)
	}
}

// The leader of one shard does not answer a deletion, or a fence, before that of
// another is asked.
func TestShardsDropAMeasurementAtTheSameTime(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	const weeks = 8
	led := 0 // by the first node
	for week := range weeks {
		nodes[0].mustWrite("db", fmt.Sprintf("m v=1 %d", week*7*24*int(time.Hour)))
	}
	for _, g := range groupsOf(nodes[0].node.meta.View().Database("db")) {
		led += 1 - leaderOf(t, nodes, g.Shards[0].ID)
	}
	leader, dropper := nodes[0], nodes[1]
	if led < weeks/2 {
		leader, dropper = dropper, leader
	}
	id := dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 1}
	kinds := map[byte]*meeting{shard.AppendDelete(nil, id, shard.Delete{})[0]: newMeeting(2), shard.AppendFence(nil, id, 1)[0]: newMeeting(2)}
	leader.node.peers.Handle(methodPropose, func(ctx context.Context, from rpc.Process, body []byte) ([]byte, error) {
		if p, err := decodeProposal(body); err == nil && p.group != dsdb.MetaGroup && kinds[p.payload[0]] != nil {
			if err := kinds[p.payload[0]].come(ctx, dsdb.ShardID(p.group)); err != nil {
				return nil, err
			}
		}
		return leader.node.servePropose(ctx, from, body)
	})
	dropper.mustQuery("db", "DROP MEASUREMENT m")
	dropper.typed("db")
	leader.node.peers.Handle(methodPropose, leader.node.servePropose)
}
