package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
)

// machine is a node's folders and configuration, whether it runs or not.
type machine struct {
	*client
	t   testing.TB
	fs  vfs.FS
	cfg config.Config

	replace dsdb.NodeID
	wall    func() time.Time   // nil: the true one
	stop    context.CancelFunc // of Open, while that has not returned
	started chan error
}

// reserved keeps addresses that tests have been given, so that no two are alike.
var reserved struct {
	mu   sync.Mutex
	seen map[string]bool
}

// freeAddress returns an address of loopback on which nobody listens. Its port
// lies below those that Linux gives to connections, one of which could else take
// it while no node listens there.
func freeAddress(t testing.TB) string {
	t.Helper()
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+mathrand.IntN(22000))
		ln, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		ln.Close()
		if !reserved.seen[address] {
			if reserved.seen == nil {
				reserved.seen = map[string]bool{}
			}
			reserved.seen[address] = true
			return address
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// newMachine makes empty folders with addresses of their own; change adjusts the
// configuration.
func newMachine(t testing.TB, change ...func(*config.Config)) *machine {
	t.Helper()
	cfg := quietConfig()
	cfg.HTTP.Enabled = true
	cfg.HTTP.BindAddress, cfg.Meta.BindAddress, cfg.Meta.HTTPBindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
	cfg.Coordinator.WriteTimeout = config.Duration(5 * time.Second)
	for _, c := range change {
		c(&cfg)
	}
	return &machine{t: t, fs: vfs.NewMem(1), cfg: cfg}
}

// launch begins to start the machine; ready waits for the outcome.
func (m *machine) launch() {
	m.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	book := &logBook{}
	m.client = &client{m.t, nil, book, *patience}
	m.stop, m.started = stop, make(chan error, 1)
	go func() {
		n, err := Open(ctx, m.cfg, Options{FS: m.fs, Version: "test", Replace: m.replace, Wall: m.wall,
			Logger: slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelInfo})),
			Fatal:  func(err error) { m.t.Errorf("the log failed: %v", err) }})
		m.client.node = n
		m.started <- err
	}()
	m.t.Cleanup(m.halt)
}

// outcome waits until the machine serves, or returns why it does not.
func (m *machine) outcome() error {
	select {
	case err := <-m.started:
		m.started <- nil
		return err
	case <-time.After(*patience + 10*time.Second):
		return fmt.Errorf("it neither starts nor fails\n%s", m.log)
	}
}

func (m *machine) ready() *machine {
	m.t.Helper()
	if err := m.outcome(); err != nil {
		m.t.Fatalf("%s: %v\n%s", m.cfg.Meta.BindAddress, err, m.log)
	}
	return m
}

func (m *machine) start() *machine {
	m.t.Helper()
	m.launch()
	return m.ready()
}

// refused starts the machine, which must fail with the words.
func (m *machine) refused(words ...string) {
	m.t.Helper()
	m.launch()
	err := m.outcome()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			m.t.Errorf("started with error %v, want one with %q", err, w)
		}
	}
	m.halt()
}

// halt ends the machine, whatever it does.
func (m *machine) halt() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.stop = nil
	if err := <-m.started; err == nil && m.node != nil {
		if err := m.node.Close(); err != nil {
			m.t.Errorf("close: %v", err)
		}
	}
}

// joins makes a configuration join the machines.
func joins(to ...*machine) func(*config.Config) {
	var list []string
	for _, m := range to {
		list = append(list, m.cfg.Meta.HTTPBindAddress)
	}
	return func(c *config.Config) { c.Meta.Join = strings.Join(list, ",") }
}

// newCluster starts a cluster of n nodes, all of them with both roles.
func newCluster(t testing.TB, n int) []*machine {
	t.Helper()
	nodes := []*machine{newMachine(t).start()}
	for range n - 1 {
		m := newMachine(t, joins(nodes[0]))
		m.launch()
		nodes = append(nodes, m)
	}
	for _, m := range nodes[1:] {
		m.ready()
	}
	agree(t, nodes...)
	allVote(t, nodes...)
	return nodes
}

// agree waits until all nodes show the same servers, as many as they are.
func agree(t testing.TB, nodes ...*machine) string {
	t.Helper()
	want := ""
	eventually(t, "the nodes show the same servers", func() bool {
		want = nodes[0].mustQuery("", "SHOW SERVERS")
		return !slices.ContainsFunc(nodes, func(m *machine) bool { return m.mustQuery("", "SHOW SERVERS") != want })
	})
	return want
}

// allVote waits until the meta group has as many voters as it can.
func allVote(t testing.TB, nodes ...*machine) {
	t.Helper()
	voters := min(len(nodes)-(1-len(nodes)%2), 5)
	eventually(t, fmt.Sprintf("%d meta nodes vote", voters), func() bool {
		return !slices.ContainsFunc(nodes, func(m *machine) bool {
			ms := m.node.host.Status(dsdb.MetaGroup).Members
			return len(ms.Voters) != voters || len(ms.Outgoing) > 0
		})
	})
}

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
	for _, m := range nodes {
		m.cfg.Coordinator.WriteTimeout = config.Duration(time.Second)
	}
	nodes[1].halt()
	nodes[2].halt()
	_, err := nodes[0].query("", "CREATE DATABASE db")
	wantError(t, err, dsdb.KindUnavailable, "no quorum: 1/3 meta nodes reachable")
	if servers := nodes[0].mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 5 {
		t.Errorf("without quorum:\n%s", servers)
	}
	if rows := nodes[0].mustQuery("", "SHOW CLUSTER"); strings.Count(rows, "status=suspect") != 2 {
		t.Errorf("without quorum:\n%s", rows)
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

// A node with lost folders is refused at its old address, and takes its own
// place when told to.
func TestWipedFoldersAreRefused(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	lost := nodes[2].node.id.MetaID
	stranger := newMachine(t, joins(nodes[0]))
	stranger.replace = lost
	stranger.refused(fmt.Sprintf("node %d, which is to be replaced, runs", lost))
	nodes[2].halt()
	empty := newMachine(t)
	empty.cfg = nodes[2].cfg
	empty.refused(fmt.Sprintf("belongs to node %d", lost), fmt.Sprintf("--replace %d", lost))
	empty.replace = lost
	empty.start()
	if servers := agree(t, nodes[0], nodes[1], empty); strings.Count(servers, empty.cfg.Meta.BindAddress) != 2 {
		t.Errorf("%s should be there with both roles:\n%s", empty.cfg.Meta.BindAddress, servers)
	}
	old := nodes[2]
	old.cfg.Meta.BindAddress, old.cfg.Meta.HTTPBindAddress, old.cfg.HTTP.BindAddress = freeAddress(t), freeAddress(t), freeAddress(t)
	old.refused("was replaced by")
}

// A node that was a cluster of its own does not pretend to have joined another.
func TestFoldersOfAnotherClusterAreRefused(t *testing.T) {
	t.Parallel()
	first, second := newMachine(t).start(), newMachine(t).start()
	second.halt()
	joins(first)(&second.cfg)
	second.refused(fmt.Sprintf("are of cluster %d, but %s", second.node.id.ClusterID, first.cfg.Meta.HTTPBindAddress), "move the folders away")
	second.cfg.Meta.Join = ""
	second.start()
}

// A node that lost its log, but not who it is, must not vote a second time.
func TestLostLogIsRefused(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[1].halt()
	if err := nodes[1].fs.RemoveAll("/node/wal"); err != nil {
		t.Fatal(err)
	}
	nodes[1].refused("lost the log", fmt.Sprintf("--replace %d", nodes[1].node.id.MetaID))
}

// Copies of a node's folders are refused: beside the node, and, as a backup that
// was restored, when the node has been started since. The others go on without.
func TestS13CopiedFoldersAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := newMachine(t).start()
	m := newMachine(t, joins(first))
	m.fs = vfs.OS()
	at := func(c *config.Config, name string) {
		c.Meta.Dir, c.Data.Dir, c.Data.WALDir = dir+"/"+name+"/meta", dir+"/"+name+"/data", dir+"/"+name+"/wal"
	}
	at(&m.cfg, "original")
	m.start()
	third := newMachine(t, joins(first)).start()
	allVote(t, first, m, third)
	m.mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	m.mustWrite("db", "m v=1 0")
	settled(t, []*machine{first, m, third}, 3)
	m.halt()
	copied := func(name string) *machine {
		t.Helper()
		if err := os.CopyFS(dir+"/"+name, os.DirFS(dir+"/original")); err != nil {
			t.Fatal(err)
		}
		c := newMachine(t)
		c.fs = vfs.OS()
		at(&c.cfg, name)
		return c
	}
	clone, old, restored := copied("clone"), copied("old"), copied("restored")
	restored.cfg.HTTP.BindAddress, restored.cfg.Meta.BindAddress, restored.cfg.Meta.HTTPBindAddress = m.cfg.HTTP.BindAddress, m.cfg.Meta.BindAddress, m.cfg.Meta.HTTPBindAddress
	m.start()
	clone.refused("the folders of this one are a copy")
	m.halt()
	m.start()
	m.halt()
	for range 3 { // each start counts
		clone.refused("was refused before", "the folders of this one are a copy")
		old.refused("are an older copy", "--replace")
		restored.refused("are an older copy", "--replace")
	}
	for _, o := range []*machine{first, third} {
		o.mustWrite("db", fmt.Sprintf("m v=1 %d", o.node.id.MetaID))
		if strings.Contains(o.log.String(), "panic") {
			t.Errorf("%s", o.log)
		}
	}
	m.start()
	m.expect("db", "SELECT count(v) FROM m", "m time=0 count=3")
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

// C13: a node does not tell nodes elsewhere that it is on loopback.
func TestC13LoopbackIsNotToldToOthers(t *testing.T) {
	t.Parallel()
	m := newMachine(t, func(c *config.Config) { c.Meta.Join = "influx1.invalid:8091" })
	m.refused("would tell the cluster that it is reached at 127.0.0.1", "set hostname")

	a := &admitter{n: &Node{addrs: config.Addresses{TCP: "influx1:8088"}}}
	wantError(t, a.canReach(context.Background(), "localhost:8088"), dsdb.KindInvalid, "set hostname on it")
	a = &admitter{n: &Node{addrs: config.Addresses{TCP: "127.0.0.1:8088"}}}
	wantError(t, a.canReach(context.Background(), "influx2:8088"), dsdb.KindConflict, "set hostname on the node there")
}

// C22: SHOW CLUSTER tells how every process is, also one that is down, and a load
// balancer is told which node to ask.
func TestC22ShowCluster(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	eventually(t, "all are up", func() bool { return strings.Count(nodes[0].mustQuery("", "SHOW CLUSTER"), "status=up") == 3 })
	rows := nodes[0].mustQuery("", "SHOW CLUSTER")
	for _, want := range []string{"role=leader", "role=voter", "version=test", "authenticated=none", "authenticated=self", "shards=0", "lag=0", "disk_free="} {
		if !strings.Contains(rows, want) {
			t.Errorf("%s is not in\n%s", want, rows)
		}
	}
	nodes[2].halt()
	eventually(t, "one is not up", func() bool { return strings.Count(nodes[0].mustQuery("", "SHOW CLUSTER"), "status=suspect") == 1 })
	nodes[1].halt()
	nodes[1].launch() // needs a quorum, which it finds; the other one does not
	nodes[1].ready()
	for _, m := range nodes[:2] {
		if status := get(t, "http://"+m.cfg.HTTP.BindAddress+"/health"); status != http.StatusOK {
			t.Errorf("/health of %s: %d", m.cfg.HTTP.BindAddress, status)
		}
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

// C28: HTTP that is sent to the port of the nodes is answered.
func TestC28HTTPOnTheClusterPort(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	for _, address := range []string{m.cfg.Meta.BindAddress, m.cfg.Meta.HTTPBindAddress} {
		rs, err := http.Get("http://" + address + "/query?q=SHOW+DATABASES")
		if err != nil {
			t.Fatal(err)
		}
		defer rs.Body.Close()
		var b [256]byte
		n, _ := rs.Body.Read(b[:])
		if rs.StatusCode != http.StatusNotFound || !strings.Contains(string(b[:n]), "clients are served at "+m.cfg.HTTP.BindAddress) {
			t.Errorf("%s: %s %q", address, rs.Status, b[:n])
		}
	}
}

// The configuration of DSDB's guide: clients and nodes share one port.
func TestClientsAndNodesOnOnePort(t *testing.T) {
	t.Parallel()
	shared := func(c *config.Config) { c.Meta.BindAddress = c.HTTP.BindAddress }
	first := newMachine(t, shared).start()
	all := func(c *config.Config) {
		c.Meta.HTTPBindAddress, c.Meta.BindAddress = c.HTTP.BindAddress, c.HTTP.BindAddress
	}
	second := newMachine(t, all, joins(first)).start()
	third := newMachine(t, shared, joins(second)).start()
	agree(t, first, second, third)
	for _, m := range []*machine{first, second, third} {
		rs, err := http.Get("http://" + m.cfg.HTTP.BindAddress + "/ping")
		if err != nil {
			t.Fatal(err)
		}
		rs.Body.Close()
		if rs.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s", m.cfg.HTTP.BindAddress, rs.Status)
		}
	}
}

// T-SEC-18: with a shared secret only who knows it joins.
func TestTSEC18JoinWantsTheSharedSecret(t *testing.T) {
	t.Parallel()
	secret := func(s string) func(*config.Config) { return func(c *config.Config) { c.Meta.SharedSecret = s } }
	one, other := strings.Repeat("1", 32), strings.Repeat("2", 32)
	first := newMachine(t, secret(one)).start()
	newMachine(t, joins(first)).refused("shared secret")
	newMachine(t, joins(first), secret(other)).refused("shared secret")
	second := newMachine(t, joins(first), secret(one)).start()
	agree(t, first, second)
	eventually(t, "the peer has proved itself", func() bool {
		return strings.Contains(first.mustQuery("", "SHOW CLUSTER"), "authenticated=secret")
	})
	if servers := first.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 3 {
		t.Errorf("%s", servers)
	}
	open := newMachine(t).start()
	newMachine(t, joins(open), secret(one)).refused("this cluster has no shared secret")
	if servers := open.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 1 {
		t.Errorf("a node that was refused is listed:\n%s", servers)
	}
}

// A member that comes back with another secret says, as long as it waits, that
// this is why it finds no quorum.
func TestWrongSecretOfAMemberIsRepeated(t *testing.T) {
	t.Parallel()
	secret := func(s string) func(*config.Config) {
		return func(c *config.Config) { c.Meta.SharedSecret = strings.Repeat(s, 32) }
	}
	first := newMachine(t, secret("1")).start()
	second := newMachine(t, joins(first), secret("1")).start()
	agree(t, first, second)
	allVote(t, first, second)
	second.halt()
	secret("2")(&second.cfg)
	second.launch()
	for range 2 {
		eventually(t, "the reason is logged", func() bool {
			return strings.Contains(second.log.String(), "are reachable, not "+first.cfg.Meta.BindAddress+" (refused by the peer: the process at "+second.cfg.Meta.BindAddress+" has another shared secret")
		})
		second.log.clear()
	}
}

// Debian gives the name of a machine to 127.0.1.1: whoever listens there is not found.
func TestNameThatIsLoopbackHere(t *testing.T) {
	t.Parallel()
	find := func(name string) ([]netip.Addr, error) {
		known := map[string][]netip.Addr{
			"debian": {netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("::1")},
			"proper": {netip.MustParseAddr("10.0.0.1")},
			"both":   {netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("10.0.0.1")},
		}
		if ips := known[name]; ips != nil {
			return ips, nil
		}
		return nil, errors.New("no such host")
	}
	for host, want := range map[string]string{"debian": "", "proper": "proper", "both": "10.0.0.1",
		"localhost": "localhost", "127.0.1.1": "127.0.1.1", "": "", "::1": "::1", "10.1.2.3": "10.1.2.3"} {
		if got, err := listenHost(host, find); err != nil || got != want {
			t.Errorf("%q: listens on %q, error %v", host, got, err)
		}
	}
	if _, err := listenHost("nobody", find); err == nil || !strings.Contains(err.Error(), "does not know the name") {
		t.Errorf("unknown name: %v", err)
	}
}

// certificates writes an authority and, signed by it, a certificate with its key
// for 127.0.0.1; it returns the files.
func certificates(t *testing.T) (ca, cert string) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (der []byte, key *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		if der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer); err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	valid := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	authority, node := valid, valid
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	node.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	node.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	caDER, caKey := issue(&authority, &authority, nil)
	nodeDER, nodeKey := issue(&node, &authority, caKey)
	keyDER, err := x509.MarshalECPrivateKey(nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	ca, cert = filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "node.pem")
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	if err := os.WriteFile(ca, block("CERTIFICATE", caDER), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cert, append(block("CERTIFICATE", nodeDER), block("EC PRIVATE KEY", keyDER)...), 0o600); err != nil {
		t.Fatal(err)
	}
	return ca, cert
}

// With an authority set, nodes prove themselves by certificates it has signed.
func TestNodesWithCertificates(t *testing.T) {
	t.Parallel()
	ca, cert := certificates(t)
	ca2, cert2 := certificates(t)
	with := func(ca, cert string) func(*config.Config) {
		return func(c *config.Config) { c.Meta.HTTPS, c.Meta.CA, c.Meta.Certificate = true, ca, cert }
	}
	first := newMachine(t, with(ca, cert)).start()
	second := newMachine(t, joins(first), with(ca, cert)).start()
	agree(t, first, second)
	eventually(t, "the peer has proved itself", func() bool {
		return strings.Contains(first.mustQuery("", "SHOW CLUSTER"), "authenticated=certificate")
	})
	for name, stranger := range map[string]*machine{
		"another authority":                           newMachine(t, joins(first), with(ca2, cert2)),
		"its server trusted, its own certificate not": newMachine(t, joins(first), with(ca, cert2)),
		"no TLS": newMachine(t, joins(first)),
	} {
		stranger.launch()
		eventually(t, name+": it is kept waiting", func() bool { return strings.Contains(stranger.log.String(), "waiting for a node of the cluster") })
		stranger.halt()
	}
	if servers := first.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 3 {
		t.Errorf("%s", servers)
	}
}
