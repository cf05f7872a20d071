package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
)

// The clustering guide: a node, two more that join it, SHOW SERVERS on each.
func TestThreeNodesFormOneCluster(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	var data, meta []string
	view := nodes[0].node.meta.View()
	for _, p := range view.Processes {
		data = append(data, fmt.Sprintf("data_nodes id=%d http_addr=%s tcp_addr=%s", p.DataID, p.HTTPAddr, p.TCPAddr))
		meta = append(meta, fmt.Sprintf("meta_nodes id=%d http_addr=%s tcp_addr=%s", p.MetaID, p.MetaHTTPAddr, p.TCPAddr))
	}
	want := strings.Join(append(data, meta...), "\n")
	for _, m := range nodes {
		m.expect("", "SHOW SERVERS", want)
		if !strings.Contains(want, m.cfg.HTTP.BindAddress+" tcp_addr="+m.cfg.Meta.BindAddress) {
			t.Errorf("%s is not in\n%s", m.cfg.HTTP.BindAddress, want)
		}
	}
	nodes[2].mustQuery("", "CREATE DATABASE db")
	nodes[1].mustWrite("db", "m v=1 1")
	for _, m := range nodes {
		m.expect("db", "SELECT v FROM m", "m time=1 v=1")
	}
}

// C15: with the same -join list everywhere, empty nodes that start at once found
// one cluster, in which all are, and restart by the same command.
func TestC15SameListEverywhereFoundsOneCluster(t *testing.T) {
	t.Parallel()
	var nodes []*machine
	for range 5 {
		nodes = append(nodes, newMachine(t))
	}
	for _, m := range nodes {
		joins(nodes...)(&m.cfg)
		m.launch()
	}
	for _, m := range nodes {
		m.ready()
		if m.node.id.ClusterID != nodes[0].node.id.ClusterID {
			t.Errorf("clusters %d and %d", m.node.id.ClusterID, nodes[0].node.id.ClusterID)
		}
	}
	if got := len(strings.Split(agree(t, nodes...), "\n")); got != 10 {
		t.Errorf("%d nodes of both kinds, want 10", got)
	}
	allVote(t, nodes...)
	servers := nodes[0].mustQuery("", "SHOW SERVERS")
	for _, m := range nodes {
		m.halt()
	}
	for _, m := range nodes {
		m.launch()
	}
	for _, m := range nodes {
		m.ready().expect("", "SHOW SERVERS", servers)
	}
}

// The first of the list does not found a cluster while it cannot know whether
// the others have one.
func TestFirstOfTheListWaitsForAMajority(t *testing.T) {
	t.Parallel()
	first, second, third := newMachine(t), newMachine(t), newMachine(t)
	joins(first, second, third)(&first.cfg)
	first.launch()
	eventually(t, "it says what it waits for", func() bool {
		return strings.Contains(first.log.String(), "waiting for most of the -join list to answer") && strings.Contains(first.log.String(), "1 of 3 have")
	})
	joins(first, second, third)(&second.cfg)
	second.launch()
	first.ready()
	second.ready()
	agree(t, first, second)
}

// A node may join through any member, and passes over those that do not answer.
func TestJoinThroughAnyMember(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	dead := newMachine(t)
	fourth := newMachine(t, joins(dead, nodes[2])).start()
	fifth := newMachine(t, joins(fourth)).start()
	agree(t, append(nodes, fourth, fifth)...)
	allVote(t, append(nodes, fourth, fifth)...)
}

// C16: nodes with one role, and what no node can be.
func TestC16Roles(t *testing.T) {
	t.Parallel()
	alone := newMachine(t, func(c *config.Config) { c.Meta.Enabled = false })
	alone.refused("server not set to join existing cluster must run also as a meta node")

	first := newMachine(t, func(c *config.Config) { c.Data.Enabled = false }).start()
	first.mustQuery("", "CREATE DATABASE db")
	if err := first.write("db", "m v=1 1"); err == nil {
		t.Error("a cluster without data nodes took a point")
	}
	data := newMachine(t, joins(first), func(c *config.Config) { c.Meta.Enabled = false }).start()
	meta := newMachine(t, joins(data), func(c *config.Config) { c.Data.Enabled = false }).start()
	agree(t, first, data, meta)
	first.expect("", "SHOW SERVERS", fmt.Sprintf("data_nodes id=2 http_addr=%s tcp_addr=%s\nmeta_nodes id=1 http_addr=%s tcp_addr=%s\nmeta_nodes id=3 http_addr=%s tcp_addr=%s",
		data.cfg.HTTP.BindAddress, data.cfg.Meta.BindAddress, first.cfg.Meta.HTTPBindAddress, first.cfg.Meta.BindAddress,
		meta.cfg.Meta.HTTPBindAddress, meta.cfg.Meta.BindAddress))
	meta.mustWrite("db", "m v=1 1")
	for _, m := range []*machine{first, data, meta} {
		m.expect("db", "SELECT v FROM m", "m time=1 v=1")
	}
	if n := len(first.node.shards.list()) + len(meta.node.shards.list()); n > 0 {
		t.Errorf("meta nodes hold %d shards", n)
	}
}

// C11: after the whole cluster went down, any two of three nodes serve, in
// whatever order they come; the third finds its place again.
func TestC11RestartOfASubset(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db")
	for i, order := range [][]int{{2, 1, 0}, {0, 2, 1}, {1, 0, 2}} {
		nodes[i].mustWrite("db", fmt.Sprintf("m v=%d %d", i, i))
		for _, m := range nodes {
			m.halt()
		}
		for _, k := range order[:2] {
			nodes[k].launch()
		}
		for _, k := range order[:2] {
			nodes[k].ready()
		}
		if got := nodes[order[0]].mustQuery("db", "SELECT count(v) FROM m"); got != fmt.Sprintf("m time=0 count=%d", i+1) {
			t.Errorf("round %d: %s", i, got)
		}
		nodes[order[2]].start()
		agree(t, nodes...)
	}
}

// C26: a node that is alone of three says so, over HTTP and in its log, and
// answers a change of the catalogue in time.
func TestC26WithoutQuorum(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE there WITH REPLICATION 3")
	nodes[0].mustWrite("there", "m v=1 1")
	nodes[0].restartWith(hasty)
	nodes[1].halt()
	nodes[2].halt()
	eventually(t, "it says so", func() bool {
		err := nodes[0].node.Ready(t.Context())
		return dsdb.KindOf(err) == dsdb.KindUnavailable && strings.Contains(fmt.Sprint(err), "no quorum: 1/3 meta nodes reachable, and 1/3 data nodes")
	})
	_, err := nodes[0].query("", "CREATE DATABASE db")
	wantError(t, err, dsdb.KindUnavailable, "no quorum: 1/3 meta nodes reachable")
	if servers := nodes[0].mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 5 {
		t.Errorf("without quorum:\n%s", servers)
	}
	eventually(t, "two are not up", func() bool { return strings.Count(nodes[0].mustQuery("", "SHOW CLUSTER"), "status=suspect") == 2 })
	nodes[0].patience = time.Hour // the node itself ends the write
	written := make(chan error, 1)
	go func() { written <- nodes[0].write("there", "m v=2 2") }()
	select {
	case err = <-written:
		if kind := dsdb.KindOf(err); kind != dsdb.KindTimeout && kind != dsdb.KindUnavailable {
			t.Errorf("a write without quorum: %v", err)
		}
	case <-time.After(*patience):
		t.Error("a write without quorum waits for ever")
	}

	nodes[0].halt()
	nodes[0].launch()
	eventually(t, "the log says what the node waits for", func() bool {
		return strings.Contains(nodes[0].log.String(), "waiting for a quorum of the meta nodes: 1/3 are reachable, not ")
	})
	for path, want := range map[string]int{"/ping": http.StatusNoContent, "/health": http.StatusServiceUnavailable, "/write?db=db": http.StatusServiceUnavailable} {
		rs, err := http.Get("http://" + nodes[0].cfg.HTTP.BindAddress + path)
		if err != nil {
			t.Fatal(err)
		}
		rs.Body.Close()
		if rs.StatusCode != want {
			t.Errorf("%s: %s", path, rs.Status)
		}
		if said := rs.Header.Get("X-Influxdb-Error"); path == "/write?db=db" && !strings.HasPrefix(said, "starting: waiting for a quorum of the meta nodes: 1/3") {
			t.Errorf("/write: %q", said)
		}
	}
	nodes[1].launch()
	nodes[0].ready()
	nodes[1].ready()
}

// C14: a node whose addresses changed comes back with its data.
func TestC14AddressOfANodeChanges(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db")
	nodes[0].mustWrite("db", "m v=1 1")
	moved := nodes[1]
	moved.halt()
	moved.cfg.HTTP.BindAddress, moved.cfg.Meta.BindAddress, moved.cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
	moved.start()
	if servers := agree(t, nodes...); !strings.Contains(servers, moved.cfg.Meta.BindAddress) {
		t.Errorf("the new address %s is not in\n%s", moved.cfg.Meta.BindAddress, servers)
	}
	moved.expect("db", "SELECT v FROM m", "m time=1 v=1")
}

// C14, too: it comes back also where the others cannot decide without it.
func TestC14AddressOfANeededNodeChanges(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].halt()
	moved := nodes[1]
	moved.halt()
	moved.cfg.HTTP.BindAddress, moved.cfg.Meta.BindAddress, moved.cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
	moved.start()
	if servers := agree(t, moved, nodes[2]); !strings.Contains(servers, moved.cfg.Meta.BindAddress) {
		t.Errorf("the new address %s is not in\n%s", moved.cfg.Meta.BindAddress, servers)
	}
}

// C2: a meta node that was dropped stays away, also after a restart of all, and
// the catalogue can be changed after each drop but that of the last one, which is
// refused.
func TestC2DroppedMetaNodeStaysAway(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", fmt.Sprintf("DROP META SERVER %d", nodes[2].node.id.MetaID))
	dropped := fmt.Sprintf("meta_nodes id=%d ", nodes[2].node.id.MetaID)
	if servers := nodes[0].mustQuery("", "SHOW SERVERS"); strings.Contains(servers, dropped) {
		t.Errorf("it is listed:\n%s", servers)
	}
	eventually(t, "the node is gone", func() bool {
		return strings.Contains(nodes[0].mustQuery("", "SHOW CLUSTER"), fmt.Sprintf("meta_id=0 data_id=%d ", nodes[2].node.id.DataID))
	})
	for _, m := range nodes {
		m.halt()
	}
	for _, m := range nodes {
		m.launch()
	}
	for _, m := range nodes {
		m.ready()
	}
	if servers := agree(t, nodes...); strings.Contains(servers, dropped) || strings.Count(servers, "data_nodes") != 3 {
		t.Errorf("after the restart:\n%s", servers)
	}
	nodes[2].mustQuery("", "CREATE DATABASE db")
	nodes[0].mustQuery("", fmt.Sprintf("DROP META SERVER %d", nodes[1].node.id.MetaID))
	eventually(t, "one meta node is left", func() bool {
		return strings.Count(nodes[2].mustQuery("", "SHOW SERVERS"), "meta_nodes") == 1
	})
	nodes[1].mustQuery("", "CREATE DATABASE more")
	_, err := nodes[1].query("", fmt.Sprintf("DROP META SERVER %d", nodes[0].node.id.MetaID))
	wantError(t, err, dsdb.KindConflict, meta.ErrFinalNode.Error())
	nodes[2].expect("", "SHOW DATABASES", "databases name=db\ndatabases name=more")
}

// C3: a data node with the last copy of points is not dropped unless that is
// forced. Points of which there are copies stay, and queries and writes find
// their way past shards that are lost.
func TestC3LastCopyIsKept(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 1; CREATE DATABASE twice WITH REPLICATION 2")
	const groups = 8
	point := func(i int) string { return fmt.Sprintf("m,t=%d v=1 %d", i, int64(i)*int64(30*24*time.Hour)) }
	for i := range groups {
		nodes[0].mustWrite("db", point(i))
	}
	for i := range 3 {
		nodes[0].mustWrite("twice", point(i))
	}
	id := nodes[2].node.id.DataID
	_, err := nodes[0].query("", fmt.Sprintf("DROP DATA SERVER %d", id))
	if err == nil || !strings.Contains(err.Error(), "shard not replicated") {
		t.Errorf("dropped, error %v", err)
	}
	nodes[0].mustQuery("", fmt.Sprintf("DROP DATA SERVER %d FORCE", id))
	if servers := nodes[0].mustQuery("", "SHOW SERVERS"); strings.Contains(servers, fmt.Sprintf("data_nodes id=%d ", id)) {
		t.Errorf("it is listed:\n%s", servers)
	}
	if rows := nodes[0].mustQuery("", "SHOW CLUSTER"); strings.Contains(rows, fmt.Sprintf("data_id=%d ", id)) && !strings.Contains(rows, "leaving") {
		t.Errorf("it is not leaving:\n%s", rows)
	}
	eventually(t, "the node is gone", func() bool {
		return !strings.Contains(nodes[0].mustQuery("", "SHOW CLUSTER"), fmt.Sprintf("data_id=%d ", id))
	})
	got := nodes[1].mustQuery("db", "SELECT count(v) FROM m")
	if got == "m time=0 count=8" || !strings.HasPrefix(got, "m time=0 count=") {
		t.Errorf("after the drop: %q", got)
	}
	nodes[1].expect("twice", "SELECT count(v) FROM m", "m time=0 count=3")
	for i := range groups {
		nodes[0].mustWrite("db", point(i))
	}
	nodes[1].expect("db", "SELECT count(v) FROM m", "m time=0 count=8")
}

// C22: SHOW CLUSTER tells how every process is, also one that is down, and a load
// balancer is told which node to ask.
func TestC22ShowCluster(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	eventually(t, "all are up", func() bool { return strings.Count(nodes[0].mustQuery("", "SHOW CLUSTER"), "status=up") == 3 })
	for _, want := range []string{"role=leader", "role=voter", "version=test", "authenticated=none", "authenticated=self", "shards=0", "lag=0", "disk_free="} {
		eventually(t, "it says "+want, func() bool { return strings.Contains(nodes[0].mustQuery("", "SHOW CLUSTER"), want) })
	}
	nodes[2].halt()
	eventually(t, "one is not up", func() bool { return strings.Count(nodes[0].mustQuery("", "SHOW CLUSTER"), "status=suspect") == 1 })
	nodes[1].halt()
	nodes[1].launch() // needs a quorum, which it finds; the other one does not
	nodes[1].ready()
	for _, m := range nodes[:2] {
		eventually(t, "/health is fine", func() bool { return get(t, "http://"+m.cfg.HTTP.BindAddress+"/health") == http.StatusOK })
	}
	nodes[1].halt()
	nodes[0].halt()
	nodes[0].launch()
	eventually(t, "a node that cannot serve says so", func() bool {
		return get(t, "http://"+nodes[0].cfg.HTTP.BindAddress+"/health") == http.StatusServiceUnavailable
	})
}

// get returns the status of what a URL answers, 0 if nobody does.
func get(t testing.TB, url string) int {
	t.Helper()
	rs, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer rs.Body.Close()
	return rs.StatusCode
}
