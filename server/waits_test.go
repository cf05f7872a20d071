package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server/coord"
)

// C26: a node that cannot follow the others, since its disk is full, says so to
// whoever asks it, instead of letting them wait as long as that lasts.
func TestC26NodeThatCannotFollowSaysSo(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].insist("db", "cpu,host=a n=1i 1")
	i := slices.IndexFunc(nodes, func(m *machine) bool { return !m.node.host.Status(dsdb.MetaGroup).Leading })
	full, other := nodes[i], nodes[(i+1)%3]
	full.fs.(*vfs.Mem).SetCapacity(1) // no file can grow; what is preallocated can be written
	text := strings.Repeat("x", 60_000)
	behind := time.Time{}
	for n := 0; behind.IsZero() || time.Since(behind) < time.Second; n++ {
		other.insist("db", fmt.Sprintf("cpu,host=b text=%q %d", text, n))
		other.mustQuery("", fmt.Sprintf("CREATE DATABASE db%d", n))
		switch now := full.node.meta.View().Index; {
		case now+3 > other.node.meta.View().Index:
			behind = time.Time{}
		case behind.IsZero():
			behind = time.Now()
		}
	}
	began := time.Now()
	_, err := full.query("db", "SELECT n FROM cpu")
	wantError(t, err, dsdb.KindUnavailable, "replica of the catalogue has not applied entry")
	wantError(t, err, dsdb.KindUnavailable, "is full")
	if took := time.Since(began); took > 3*readWait {
		t.Errorf("it took %v", took)
	}
	full.fs.(*vfs.Mem).SetCapacity(0)
	eventually(t, "it follows again", func() bool {
		got, err := full.query("db", "SELECT n FROM cpu")
		return err == nil && got == "cpu time=1 n=1"
	})
}

// A replica that is not open yet, for want of space perhaps, is not waited for
// without end, and a write that waited for it is known not to have happened.
func TestReplicaThatDoesNotOpenIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	s := newShards(c.node) // nobody looks after it: what the catalogue has, it does not
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	wantError(t, s.await(ctx, 1), dsdb.KindUnavailable, "the replica of shard 1 on this node is not open yet")
}

// A shard whose replica has moved away is not one that was dropped: leaving it
// out would make the answer of a query look whole.
func TestReplicaThatMovedIsNotLeftOut(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "cpu n=1i 1")
	s, err := c.node.openSession(t.Context(), readLevel{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c.node.shards.mu.Lock()
	r := c.node.shards.held[1]
	delete(c.node.shards.held, 1)
	c.node.shards.mu.Unlock()
	defer func() {
		c.node.shards.mu.Lock()
		defer c.node.shards.mu.Unlock()
		c.node.shards.held[1] = r
	}()
	for what, err := range map[string]error{"shard": second(c.node.shards.get(1)), "files": third(c.node.files(1)), "source": second(s.open(t.Context(), 1))} {
		if err == nil || dsdb.KindOf(err) == dsdb.KindNotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	if failed := (outages{}); !s.lost(second(s.open(t.Context(), 1)), failed) || len(failed) != 1 {
		t.Errorf("the statement is not begun again without it: %v", failed)
	}
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

// Without a write timeout an attempt has no end, and a try of it may take as long
// as it likes; it is not over before it began.
func TestNoWriteTimeoutIsNoTimeout(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	_, do := coord.Start(&coord.Leaders{}, coord.Request{Group: 1, Replicas: []dsdb.NodeID{2}, Deadline: 1<<63 - 1}, 5)
	err := c.node.ask(t.Context(), do, func(ctx context.Context, _ dsdb.NodeID) error {
		if end, ok := ctx.Deadline(); ok && time.Until(end) < time.Hour {
			t.Errorf("the try ends in %v", time.Until(end))
		}
		return ctx.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

// A stream that this side closes, since the query has failed elsewhere, does not
// make its node one that is not to be asked again: what failed would not be told.
func TestClosingAStreamIsNoFaultOfItsNode(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 2)
	s, err := nodes[0].node.openSession(t.Context(), readLevel{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := s.connect(nodes[1].node.dataID)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { conn.Close() })
	if _, err := conn.Recv(); err == nil || s.losses != 0 {
		t.Errorf("error %v, failed %v", err, s.failed)
	}
}
