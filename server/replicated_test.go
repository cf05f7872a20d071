package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server/config"
)

// openCluster opens count nodes in this process, connected over loopback: the
// first one founds a cluster, the others join it.
func openCluster(t testing.TB, count int) []*client {
	t.Helper()
	var nodes []*client
	for i := range count {
		cfg := quietConfig()
		cfg.Meta.BindAddress, cfg.Meta.HTTPBindAddress = "127.0.0.1:0", "127.0.0.1:0"
		cfg.Coordinator.WriteTimeout = config.Duration(10 * time.Second)
		if i > 0 {
			cfg.Meta.Join = nodes[0].node.cfg.Meta.HTTPBindAddress
		}
		nodes = append(nodes, open(t, vfs.NewMem(uint64(i)), cfg))
	}
	t.Cleanup(func() {
		for _, c := range nodes {
			if err := c.node.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if t.Failed() {
			for i, c := range nodes {
				t.Logf("node %d:\n%s", i, c.log)
			}
		}
	})
	return nodes
}

// What is written through one node is read through every other, whatever the
// number of replicas, and so is what is changed and deleted.
func TestAnyNodeCoordinates(t *testing.T) {
	nodes := openCluster(t, 3)
	for rf := 1; rf <= 3; rf++ {
		db := fmt.Sprintf("rf%d", rf)
		nodes[rf%3].mustQuery("", fmt.Sprintf("CREATE DATABASE %s WITH REPLICATION %d", db, rf))
		for i, c := range nodes {
			c.mustWrite(db, fmt.Sprintf("cpu,host=a n=%di %d\ncpu,host=b n=%di %d\ncpu,host=c n=%di %d", i, 10*i+1, i, 10*i+2, i, 10*i+3))
			for _, reader := range nodes {
				reader.expect(db, "SELECT count(n), sum(n) FROM cpu", fmt.Sprintf("cpu time=0 count=%d sum=%d", 3*(i+1), 3*(i*(i+1)/2)))
			}
		}
		nodes[0].mustQuery(db, "DELETE FROM cpu WHERE host = 'a'")
		for _, reader := range nodes {
			reader.expect(db, "SELECT count(n) FROM cpu; SHOW TAG VALUES WITH KEY = host", "cpu time=0 count=6\ncpu key=host value=b\ncpu key=host value=c")
		}
	}
	nodes[2].mustQuery("", "DROP DATABASE rf2")
	for _, c := range nodes {
		c.expect("", "SHOW DATABASES", "databases name=rf1\ndatabases name=rf3")
	}
}
