package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/config"
)

// When a node that is away counts as dead is the operator's choice: SHOW CLUSTER
// says so then, and another gets its copies.
func TestDeadTimeout(t *testing.T) {
	t.Parallel()
	impatient := func(c *config.Config) { c.Meta.DeadTimeout = config.Duration(2 * time.Second) }
	nodes := newCluster(t, 4, impatient)
	first := nodes[0]
	first.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	eventually(t, "a write", func() bool { return first.write("db", "m v=1 1") == nil })
	holds := func(id dsdb.NodeID) bool {
		for _, g := range first.node.meta.View().Groups() {
			if _, here := g.Group.Shards[0].On(id); here {
				return true
			}
		}
		return false
	}
	away := nodes[3]
	for _, m := range nodes[1:] {
		if holds(m.node.id.DataID) {
			away = m
		}
	}
	id := away.node.id.DataID
	away.halt()
	eventually(t, "the node is dead", func() bool {
		return strings.Contains(first.mustQuery("", "SHOW CLUSTER"), fmt.Sprintf("tcp_addr=%s status=dead", away.cfg.Meta.BindAddress))
	})
	eventually(t, "another has its copy", func() bool { return !holds(id) })
}

func TestSnapshotThroughput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set  config.Size
		rate int64
	}{{64 << 20, 64 << 20}, {16 << 20, 16 << 20}, {0, 1 << 40}} {
		m := newMachine(t, func(cfg *config.Config) { cfg.Data.SnapshotThroughput = c.set }).start()
		if rate := m.node.peerOptions().SnapshotRate; rate != c.rate {
			t.Errorf("%v: %d bytes per second", c.set, rate)
		}
	}
}
