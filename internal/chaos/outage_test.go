package chaos

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var rounds = flag.Int("rounds", 2, "how often the tests of starts and outages repeat themselves")

// ask posts a form to a node and returns the status and the text of the answer.
func ask(t *testing.T, p *Process, path string, form url.Values) (status int, text string) {
	t.Helper()
	resp, err := p.c.http.PostForm(p.URL+path, form)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// run runs statements through a node, which must succeed within a minute.
func run(t *testing.T, p *Process, q string) {
	t.Helper()
	soon(t, fmt.Sprintf("node %d: %s", p.ID, q), func() string {
		if status, text := ask(t, p, "/query", url.Values{"q": {q}}); status != http.StatusOK || strings.Contains(text, `"error"`) {
			return text
		}
		return ""
	})
}

// soon waits until fn finds no fault any more.
func soon(t *testing.T, what string, fn func() string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		fault := fn()
		if fault == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: after a minute still: %s", what, fault)
		}
	}
}

// put writes 20 points of as many series into a database, so that all its
// partitions get some, each with the value and the time of a number.
func put(t *testing.T, p *Process, db string, number int) (status int, text string) {
	t.Helper()
	var body strings.Builder
	for i := range 20 {
		fmt.Fprintf(&body, "m,series=%d v=%di %d\n", i, number, number)
	}
	resp, err := p.c.http.Post(p.URL+"/write?db="+db, "", strings.NewReader(body.String()))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// mustPut is put, which must succeed within a minute.
func mustPut(t *testing.T, p *Process, db string, number int) {
	t.Helper()
	soon(t, fmt.Sprintf("write into %s through node %d", db, p.ID), func() string {
		if status, text := put(t, p, db, number); status != http.StatusNoContent {
			return fmt.Sprintf("%d %s", status, text)
		}
		return ""
	})
}

// holds checks that a node answers with the points of so many numbers.
func holds(t *testing.T, p *Process, db string, numbers int, more url.Values) {
	t.Helper()
	form := url.Values{"db": {db}, "q": {"SELECT count(v) FROM m"}}
	for k, v := range more {
		form[k] = v
	}
	want := fmt.Sprintf(`"values":[["1970-01-01T00:00:00Z",%d]]`, 20*numbers)
	soon(t, fmt.Sprintf("%s through node %d %v", db, p.ID, more), func() string {
		if _, text := ask(t, p, "/query", form); !strings.Contains(text, want) {
			return text
		}
		return ""
	})
}

// start starts nodes, all before waiting for the first.
func start(t *testing.T, nodes ...*Process) {
	t.Helper()
	for _, p := range nodes {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range nodes {
		ready(t, p)
	}
}

// kill kills nodes.
func kill(t *testing.T, nodes ...*Process) {
	t.Helper()
	for _, p := range nodes { // all at once
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range nodes {
		<-p.done
	}
}

// clusterOf returns the id of the cluster that a node is in.
func clusterOf(t *testing.T, p *Process) (id string) {
	t.Helper()
	soon(t, fmt.Sprintf("status of node %d", p.ID), func() string {
		resp, err := p.c.http.Get("http://" + p.joinAddr() + "/status")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		var s struct{ Cluster string }
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			return err.Error()
		}
		id = s.Cluster
		return ""
	})
	return id
}

// TestEmptyNodesFoundOneCluster starts five empty nodes at once, all with the
// same -join list, again and again.
func TestEmptyNodesFoundOneCluster(t *testing.T) {
	onNetwork(t, 5, func(t *testing.T, c *Cluster) {
		var list []string
		for _, p := range c.Nodes {
			list = append(list, p.joinAddr())
		}
		for _, p := range c.Nodes {
			p.Join = strings.Join(list, ",")
		}
		seen := map[string]bool{}
		var took []time.Duration
		for round := range *rounds {
			began := time.Now()
			start(t, c.Nodes...)
			took = append(took, time.Since(began))
			id := clusterOf(t, c.Nodes[0])
			for _, p := range c.Nodes {
				if got := clusterOf(t, p); got != id || got == "" || seen[got] {
					t.Errorf("round %d: node %d is in cluster %q, node 1 in %q", round, p.ID, got, id)
				}
				soon(t, "SHOW SERVERS", func() string {
					if _, text := ask(t, p, "/query", url.Values{"q": {"SHOW SERVERS"}}); strings.Count(text, ":8088") != 10 {
						return text
					}
					return ""
				})
			}
			seen[id] = true
			kill(t, c.Nodes...)
			for _, p := range c.Nodes {
				if err := p.Wipe(); err != nil {
					t.Fatal(err)
				}
			}
		}
		slices.Sort(took)
		t.Logf("five empty nodes at once, %d times: one cluster each time, all ready after %v (median), %v (slowest)", *rounds, took[len(took)/2], took[len(took)-1])
	})
}

// TestAllKilled kills a whole cluster at once, again and again, and starts two of
// its three nodes, in every order: they serve, and have everything.
func TestAllKilled(t *testing.T) {
	t.Setenv("DSDB_DATA_WAL_MAX_SIZE", "64m") // a start begins a log file of a sixteenth of it, and the disk of a node is small
	orders := [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}, {2, 0, 1}, {1, 2, 0}}
	inNetwork(t, 3, func(t *testing.T, c *Cluster) {
		load, err := NewLoad(t.Context(), c, 3)
		if err != nil {
			t.Fatal(err)
		}
		soon(t, "all nodes vote", func() string { return notVoting(t, c.Nodes[0], 3) })
		var took []time.Duration
		for round := range *rounds {
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				load.Run(ctx, 8, uint64(round))
			}()
			before := load.Acked()
			soon(t, "load", func() string {
				if load.Acked()-before < 500 {
					return fmt.Sprintf("%d operations acknowledged", load.Acked()-before)
				}
				return ""
			})
			kill(t, c.Nodes...)
			stop()
			<-done
			began, order := time.Now(), orders[round%len(orders)]
			first, second, third := c.Nodes[order[0]], c.Nodes[order[1]], c.Nodes[order[2]]
			start(t, first, second)
			untilWritten(t, load, first)
			took = append(took, time.Since(began))
			for _, p := range []*Process{first, second} {
				complete(t, load, p)
			}
			start(t, third)
			complete(t, load, third)
		}
		slices.Sort(took)
		t.Logf("a cluster of three killed at once, two started, %d times: %d operations acknowledged, none lost; writable after %v (median), %v (slowest)",
			*rounds, load.Acked(), took[len(took)/2], took[len(took)-1])
		if odd := load.Odd(); len(odd) > 0 {
			t.Errorf("unexpected answers: %v", odd)
		}
	})
}

// complete checks that a node answers with every acknowledged point.
func complete(t *testing.T, load *Load, p *Process) {
	t.Helper()
	soon(t, fmt.Sprintf("points of node %d", p.ID), func() string {
		r, err := load.Check(t.Context(), p)
		if err != nil {
			return err.Error()
		}
		if len(r.Lost)+len(r.Odd) > 0 {
			t.Fatalf("node %d: %d acknowledged points are lost, %d are there that nobody wrote", p.ID, len(r.Lost), len(r.Odd))
		}
		return ""
	})
}

// TestReplicationFactors has databases with one to five replicas on five nodes,
// each of which is killed in turn: two, three and five replicas go on as if
// nothing was, and one is back with its node.
func TestReplicationFactors(t *testing.T) {
	inNetwork(t, 5, func(t *testing.T, c *Cluster) {
		numbers := 0
		for _, rf := range []int{1, 2, 3, 5} {
			run(t, c.Nodes[0], fmt.Sprintf("CREATE DATABASE rf%d WITH REPLICATION %d", rf, rf))
			mustPut(t, c.Nodes[rf-1], fmt.Sprintf("rf%d", rf), 1)
		}
		numbers++
		for i, victim := range c.Nodes {
			soon(t, "all nodes vote", func() string { return notVoting(t, c.Nodes[(i+1)%5], 5) })
			kill(t, victim)
			numbers++
			for k := 1; k < 5; k++ {
				p := c.Nodes[(i+k)%5]
				for _, db := range []string{"rf2", "rf3", "rf5"} {
					mustPut(t, p, db, numbers)
					holds(t, p, db, numbers, nil)
				}
			}
			start(t, victim)
			holds(t, victim, "rf1", 1, nil)
			holds(t, victim, "rf2", numbers, nil)
		}
		t.Logf("five nodes, each killed in turn: 2, 3 and 5 replicas were written and read, 1 was there again with its node")
	})
}

// notVoting says what SHOW CLUSTER lacks of so many meta nodes that decide.
func notVoting(t *testing.T, p *Process, voters int) string {
	_, text := ask(t, p, "/query", url.Values{"q": {"SHOW CLUSTER"}})
	if strings.Count(text, `"voter"`)+strings.Count(text, `"leader"`) != voters {
		return text
	}
	return ""
}

// TestMetaNodesLost kills one of three meta nodes, then another one: the
// catalogue cannot be changed, which is said at once, and points are written and
// read all the same. Then both come back.
func TestMetaNodesLost(t *testing.T) {
	onNetwork(t, 6, func(t *testing.T, c *Cluster) {
		metas, datas := c.Nodes[:3], c.Nodes[3:]
		for i, p := range c.Nodes {
			if err := p.Configure(i < 3, i >= 3); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		soon(t, "three meta nodes decide", func() string { return notVoting(t, datas[0], 3) })
		run(t, metas[0], "CREATE DATABASE db WITH REPLICATION 3")
		mustPut(t, metas[1], "db", 1)
		numbers := 1
		for round := range *rounds {
			one, two := metas[round%3], metas[(round+1)%3]
			kill(t, one)
			run(t, datas[0], fmt.Sprintf("CREATE DATABASE one%d", round))
			numbers++
			for _, p := range datas {
				mustPut(t, p, "db", numbers)
				holds(t, p, "db", numbers, nil)
			}
			kill(t, two)
			numbers++
			began := time.Now()
			if _, text := ask(t, datas[0], "/query", url.Values{"q": {fmt.Sprintf("CREATE DATABASE two%d", round)}}); !strings.Contains(text, "no quorum: 1/3 meta nodes reachable") || time.Since(began) > 12*time.Second {
				t.Errorf("%v after a node was asked to change the catalogue: %s", time.Since(began), text)
			}
			for _, p := range datas {
				mustPut(t, p, "db", numbers)
				holds(t, p, "db", numbers, nil)
			}
			start(t, one, two)
			for _, p := range c.Nodes {
				run(t, p, fmt.Sprintf("CREATE DATABASE back%d_%d", round, p.ID))
				holds(t, p, "db", numbers, nil)
			}
		}
		t.Logf("two of three meta nodes were killed and came back, %d times", *rounds)
	})
}
