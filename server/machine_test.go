package server

import (
	"context"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
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

// The ports of tests lie below those that Linux gives to connections, one of which
// could else take that of a node that does not run. A process of tests claims them
// block by block, by listening at the first of each until it ends, so that processes
// side by side have none in common. Each port is given once.
const (
	firstPort, lastPort = 10000, 32000
	portBlock           = 100
)

var reserved struct {
	mu     sync.Mutex
	claims []net.Listener
	next   int // port; a multiple of portBlock: the block is used up
}

// freeAddress returns an address of loopback on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	listen := func(port int) (net.Listener, error) { return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)) }
	for range 10 * (lastPort - firstPort) {
		if reserved.next%portBlock == 0 {
			block := firstPort + mathrand.IntN((lastPort-firstPort)/portBlock)*portBlock
			if claim, err := listen(block); err == nil {
				reserved.claims = append(reserved.claims, claim)
				reserved.next = block + 1
			}
			continue
		}
		ln, err := listen(reserved.next)
		reserved.next++
		if err == nil {
			ln.Close()
			return ln.Addr().String()
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
	cfg.Coordinator.WriteTimeout = config.Duration(30 * time.Second)
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
	m.t.Cleanup(func() {
		m.halt()
		if m.t.Failed() {
			m.t.Logf("%s:\n%s", m.cfg.Meta.BindAddress, book.tail())
		}
	})
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

// restartWith ends the machine and starts it again with another configuration.
func (m *machine) restartWith(change func(*config.Config)) *machine {
	m.t.Helper()
	m.halt()
	change(&m.cfg)
	return m.start()
}

// hasty has a node give up soon what takes a majority, where there is none.
func hasty(c *config.Config) { c.Coordinator.WriteTimeout = config.Duration(2 * time.Second) }

// startAll starts machines that cannot begin to serve alone.
func startAll(all ...*machine) {
	for _, m := range all {
		m.launch()
	}
	for _, m := range all {
		m.ready()
	}
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

// newCluster starts a cluster of n nodes, all of them with both roles; change
// adjusts their configurations.
func newCluster(t testing.TB, n int, change ...func(*config.Config)) []*machine {
	t.Helper()
	nodes := []*machine{newMachine(t, change...).start()}
	for range n - 1 {
		m := newMachine(t, append(change, joins(nodes[0]))...)
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
