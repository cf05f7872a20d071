package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/lineproto"
	"github.com/dasudian/dsdb/shard"
)

// Many small writes at once: all are stored, points that are refused are told to
// those who sent them and to nobody else, and they need fewer proposals.
func TestConcurrentSmallWritesShareProposals(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m,client=0 v=0i 1")
	g := onlyGroup(t, c, "db")
	before := c.node.host.Metrics().Proposals.Load()
	const clients, writes = 40, 25
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for i := range writes {
				value, refused := "1i", ""
				if client%4 == 0 { // a type that only the shard knows to be wrong: the catalogue has never seen the field
					value, refused = "1.5", "dropped=1"
				}
				b := pointOf(t, fmt.Sprintf("m,client=%d v=%s %d", client, value, 10+i))
				id, err := c.node.takeID(t.Context(), g)
				if err != nil {
					t.Error(err)
					return
				}
				o, err := c.node.proposeMerged(t.Context(), g, shard.AppendWrite(nil, id, b))
				c.node.routes.sequencer.Release(g, id)
				if err != nil || (o.Rejected > 0) != (refused != "") || o.Rejected > 0 && !strings.Contains(o.Reason, "type float") || o.Index == 0 {
					t.Errorf("client %d: %+v, %v", client, o, err)
				}
			}
		})
	}
	all.Wait()
	c.expect("db", "SELECT count(v), sum(v) FROM m", fmt.Sprintf("m time=0 count=%d sum=%d", 30*writes+1, 30*writes))
	if n := c.node.host.Metrics().Proposals.Load() - before; n >= clients*writes {
		t.Errorf("%d proposals for %d writes", n, clients*writes)
	}
	if n := len(c.node.routes.merger.groups); n != 0 {
		t.Errorf("%d queues are left", n)
	}
}

// A write that is given up before its turn is not stored, and does not keep
// others waiting; one whose proposal has begun is proposed for the others.
func TestWritesThatGiveUpInTheQueue(t *testing.T) {
	m := &merger{groups: map[dsdb.GroupID]*queue{}}
	for range mergeRunning {
		if p, _ := m.enter(1, []byte("at once")); p != nil {
			t.Fatal("a write waits though few are on their way")
		}
	}
	a, at := m.enter(1, []byte("a"))
	b, bt := m.enter(1, []byte("b"))
	if a != b || at == bt {
		t.Fatalf("places %d and %d in %p and %p", at, bt, a, b)
	}
	if !m.withdraw(a, at) {
		t.Error("it had not begun")
	}
	m.leave(1)
	if m.withdraw(b, bt) || len(b.turn) != 1 || b.entries[at] != nil || string(b.entries[bt]) != "b" {
		t.Errorf("%+v", b)
	}
	gone, place := m.enter(1, []byte("gone"))
	if gone == b || !m.withdraw(gone, place) {
		t.Error("it joined a proposal that had begun")
	}
	for range mergeRunning {
		m.leave(1)
	}
	if len(gone.turn) != 0 || len(m.groups) != 0 {
		t.Errorf("the turn of nobody: %d; queues: %v", len(gone.turn), m.groups)
	}
}

// A write that waits behind others ends with its own deadline, and certainly did
// not happen then.
func TestQueuedWriteEndsInTime(t *testing.T) {
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	g := dsdb.GroupID(77)
	for range mergeRunning {
		c.node.routes.merger.enter(g, nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.node.proposeMerged(ctx, g, []byte("x")); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Errorf("error %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := c.node.proposeMerged(ctx, g, []byte("x")); dsdb.KindOf(err) != dsdb.KindCanceled {
		t.Errorf("error %v", err)
	}
}

func pointOf(t *testing.T, line string) *column.WriteBatch {
	var p lineproto.Parser
	var b column.WriteBatch
	if _, err := p.Parse(&b, []byte(line), lineproto.Options{}); err != nil {
		t.Error(err)
	}
	return &b
}

func onlyGroup(t *testing.T, c *client, database string) dsdb.GroupID {
	rp, err := c.node.meta.View().Policy(database, "")
	if err != nil {
		t.Fatal(err)
	}
	return rp.GroupFor(1).Shards[0].ID.Group()
}
