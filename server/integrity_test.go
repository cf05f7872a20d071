package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/shard"
)

// tamper makes a replica hold a point that its log does not have.
func (c *client) tamper(t testing.TB, id dsdb.ShardID) {
	t.Helper()
	sh, err := c.node.shards.get(id)
	if err != nil {
		t.Fatal(err)
	}
	tampered := column.Table{Measurement: "cpu", MinTime: 3, MaxTime: 3, Times: []int64{3}, Series: []uint32{0},
		Columns: []column.Column{{Name: "n", Type: dsdb.Integer, Bits: []uint64{7}}}}
	tampered.Keys.Append([]byte("cpu,host=x"))
	entry := shard.AppendWrite(nil, dsdb.ProposalID{}, &column.WriteBatch{Tables: []column.Table{tampered}})
	if _, err := sh.Apply([]dsdb.Entry{{Index: sh.Stats().LastAppliedIndex, Term: 1, Data: entry}}); err != nil {
		t.Fatal(err)
	}
}

// shardOf returns the only shard of a cluster.
func shardOf(c *client) meta.Shard { return c.node.meta.View().Groups()[0].Group.Shards[0] }

// segmentsOf lists the segment files of a node's replica of a shard.
func segmentsOf(t *testing.T, m *machine, id dsdb.ShardID) (out []string) {
	t.Helper()
	dir, err := m.node.shards.folder(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files(t, m.fs, dir) {
		if strings.HasSuffix(f, ".seg") {
			out = append(out, f)
		}
	}
	return out
}

// However the files of one of three replicas are damaged, every node answers
// what was written from the first query on, and soon there is a new replica in
// the place of the damaged one.
func TestDamagedFilesAreNeverAnsweredFrom(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	var lines strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&lines, "cpu,host=%d n=%di,f=%d.25 %d\n", i%7, i, i*i%1013, i+1)
	}
	nodes[0].mustWrite("db", lines.String())
	const query = "SELECT count(n), sum(n), sum(f), max(f) FROM cpu; SELECT count(n) FROM cpu GROUP BY host"
	want := nodes[0].mustQuery("db", query)
	id := shardOf(nodes[0].client).ID
	for round, harm := range []func(disk *vfs.Mem, file string){
		func(disk *vfs.Mem, file string) { flip(t, disk, file, 8*len(readAll(t, disk, file))/3) },
		func(disk *vfs.Mem, file string) { flip(t, disk, file, 8*(len(readAll(t, disk, file))-20)) },
		func(disk *vfs.Mem, file string) {
			if err := disk.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		settled(t, nodes, 3)
		victim := nodes[round]
		victim.flushAll()
		old, _ := victim.replica(t, id)
		segments := segmentsOf(t, victim, id)
		victim.halt()
		harm(victim.fs.(*vfs.Mem), segments[len(segments)-1])
		victim.start()
		for _, m := range nodes {
			m.expect("db", query, want)
		}
		eventually(t, "there is another replica", func() bool {
			for _, m := range nodes {
				m.expect("db", query, want)
			}
			r, found := victim.replica(t, id)
			return found && r.ID != old.ID && r.Role == meta.Voter
		})
		victim.expect("db", query, want)
	}
	settled(t, nodes, 3)
}

// As long as there are others to read from, a query finds its way round the
// damaged shards of a node, however many they are.
func TestManyDamagedShardsAreReadElsewhere(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	const weeks = 8
	var lines strings.Builder
	for i := range weeks * 500 {
		fmt.Fprintf(&lines, "cpu,host=%d n=%di,f=%d.25 %d\n", i%7, i, i*i%1013, int64(i%weeks)*7*day+int64(i))
	}
	nodes[0].mustWrite("db", lines.String())
	const query = "SELECT count(n), sum(n), sum(f), max(f) FROM cpu"
	want := nodes[0].mustQuery("db", query)
	victim := nodes[1]
	settled(t, nodes, 3)
	victim.flushAll()
	var damaged []string
	for _, g := range victim.node.meta.View().Groups() {
		for _, sh := range g.Group.Shards {
			if segments := segmentsOf(t, victim, sh.ID); len(segments) > 0 {
				damaged = append(damaged, segments[len(segments)-1])
			}
		}
	}
	if len(damaged) < weeks {
		t.Fatalf("%d files", len(damaged))
	}
	victim.halt()
	for _, file := range damaged {
		flip(t, victim.fs.(*vfs.Mem), file, 8*len(readAll(t, victim.fs.(*vfs.Mem), file))/3)
	}
	victim.start()
	for _, m := range nodes {
		m.expect("db", query, want)
	}
	settled(t, nodes, 3)
}

// Comparing replicas finds damage that no query has met.
func TestComparingFindsDamage(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	nodes[0].mustWrite("db", "cpu,host=a n=1i 1\nmem,host=a n=2i 2")
	settled(t, nodes, 3)
	victim, id := nodes[1], shardOf(nodes[0].client).ID
	victim.flushAll()
	old, _ := victim.replica(t, id)
	file := segmentsOf(t, victim, id)[0]
	victim.halt()
	flip(t, victim.fs, file, 8*(len(readAll(t, victim.fs, file))/2))
	victim.start()
	settled(t, nodes, 3)
	if r, _ := victim.replica(t, id); r.ID == old.ID {
		t.Errorf("replica %d was not replaced\n%s", old.ID, victim.log)
	}
	for _, m := range nodes {
		if n := m.node.mismatches.Load(); n != 0 {
			t.Errorf("%d mismatches, though no replica has lied", n)
		}
	}
}

// Of two replicas that differ nobody can tell which is right: both stay, and
// the node says so.
func TestTwoReplicasThatDifferStay(t *testing.T) {
	t.Parallel()
	nodes := openCluster(t, 2)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 2")
	nodes[1].mustWrite("db", "cpu,host=a n=1i 1\ncpu,host=b n=2i 2")
	before := shardOf(nodes[0])
	nodes[1].expect("db", "SELECT count(n) FROM cpu", "cpu time=0 count=2")
	nodes[1].tamper(t, before.ID)
	c := nodes[0].node.compare(t.Context(), before.ID)
	if !c.Differ || c.Agree || len(c.Replicas) != 2 {
		t.Errorf("comparison %+v", c)
	}
	if n := nodes[0].node.mismatches.Load(); n != 1 || !strings.Contains(nodes[0].log.String(), "REPLICAS OF A SHARD DIFFER") {
		t.Errorf("%d mismatches are counted; the log:\n%s", n, nodes[0].log)
	}
	for _, r := range shardOf(nodes[0]).Replicas {
		if r.Role != meta.Voter {
			t.Errorf("replica %+v", r)
		}
	}
	nodes[0].mustWrite("db", "cpu,host=c n=3i 9")
	for _, n := range nodes {
		if _, err := n.query("db", "SELECT count(n) FROM cpu"); err != nil {
			t.Error(err)
		}
	}
}

// POST /debug/verify is for admins, and says of every replica what it holds.
func TestVerifyOverHTTP(t *testing.T) {
	t.Parallel()
	auth := func(c *config.Config) { c.HTTP.AuthEnabled = true }
	m := newMachine(t, patient, auth).start()
	m.mustQuery("", "CREATE USER root WITH PASSWORD 'p' WITH ALL PRIVILEGES; CREATE USER u WITH PASSWORD 'q'; CREATE DATABASE db; CREATE DATABASE other")
	m.mustWrite("db", "cpu n=1i 1")
	m.mustWrite("other", "cpu n=1i 1")
	ask := func(method, user, query string) (int, verifyAnswer) {
		t.Helper()
		rq, err := http.NewRequest(method, "http://"+m.node.Addr()+"/debug/verify"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		rq.SetBasicAuth(user, map[string]string{"root": "p", "u": "q"}[user])
		rs, err := http.DefaultClient.Do(rq)
		if err != nil {
			t.Fatal(err)
		}
		defer rs.Body.Close()
		b, err := io.ReadAll(rs.Body)
		if err != nil {
			t.Fatal(err)
		}
		var a verifyAnswer
		if rs.StatusCode == http.StatusOK {
			if err := json.Unmarshal(b, &a); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		return rs.StatusCode, a
	}
	if code, a := ask("POST", "root", ""); code != 200 || !a.Agree || len(a.Shards) != 2 {
		t.Errorf("%d %+v", code, a)
	}
	code, a := ask("POST", "root", "?db=db&wait=10s")
	if code != 200 || len(a.Shards) != 1 || a.Shards[0].Database != "db" || len(a.Shards[0].Replicas) != 1 {
		t.Fatalf("%d %+v", code, a)
	}
	if r := a.Shards[0].Replicas[0]; r.Digest == "" || r.Index != a.Shards[0].Index || r.Applied < r.Index || r.Node != m.node.dataID {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct {
		method, user, query string
		code                int
	}{{"POST", "u", "", 403}, {"POST", "nobody", "", 401}, {"GET", "root", "", 405}, {"POST", "root", "?wait=soon", 400}} {
		if code, _ := ask(c.method, c.user, c.query); code != c.code {
			t.Errorf("%s as %s%s: %d, want %d", c.method, c.user, c.query, code, c.code)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// A leader whose files are damaged, which it has not noticed, cannot fill
// another replica: it finds out, hands over, and is replaced too.
func TestDamagedLeaderIsFoundOut(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db WITH REPLICATION 3")
	for range 150 { // so that a blank replica is far behind
		nodes[0].mustWrite("db", "cpu,host=a n=1i 1\nmem,host=a n=2i 2")
	}
	settled(t, nodes, 3)
	id := shardOf(nodes[0].client).ID
	for _, m := range nodes {
		m.flushAll()
	}
	clients := []*client{nodes[0].client, nodes[1].client, nodes[2].client}
	leader := leaderOf(t, clients, id)
	victim := nodes[(leader+1)%3]
	old, _ := nodes[leader].replica(t, id)
	folder, err := victim.node.shards.folder(id)
	if err != nil {
		t.Fatal(err)
	}
	file := segmentsOf(t, nodes[leader], id)[0]
	victim.halt()
	flip(t, victim.fs, folder+"/MANIFEST", 100)
	flip(t, nodes[leader].fs, file, 8*(len(readAll(t, nodes[leader].fs, file))/2))
	victim.start()
	eventually(t, "the damaged leader is replaced", func() bool {
		damaged := nodes[leader].node
		for _, m := range nodes { // it may lose its place before it finds out
			if sh, err := damaged.shards.get(id); err == nil && damaged.readable(id, sh) == nil && m.node != damaged && m.node.host.Status(id.Group()).Leading {
				_ = m.node.host.Transfer(t.Context(), id.Group(), old.ID)
			}
		}
		r, found := nodes[leader].replica(t, id)
		return found && r.ID != old.ID
	})
	settled(t, nodes, 3)
	for _, m := range nodes {
		m.expect("db", "SELECT n FROM cpu, mem", "cpu time=1 n=1\nmem time=2 n=2")
	}
}
