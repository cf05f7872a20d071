//go:build upgrade

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// envPrevious names the daemon of the release before this one: `make test-upgrade`
// builds it.
const envPrevious = "DSDB_PREVIOUS"

// TestS26C29RollingUpgrade upgrades a cluster node by node while clients write and
// read through all of them. While one old node is left among new ones it is
// restarted, changes the catalogue, and catches up.
func TestS26C29RollingUpgrade(t *testing.T) {
	previous := os.Getenv(envPrevious)
	if _, err := os.Stat(previous); err != nil {
		t.Fatalf("%s: %v", envPrevious, err)
	}
	onNetwork(t, 3, func(t *testing.T, c *Cluster) {
		next := c.Nodes[0].Binary
		for _, p := range c.Nodes {
			p.Binary = previous
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		soon(t, "all nodes vote", func() string { return notVoting(t, c.Nodes[0], 3) })
		load, err := NewLoad(t.Context(), c, copies)
		if err != nil {
			t.Fatal(err)
		}
		busy, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			load.Run(busy, 8, *seed)
		}()
		for i, p := range []*Process{c.Nodes[2], c.Nodes[0], c.Nodes[1]} {
			time.Sleep(2 * time.Second)
			if i == 2 {
				mixed(t, c, p)
			}
			renew(t, p, next)
		}
		time.Sleep(2 * time.Second)
		stop()
		<-done
		if odd := load.Odd(); len(odd) > 0 {
			t.Errorf("unexpected answers: %v", odd)
		}
		for _, p := range c.Nodes {
			complete(t, load, p)
		}
		checkReplicas(t, c)
		checkRegisters(t, load)
		t.Logf("%d operations acknowledged while each of three nodes was upgraded, none lost", load.Acked())
	})
}

// mixed has the last old node do all that nodes do with each other.
func mixed(t *testing.T, c *Cluster, old *Process) {
	for i, p := range c.Nodes {
		run(t, p, fmt.Sprintf("CREATE DATABASE mixed%d WITH REPLICATION %d", i, copies))
	}
	renew(t, old, old.Binary)
	defer func() {
		if _, text := ask(t, c.Nodes[0], "/query", url.Values{"q": {"SHOW CLUSTER"}}); strings.Contains(text, "needs an upgrade") {
			t.Errorf("a node was given what it does not know: %s", text)
		}
	}()
	for i, p := range c.Nodes {
		db := fmt.Sprintf("mixed%d", i)
		mustPut(t, p, db, 1)
		for _, q := range c.Nodes {
			holds(t, q, db, 1, nil)
		}
		for _, q := range []string{"DELETE FROM m WHERE \"series\" = '7'", "DROP MEASUREMENT m"} {
			if status, text := ask(t, p, "/query", url.Values{"db": {db}, "q": {q}}); status != http.StatusOK || strings.Contains(text, `"error"`) {
				t.Errorf("%s through node %d: %s", q, p.ID, text)
			}
		}
	}
}

// renew stops a node, gracefully, and starts it with a program.
func renew(t *testing.T, p *Process, binary string) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.Binary = binary
	start(t, p)
}
