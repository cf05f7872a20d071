package rpc

import (
	"context"
	"net"
	"strings"
	"testing"
)

// Two processes that know each other at addresses of the past meet as soon as one
// of them is told where the other is now.
func TestWhoMovedIsMet(t *testing.T) {
	a, b := start(t, 1, secret("one")), start(t, 2, secret("one"))
	a.SetNodes([]Node{{ID: 20, UUID: "uuid-2", Addr: "127.0.0.1:1"}, {ID: 21, UUID: "uuid-2", Addr: "127.0.0.1:1"}})
	b.SetNodes([]Node{{ID: 10, UUID: "uuid-1", Addr: "127.0.0.1:1"}, {ID: 11, UUID: "uuid-1", Addr: "127.0.0.1:1"}})
	if err := a.Meet(t.Context(), "uuid-2", b.addr); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both reach each other", func() bool { return a.up(2) && b.up(1) })
	b.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
	if _, err := a.Call(t.Context(), 21, "echo", nil); err != nil {
		t.Fatal(err)
	}
	// The catalogue, which does not know of it yet, changes nothing.
	a.SetNodes([]Node{{ID: 20, UUID: "uuid-2", Addr: "127.0.0.1:1"}, {ID: 21, UUID: "uuid-2", Addr: "127.0.0.1:1"}, {ID: 31, UUID: "uuid-3"}})
	if s := a.Status(); s[0].Process.Addr != b.addr {
		t.Errorf("reached at %s, is at %s", s[0].Process.Addr, b.addr)
	}
	if err := a.Meet(t.Context(), "uuid-9", b.addr); err == nil {
		t.Error("a process that nobody knows was met")
	}
}

// Whoever is at the address must be that process, of that cluster, with the secret:
// he gets the handshake and nothing else, and the address stays what it was.
func TestWhoPretendsToHaveMovedIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"another process": {func(o *Options) { o.Self.UUID, o.Self.MetaID, o.Self.DataID = "uuid-7", 70, 71 }, "where uuid-2 is expected"},
		"another cluster": {func(o *Options) { o.Self.Cluster = 78 }, "is of cluster"},
		"another secret":  {secret("two"), "has another shared secret"},
		"no secret":       {secret(""), "has none"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, 1, secret("one")), start(t, 2, secret("one"), c.change)
			a.SetNodes([]Node{{ID: 20, UUID: "uuid-2", Addr: "127.0.0.1:1"}})
			if err := a.Meet(t.Context(), "uuid-2", b.addr); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if s := a.Status()[0]; s.Up || s.Process.Addr != "127.0.0.1:1" || b.raft.count() > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAddressesThatLeadHere(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if !a.Leads(t.Context(), a.addr) || a.Leads(t.Context(), b.addr) || a.Leads(t.Context(), l.Addr().String()) {
		t.Errorf("own %v, another's %v, nobody's %v", a.Leads(t.Context(), a.addr), a.Leads(t.Context(), b.addr), a.Leads(t.Context(), l.Addr().String()))
	}
}
