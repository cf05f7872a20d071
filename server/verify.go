package server

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/coord"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/server/tasks"
	"github.com/dasudian/dsdb/shard"
)

// methodChecksum asks a node for the state of its replica of a shard, named by
// its id. The answer is a replicaCheck as JSON.
const methodChecksum = "checksum"

// Replicas of a shard are the same by what raft promises. That the disks, the
// memory and the program keep the promise is checked by comparing them.
const (
	verifyTick  = time.Minute      // one shard at a time, at most so often
	verifyWait  = 10 * time.Minute // for the digests of its replicas
	verifyPoll  = 200 * time.Millisecond
	verifyCall  = 2 * time.Second // for one node to answer
	verifyPause = time.Second     // until another digest is asked for
)

// shardCheck is what is known of the replicas of a shard once they were compared.
type shardCheck struct {
	Shard    dsdb.ShardID   `json:"shard"`
	Database string         `json:"database"`
	Policy   string         `json:"retention_policy"`
	Index    uint64         `json:"index"`            // of the entry of the log at which they were compared; 0: they were not
	Agree    bool           `json:"agree"`            // every replica votes, and holds the same there
	Differ   bool           `json:"differ,omitempty"` // some hold something else than others
	Error    string         `json:"error,omitempty"`
	Replicas []replicaCheck `json:"replicas"`
}

// replicaCheck is what one replica says of itself.
type replicaCheck struct {
	Replica  dsdb.ReplicaID   `json:"replica"`
	Node     dsdb.NodeID      `json:"node"`
	Role     meta.ReplicaRole `json:"role"` // as the catalogue has it
	Applied  uint64           `json:"applied"`
	Flushed  uint64           `json:"flushed"`
	Checking uint64           `json:"checking,omitempty"`       // index of the entry whose digest it computes
	Index    uint64           `json:"checksum_index,omitempty"` // of the entry that asked for the last digest
	Digest   string           `json:"checksum,omitempty"`
	Error    string           `json:"error,omitempty"` // why it cannot be compared
}

// verifyShards has the replicas of the shards that are led here compared, each
// once in an interval, until ctx ends.
func (n *Node) verifyShards(ctx context.Context, interval time.Duration) {
	due := map[dsdb.ShardID]time.Time{}
	tick := min(verifyTick, max(time.Second, interval/100))
	tasks.Every(ctx, tick, n.log, "comparing replicas", func(ctx context.Context, now time.Time) error {
		due = n.dueShards(due, now, interval)
		next := dsdb.ShardID(0)
		for id, at := range due {
			if !at.After(now) && (next == 0 || at.Before(due[next])) {
				next = id
			}
		}
		if next == 0 {
			return nil
		}
		due[next] = now.Add(interval)
		return n.verify(ctx, next)
	})
}

// dueShards returns when the shards that are led here are to be verified. Those
// that are new in it are spread over the time to come.
func (n *Node) dueShards(before map[dsdb.ShardID]time.Time, now time.Time, interval time.Duration) map[dsdb.ShardID]time.Time {
	due := map[dsdb.ShardID]time.Time{}
	for _, sh := range n.shards.list() {
		st := n.host.Status(sh.id.Group())
		if !st.Leading || len(st.Members.Voters) < 2 {
			continue
		}
		at, known := before[sh.id]
		if !known {
			at = now.Add(interval / 1000 * time.Duration(uint64(sh.id)*2654435761%1000))
		}
		due[sh.id] = at
	}
	return due
}

// verify compares the replicas of a shard.
func (n *Node) verify(ctx context.Context, id dsdb.ShardID) error {
	within, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	c := n.compare(within, id)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.Error != "" && c.Replicas != nil: // else it was dropped
		return fmt.Errorf("shard %d: %s", id, c.Error)
	case !c.Agree && !c.Differ:
		n.log.Warn("replicas could not be compared", "shard", id, "index", c.Index, "replicas", fmt.Sprintf("%+v", c.Replicas))
	}
	return nil
}

// compare has the replicas of a shard compute a digest at the same entry of the
// log, and waits until all have, or ctx ends. Those that differ from more than
// half of all are reported as damaged, so that they are replaced; a difference
// is logged in any case.
func (n *Node) compare(ctx context.Context, id dsdb.ShardID) (c shardCheck) {
	for {
		index, err := n.askForDigests(ctx, id)
		if err == nil {
			c = n.gather(ctx, id, index)
			if err := n.judge(context.WithoutCancel(ctx), &c); err != nil {
				c.Error = err.Error()
			}
		} else {
			c = n.describe(ctx, id)
			c.Error = err.Error()
		}
		if c.Agree || c.Differ || c.Replicas == nil {
			return c
		}
		if pauseFor(ctx, verifyPause) != nil {
			return c
		}
	}
}

// askForDigests puts the entry into the log of a shard at which its replicas
// are to be compared.
func (n *Node) askForDigests(ctx context.Context, id dsdb.ShardID) (uint64, error) {
	v, err := n.propose(ctx, id.Group(), func(dsdb.ProposalID) []byte { return shard.AppendChecksum(nil) })
	if err == nil {
		err = v.Err()
	}
	return v.Index, err
}

// gather asks the replicas of a shard until they can be compared at the entry at
// index or a later one, or until it is of use to ask for another digest.
func (n *Node) gather(ctx context.Context, id dsdb.ShardID, index uint64) shardCheck {
	for {
		c := n.describe(ctx, id)
		at, over := coord.Comparable(index, c.digests())
		if c.Index = at; over || c.Replicas == nil || pauseFor(ctx, verifyPoll) != nil {
			return c
		}
		index = at
	}
}

// digests is what the replicas say as far as it decides.
func (c *shardCheck) digests() []coord.Digest {
	out := make([]coord.Digest, len(c.Replicas))
	for i, r := range c.Replicas {
		out[i] = coord.Digest{Replica: r.Replica, Role: r.Role, Applied: r.Applied, Checking: r.Checking, Index: r.Index, Sum: r.Digest, Failed: r.Error != ""}
	}
	return out
}

// describe asks the replicas of a shard how they are.
func (n *Node) describe(ctx context.Context, id dsdb.ShardID) shardCheck {
	c := shardCheck{Shard: id}
	ref, found := n.meta.View().Shard(id)
	if !found {
		c.Error = errShardDropped(id.Group()).Error()
		return c
	}
	c.Database, c.Policy = ref.Database.Name, ref.Policy.Name
	for _, r := range ref.Shard.Replicas {
		if r.Witness { // which has nothing to compare
			continue
		}
		said, err := n.askReplica(ctx, r.Node, id)
		switch {
		case err != nil:
			said = replicaCheck{Error: err.Error()}
		case said.Replica != r.ID:
			said = replicaCheck{Error: fmt.Sprintf("the node has replica %d", said.Replica)}
		}
		said.Replica, said.Node, said.Role = r.ID, r.Node, r.Role
		c.Replicas = append(c.Replicas, said)
	}
	slices.SortFunc(c.Replicas, func(a, b replicaCheck) int { return cmp.Compare(a.Replica, b.Replica) })
	return c
}

// askReplica asks a node how its replica of a shard is.
func (n *Node) askReplica(ctx context.Context, node dsdb.NodeID, id dsdb.ShardID) (r replicaCheck, err error) {
	if n.is(node) {
		return n.replicaHere(id)
	}
	ctx, cancel := context.WithTimeout(ctx, verifyCall)
	defer cancel()
	b, err := n.call(ctx, node, methodChecksum, appendNumber(nil, uint64(id)))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("answer of node %d: %w", node, err)
	}
	return r, nil
}

// replicaHere tells how this node's replica of a shard is.
func (n *Node) replicaHere(id dsdb.ShardID) (r replicaCheck, err error) {
	sh, replica, err := n.shards.local(id)
	if err != nil {
		return r, err
	}
	r.Replica = replica
	r.Checking = sh.Checking() // before the digest: else a digest that is ready in between is missed
	if index, sum, ok := sh.Checksum(); ok {
		r.Index, r.Digest = index, hex.EncodeToString(sum[:])
	}
	st := sh.Stats()
	r.Applied, r.Flushed = st.LastAppliedIndex, st.FlushedIndex
	if err := errors.Join(n.host.Status(id.Group()).Failed, sh.Damage()); err != nil {
		r.Error = err.Error()
	}
	return r, nil
}

// serveChecksum answers the call "checksum".
func (n *Node) serveChecksum(_ context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	id, err := decodeNumber(body)
	if err != nil {
		return nil, err
	}
	r, err := n.replicaHere(dsdb.ShardID(id))
	if err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// judge tells from the digests of a shard's replicas which are wrong, and has
// those replaced.
func (n *Node) judge(ctx context.Context, c *shardCheck) error {
	j := coord.Judge(c.Index, c.digests())
	if c.Agree, c.Differ = j.Agree, j.Differ; !j.Differ {
		return nil
	}
	var texts []string
	for _, r := range c.Replicas {
		if r.Error == "" && r.Index == c.Index {
			texts = append(texts, fmt.Sprintf("replica %d on node %d: %s", r.Replica, r.Node, r.Digest))
		}
	}
	n.mismatches.Add(1)
	n.log.Error("REPLICAS OF A SHARD DIFFER", "shard", c.Shard, "database", c.Database, "index", c.Index, "digests", strings.Join(texts, ", "))
	for _, id := range j.Wrong {
		reason := fmt.Sprintf("it differs from %d of %d replicas at entry %d", j.Same, j.Voters, c.Index)
		if err := n.command(ctx, &meta.ReplicaFailed{Group: c.Shard.Group(), Replica: id, Reason: reason}); err != nil {
			return fmt.Errorf("replica %d of shard %d: %w", id, c.Shard, err)
		}
		n.log.Warn("a replica is to be replaced", "shard", c.Shard, "replica", id, "why", reason)
	}
	return nil
}
