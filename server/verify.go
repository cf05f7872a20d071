package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/rpc"
	"github.com/dasudian/dsdb/server/tasks"
	"github.com/dasudian/dsdb/shard"
)

// methodChecksum asks a node for the digest of its replica of a shard:
//
//	u8 version (1) | u64 shard
//
// and is answered, with index 0 if there is none yet, by
//
//	u8 version (1) | u64 index | 16 digest
const methodChecksum = "checksum"

const digestLength = 25

// Replicas of a shard are the same by what raft promises. That the disks, the
// memory and the program keep the promise is checked by its leader.
const (
	verifyEvery = 7 * 24 * time.Hour // each shard
	verifyTick  = time.Minute        // one shard at a time
	verifyWait  = 10 * time.Minute   // for the digests of its replicas
	verifyPoll  = 500 * time.Millisecond
)

// digest is what a replica said that it holds at an entry of the log.
type digest struct {
	replica meta.Replica
	index   uint64
	sum     [16]byte
}

// verifyShards has the replicas of the shards that are led here compared, until ctx ends.
func (n *Node) verifyShards(ctx context.Context) {
	due := map[dsdb.ShardID]time.Time{}
	tasks.Every(ctx, verifyTick, n.log, "comparing replicas", func(ctx context.Context, now time.Time) error {
		due = n.dueShards(due, now)
		next := dsdb.ShardID(0)
		for id, at := range due {
			if !at.After(now) && (next == 0 || at.Before(due[next])) {
				next = id
			}
		}
		if next == 0 {
			return nil
		}
		due[next] = now.Add(verifyEvery)
		return n.verify(ctx, next)
	})
}

// dueShards returns when the shards that are led here are to be verified. Those
// that are new in it are spread over the time to come.
func (n *Node) dueShards(before map[dsdb.ShardID]time.Time, now time.Time) map[dsdb.ShardID]time.Time {
	due := map[dsdb.ShardID]time.Time{}
	for _, sh := range n.shards.list() {
		st := n.host.Status(sh.id.Group())
		if !st.Leading || len(st.Members.Voters) < 2 {
			continue
		}
		at, known := before[sh.id]
		if !known {
			at = now.Add(verifyEvery / 1000 * time.Duration(uint64(sh.id)*2654435761%1000))
		}
		due[sh.id] = at
	}
	return due
}

// verify has the replicas of a shard compute a digest at the same entry of the
// log. Those that differ from more than half of all are reported as damaged, so
// that they are replaced; a difference is logged in any case.
func (n *Node) verify(ctx context.Context, id dsdb.ShardID) error {
	within, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	v, err := n.propose(within, id.Group(), func(dsdb.ProposalID) []byte { return shard.AppendChecksum(nil) })
	if err == nil {
		err = v.Err()
	}
	if err != nil {
		return fmt.Errorf("shard %d: %w", id, err)
	}
	ref, found := n.meta.View().Shard(id)
	if !found {
		return nil
	}
	digests := n.gatherDigests(within, ref.Shard, v.Index)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return n.judge(ctx, ref.Shard, digests)
}

// gatherDigests asks the voters of a shard until all have answered or ctx ends.
func (n *Node) gatherDigests(ctx context.Context, sh meta.Shard, index uint64) (all []digest) {
	asked := map[dsdb.ReplicaID]bool{}
	for {
		left := 0
		for _, r := range sh.Replicas {
			if !votes(r) || asked[r.ID] {
				continue
			}
			d, err := n.askDigest(ctx, r.Node, sh.ID)
			if err != nil || d.index < index {
				left++
				continue
			}
			asked[r.ID] = true
			if d.index == index { // else a later one was asked for meanwhile
				d.replica = r
				all = append(all, d)
			}
		}
		if left == 0 {
			return all
		}
		select {
		case <-time.After(verifyPoll):
		case <-ctx.Done():
			return all
		}
	}
}

// askDigest returns the digest that a node computed last of its replica.
func (n *Node) askDigest(ctx context.Context, node dsdb.NodeID, id dsdb.ShardID) (digest, error) {
	if n.is(node) {
		return n.digestHere(id)
	}
	b, err := n.call(ctx, node, methodChecksum, appendNumber(nil, uint64(id)))
	if err != nil {
		return digest{}, err
	}
	return decodeDigest(b)
}

func (n *Node) digestHere(id dsdb.ShardID) (d digest, err error) {
	sh, err := n.shards.get(id)
	if err != nil {
		return d, err
	}
	if index, sum, ok := sh.Checksum(); ok {
		d.index, d.sum = index, sum
	}
	return d, nil
}

// serveChecksum answers the call "checksum".
func (n *Node) serveChecksum(_ context.Context, _ rpc.Process, body []byte) ([]byte, error) {
	id, err := decodeNumber(body)
	if err != nil {
		return nil, err
	}
	d, err := n.digestHere(dsdb.ShardID(id))
	if err != nil {
		return nil, err
	}
	return append(appendNumber(nil, d.index), d.sum[:]...), nil
}

func decodeDigest(b []byte) (d digest, err error) {
	if len(b) != digestLength || b[0] != wireVersion {
		return d, errWire("a digest", b)
	}
	d.index = binary.LittleEndian.Uint64(b[1:])
	copy(d.sum[:], b[9:])
	return d, nil
}

// judge tells from the digests of a shard's replicas which are wrong.
func (n *Node) judge(ctx context.Context, sh meta.Shard, digests []digest) error {
	count, texts := map[[16]byte]int{}, []string{}
	for _, d := range digests {
		count[d.sum]++
		texts = append(texts, fmt.Sprintf("replica %d on node %d: %x", d.replica.ID, d.replica.Node, d.sum))
	}
	if len(count) < 2 {
		n.log.Debug("replicas were compared", "shard", sh.ID, "replicas", len(digests))
		return nil
	}
	n.log.Error("REPLICAS OF A SHARD DIFFER", "shard", sh.ID, "digests", strings.Join(texts, ", "))
	for _, d := range digests {
		for sum, same := range count {
			if sum == d.sum || 2*same <= voters(sh) {
				continue
			}
			reason := fmt.Sprintf("it differs from %d of %d replicas at entry %d", same, voters(sh), d.index)
			if err := n.command(ctx, &meta.ReplicaFailed{Group: sh.ID.Group(), Replica: d.replica.ID, Reason: reason}); err != nil {
				return fmt.Errorf("replica %d of shard %d: %w", d.replica.ID, sh.ID, err)
			}
			n.log.Warn("a replica is to be replaced", "shard", sh.ID, "replica", d.replica.ID, "why", reason)
		}
	}
	return nil
}

// voters counts the replicas of a shard that vote.
func voters(sh meta.Shard) int { return others(sh, 0) }
