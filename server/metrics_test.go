package server

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// scrape returns what /metrics of a node says, without comments.
func scrape(t testing.TB, m *machine) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(exposition(t, m)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			values[name] = v
		}
	}
	return values
}

func exposition(t testing.TB, m *machine) string {
	t.Helper()
	rs, err := http.Get("http://" + m.cfg.HTTP.BindAddress + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Body.Close()
	text, err := io.ReadAll(rs.Body)
	if err != nil || rs.StatusCode != http.StatusOK {
		t.Fatal(rs.Status, err)
	}
	return string(text)
}

// Who scrapes the nodes sees who leads, who is away, and how far it is behind,
// by node, until it has caught up.
func TestMetricsOfACluster(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3)
	nodes[0].mustQuery("", "CREATE DATABASE db")
	nodes[0].mustWrite("db", "m v=1 1")
	total := func(name string, of ...*machine) (sum float64) {
		for _, m := range of {
			sum += scrape(t, m)[name]
		}
		return sum
	}
	eventually(t, "the catalogue and one shard have three replicas, and one leader each", func() bool {
		return total("dsdb_raft_groups", nodes...) == 6 && total("dsdb_raft_groups_leading", nodes...) == 2 && total("dsdb_raft_groups_without_leader", nodes...) == 0
	})
	for i, m := range nodes {
		for name, least := range map[string]float64{"dsdb_peers": 2, "dsdb_peers_up": 2, "dsdb_wal_fsync_duration_seconds_count": 1,
			"dsdb_raft_messages_sent_total": 1, "dsdb_raft_messages_received_total": 1, "dsdb_rpc_sent_bytes_total": 1,
			"dsdb_rpc_received_bytes_total": 1, "dsdb_rpc_connections_total": 4, "dsdb_raft_leader_changes_total": 1} {
			eventually(t, fmt.Sprintf("node %d: %s is %v", i, name, least), func() bool { return scrape(t, m)[name] >= least })
		}
	}
	if got := total("dsdb_raft_elections_won_total", nodes...); got < 1 {
		t.Errorf("%v elections were won", got)
	}

	away, rest := nodes[2], nodes[:2]
	id := away.node.id.DataID
	away.halt()
	eventually(t, "another leads what it led", func() bool { return total("dsdb_raft_groups_leading", rest...) == 2 })
	for i := range 20 {
		nodes[0].mustWrite("db", fmt.Sprintf("m v=1 %d", 2+i))
	}
	entries, seconds := fmt.Sprintf("dsdb_replication_lag_entries{node=%q}", fmt.Sprint(id)), fmt.Sprintf("dsdb_replication_lag_seconds{node=%q}", fmt.Sprint(id))
	eventually(t, "it is told to be behind", func() bool { return total(entries, rest...) >= 20 && total(seconds, rest...) >= 1 })
	eventually(t, "SHOW CLUSTER says so", func() bool {
		_, row, _ := strings.Cut(nodes[0].mustQuery("", "SHOW CLUSTER"), "tcp_addr="+away.cfg.Meta.BindAddress)
		row, _, _ = strings.Cut(row, "\n")
		_, text, _ := strings.Cut(row, " lag=")
		var lag int
		_, err := fmt.Sscan(text, &lag)
		return err == nil && lag >= 20
	})
	eventually(t, "two nodes are connected to one each", func() bool { return total("dsdb_peers_up", rest...) == 2 })
	away.start()
	eventually(t, "it has caught up", func() bool { return total(entries, nodes...) == 0 && total(seconds, nodes...) == 0 })
}

// The metrics keep the conventions of Prometheus, and docs/clustering.md knows
// those that are about the cluster.
func TestMetricsAreWellNamed(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	m.mustQuery("", "CREATE DATABASE db")
	m.mustWrite("db", "m v=1 1")
	text := exposition(t, m)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	guide, err := os.ReadFile("../docs/clustering.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		name, help := strings.CutPrefix(line, "# HELP ")
		name, _, _ = strings.Cut(name, " ")
		for _, about := range []string{"dsdb_raft_", "dsdb_replica", "dsdb_snapshots_", "dsdb_peers", "dsdb_rpc_", "dsdb_hints_", "dsdb_wal_"} {
			if help && strings.HasPrefix(name, about) && !bytes.Contains(guide, []byte("`"+name+"`")) {
				t.Errorf("%s is not in the guide", name)
			}
		}
	}
}

// Of a group that was founded anew, whose indexes begin at 2^32 then, a replica
// that is still blank lacks what came since, and not that many entries.
func TestLagOfAGroupThatWasFoundedAnew(t *testing.T) {
	const anew = 1 << 32
	r := &report{NodeReport: meta.NodeReport{Groups: []meta.GroupReport{{Commit: anew + 9,
		Members:  meta.Members{Voters: []meta.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}}, Learners: []meta.Member{{Replica: 3, Node: 3}}},
		Progress: []meta.Progress{{Replica: 2, Match: anew + 5}, {Replica: 3}}}}}}
	if got, want := lagsOf([]*report{nil, r}), map[dsdb.NodeID]uint64{2: 4, 3: 9}; !maps.Equal(got, want) {
		t.Errorf("nodes lag by %v, want %v", got, want)
	}
}
