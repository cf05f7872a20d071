package rpc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
)

func secret(s string) func(*Options) {
	return func(o *Options) { o.Secret = []byte(s) }
}

// Whoever does not belong here gets nothing but the reason.
func TestTSEC17StrangersAreRefused(t *testing.T) {
	self := func(f func(*Process)) func(*Options) { return func(o *Options) { f(&o.Self) } }
	for _, c := range []struct {
		name           string
		dialer, server func(*Options)
		before         func(a, b *testNode)
		want           string
	}{
		{name: "other cluster", dialer: self(func(p *Process) { p.Cluster = 78 }), want: "is of cluster"},
		{name: "wrong secret", dialer: secret("one"), server: secret("two"), want: "has another shared secret"},
		{name: "secret missing", server: secret("two"), want: "has none"},
		{name: "secret where none is known", dialer: secret("one"), want: "has none"},
		{name: "another process has the id", want: "node 10 is process uuid-9, not uuid-1",
			before: func(_, b *testNode) { b.SetNodes([]Node{{ID: 10, UUID: "uuid-9"}}) }},
		{name: "removed", want: "has been removed from the cluster",
			before: func(a, b *testNode) { b.SetNodes(a.nodes()); b.SetNodes(nil) }},
		{name: "no ids", dialer: self(func(p *Process) { p.MetaID, p.DataID = 0, 0 }), want: "has no identity"},
		{name: "our ids", dialer: self(func(p *Process) { p.DataID = 21 }), want: "which are this one's"},
		{name: "our UUID", dialer: self(func(p *Process) { p.UUID = "uuid-2" }), want: "which are this one's",
			before: func(a, b *testNode) { a.SetNodes([]Node{{ID: 21, UUID: "uuid-8", Addr: b.addr}}) }},
		{name: "not whom the dialer wants", want: "where uuid-8 is expected",
			before: func(a, b *testNode) { a.SetNodes([]Node{{ID: 21, UUID: "uuid-8", Addr: b.addr}}) }},
		{name: "oneself", want: "leads back to this process",
			before: func(a, b *testNode) { a.SetNodes([]Node{{ID: 21, UUID: "uuid-2", Addr: a.addr}}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.dialer == nil {
				c.dialer = func(*Options) {}
			}
			if c.server == nil {
				c.server = func(*Options) {}
			}
			b := start(t, 2, c.server)
			b.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) {
				t.Error("a stranger's call was served")
				return body, nil
			})
			a := start(t, 1, c.dialer)
			if c.before != nil {
				c.before(a, b)
			}
			if _, err := a.lookup(21); err != nil {
				a.SetNodes(b.nodes())
			}
			_, err := a.Call(t.Context(), 21, "echo", nil)
			if dsdb.KindOf(err) != dsdb.KindUnavailable || !strings.Contains(err.Error(), c.want) {
				t.Fatal(err)
			}
			if s := b.Status(); len(s) > 0 && s[0].Up || b.raft.count() > 0 {
				t.Fatalf("%+v", s)
			}
			// Said once for each reason, however often it is tried.
			for range 3 {
				q, _ := a.lookup(21)
				_, _ = q.dial(t.Context(), control)
			}
			eventually(t, "said", func() bool { return strings.Contains(a.log.String(), "peer refused") })
			if n := strings.Count(a.log.String(), "peer refused"); n > 2 {
				t.Fatalf("%d lines: %s", n, a.log)
			}
		})
	}
}

func TestThoseWhoShareASecretMeet(t *testing.T) {
	a, b := start(t, 1, secret("one")), start(t, 2, secret("one"))
	acquaint(a, b)
	b.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
	if _, err := a.Call(t.Context(), 21, "echo", nil); err != nil {
		t.Fatal(err)
	}
	s := b.Status()
	if len(s) != 1 || !s[0].Up || s[0].Authenticated != "secret" || s[0].Process.MetaID != 10 || s[0].Process.DataID != 11 || s[0].Since.IsZero() {
		t.Fatalf("%+v", s)
	}
}

// A folder that was copied or restored must not take the place of the process
// that went on with the other one.
func TestACopyOfAProcessIsRefused(t *testing.T) {
	at := func(epoch uint64) func(*Options) { return func(o *Options) { o.Self.Epoch = epoch } }
	b := start(t, 2)
	reach := func(epoch uint64) error {
		a := start(t, 1, at(epoch))
		a.SetNodes(b.nodes())
		q, _ := a.lookup(21)
		c, err := q.dial(t.Context(), streaming)
		if err == nil {
			c.end()
		}
		return err
	}
	for _, c := range []struct {
		epoch uint64
		want  string
	}{{5, ""}, {4, "is at start 4, of which start 5 was seen"}, {5, "a copied or restored folder"}, {6, ""}, {5, "start 6 was seen"}} {
		if err := reach(c.epoch); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Fatalf("start %d: %v", c.epoch, err)
		}
	}
}

// recording keeps what is written to a connection.
type recording struct {
	net.Conn
	mu  *sync.Mutex
	log *bytes.Buffer
}

func (r *recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.log.Write(b)
	r.mu.Unlock()
	return r.Conn.Write(b)
}

func TestTSEC17AReplayedHandshakeIsRefused(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	b := start(t, 2, secret("one"))
	a := start(t, 1, secret("one"), func(o *Options) {
		o.Dial = func(_ context.Context, addr string) (net.Conn, error) {
			c, err := net.Dial("tcp", addr)
			return &recording{c, &mu, &log}, err
		}
	})
	a.registry.peers["uuid-2"] = a.newPeer("uuid-2")
	a.registry.peers["uuid-2"].process.Addr = b.addr
	c, err := a.registry.peers["uuid-2"].dial(t.Context(), control)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "met", func() bool { return b.up(1) })
	c.end()
	eventually(t, "parted", func() bool { return !b.up(1) })
	before := b.Metrics().Refused.Load()
	raw, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	mu.Lock()
	replay := append(bytes.Clone(log.Bytes()), appendFrame(nil, kindRaft, nil)...)
	mu.Unlock()
	if _, err := raw.Write(replay); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(raw)
	if !bytes.Contains(answer, []byte("another shared secret, or repeats an old handshake")) {
		t.Fatalf("%q", answer)
	}
	if b.up(1) || b.Metrics().Refused.Load() != before+1 {
		t.Fatal("believed")
	}
}

// speak upgrades a raw connection and returns the handshake of a dialer on it.
func speak(t *testing.T, b *testNode) *exchange {
	t.Helper()
	raw, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	c := &conn{Conn: raw, r: bufio.NewReader(raw)}
	if err := request(c, b.addr); err != nil {
		t.Fatal(err)
	}
	x := &exchange{r: c.r, w: raw, judge: func(*greeting, bool) error { return nil }}
	x.self = greeting{oldest: 1, newest: 1, process: Process{Cluster: 77, UUID: "uuid-5", MetaID: 50, Epoch: 1, Addr: "x:1"}}
	return x
}

func TestProtocolsMustOverlap(t *testing.T) {
	b := start(t, 2)
	x := speak(t, b)
	x.self.newest = 9
	if _, err := x.dial(); err != nil {
		t.Fatal(err) // 1 to 9 holds ours
	}
	x = speak(t, b)
	x.self.oldest, x.self.newest = 2, 9
	if _, err := x.dial(); err == nil || !strings.Contains(err.Error(), "speaks protocol 2 to 9, this one 1 to 1") {
		t.Fatal(err)
	}
}

func TestTSEC17WhatIsNoHandshakeIsClosed(t *testing.T) {
	b := start(t, 2)
	for _, garbage := range [][]byte{
		bytes.Repeat([]byte{0xff}, 100), // a frame of 4 GiB
		appendFrame(nil, kindRaft, nil),
		appendFrame(nil, kindHello, []byte{1, 0, 1, 0, 77}),
		appendFrame(nil, kindHello, make([]byte, maxGreeting+1)),
	} {
		x := speak(t, b)
		if _, err := x.w.Write(garbage); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(x.r)
		if bytes.Contains(rest, []byte("uuid-2")) {
			t.Fatalf("%q", rest)
		}
	}
	if s := b.Status(); len(s) > 0 {
		t.Fatalf("%+v", s)
	}
	resp, err := http.Get(fmt.Sprintf("http://%s/peer", b.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Fatal(resp.Status)
	}
}

func FuzzGreeting(f *testing.F) {
	g := greeting{oldest: 1, newest: 1, secret: true, instance: 9, process: Process{Cluster: 7, UUID: "u", MetaID: 1, DataID: 2, Epoch: 3, Addr: "a:1", Version: "v"}}
	f.Add(appendGreeting(nil, &g))
	g.newest, g.class = 7, streaming
	f.Add(appendGreeting(nil, &g))
	f.Add([]byte{2, 0, 3, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeGreeting(b)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			return
		}
		if g.oldest > newestProtocol || g.newest < oldestProtocol {
			return
		}
		if again, err := decodeGreeting(appendGreeting(nil, &g)); err != nil || again != g {
			t.Fatalf("%+v %+v %v", g, again, err)
		}
	})
}
