package rpc

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// hang keeps a process from reading and writing while its mutex is held: its
// connections stay, as those of a stopped process or of a machine that hangs.
type hang struct{ sync.RWMutex }

func (h *hang) wait() {
	h.RLock()
	defer h.RUnlock()
}

type hangingConn struct {
	net.Conn
	hang *hang
}

func (c hangingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.hang.wait()
	return n, err
}

func (c hangingConn) Write(b []byte) (int, error) {
	c.hang.wait()
	return c.Conn.Write(b)
}

type hangingListener struct {
	net.Listener
	hang *hang
}

func (l hangingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return hangingConn{c, l.hang}, err
}

// slowly makes the rounds of a process those that the test makes.
func slowly(o *Options) { o.PingEvery = time.Hour }

// startHanging runs a process that hangs while h is locked.
func startHanging(t *testing.T, k int, h *hang) *testNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, hangingListener{l, h}, k, slowly, func(o *Options) {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return hangingConn{c, h}, nil
		}
	})
}

func (p *Peers) peer(uuid string) *peer {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.registry.peers[uuid]
}

// A process that hangs keeps its connections, and is not up; one that has nothing
// to say is.
func TestProcessThatHangsIsNotUp(t *testing.T) {
	var h hang
	a, b := start(t, 1, slowly), startHanging(t, 2, &h)
	acquaint(a, b)
	eventually(t, "connected", func() bool { return a.up(2) && b.up(1) })
	q := a.peer("uuid-2")
	for range 10 {
		q.round()
		eventually(t, "a ping is answered", func() bool {
			quiet := q.hearing.quiet.Load()
			if quiet > 0 && quiet < quietRounds && !q.hearing.pinging.Load() {
				q.round() // from the second on each asks
			}
			return quiet == 0 && !q.hearing.pinging.Load()
		})
	}
	if !a.up(2) || !a.Up(20) || !a.Up(21) {
		t.Error("a process that answers is not up")
	}

	h.Lock()
	rounds := 0
	for ; a.up(2); rounds++ {
		q.round()
	}
	if rounds <= quietRounds {
		t.Errorf("it was up for %d rounds only", rounds)
	}
	for _, st := range a.Status() {
		if st.Since.IsZero() || a.Up(20) || a.Up(21) {
			t.Errorf("a process that hangs: %+v", st)
		}
	}
	if got := a.log.String(); strings.Count(got, "does not answer: does it, or its machine, hang?") != 1 {
		t.Errorf("log: %s", got)
	}
	h.Unlock()
	eventually(t, "it goes on", func() bool { return a.Up(21) && a.up(2) })
}

// again starts a process with the identity of another one, as its next start.
func (n *testNode) again(t *testing.T, k int) *testNode {
	t.Helper()
	return start(t, k, slowly, func(o *Options) { o.Self.Epoch = n.opt.Self.Epoch + 1 })
}

// A copy of the folders of a process that runs, started elsewhere, is refused, and
// takes nothing from the process; once that one is gone it is its next start.
func TestLaterStartOfProcessThatRuns(t *testing.T) {
	a, b := start(t, 1, slowly), start(t, 2, slowly)
	acquaint(a, b)
	eventually(t, "connected", func() bool { return a.up(2) && b.up(1) })
	if err := a.Ping(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	c := b.again(t, 2)
	c.SetNodes(a.nodes())
	eventually(t, "the copy is told so", func() bool {
		return strings.Contains(c.log.String(), "is at start 2, while its start 1 runs at "+b.addr+": a copied folder?")
	})
	if err := a.Ping(t.Context(), 20); err != nil || a.peer("uuid-2").addr() != b.addr || c.up(1) {
		t.Errorf("the process that runs: %v, taken to be at %s", err, a.peer("uuid-2").addr())
	}
	b.kill()
	eventually(t, "the next start", func() bool { return a.up(2) && c.up(1) && a.peer("uuid-2").addr() == c.addr })
}

// A process that hangs does not keep its next start out: its machine may have
// been cut from power, which leaves connections behind.
func TestNextStartOfProcessThatHangs(t *testing.T) {
	var h hang
	a, b := start(t, 1, slowly), startHanging(t, 2, &h)
	acquaint(a, b)
	eventually(t, "connected", func() bool { return a.up(2) && b.up(1) })
	if err := a.Ping(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	h.Lock()
	defer h.Unlock()
	c := b.again(t, 2)
	c.SetNodes(a.nodes())
	eventually(t, "the next start", func() bool { return c.up(1) && a.peer("uuid-2").addr() == c.addr })
}
