package rpc

import (
	"context"
	"fmt"
	"net"
	"testing"
)

// Whoever takes all places for handshakes keeps out nobody from elsewhere, and
// loses but his own for them; what he asks for beyond that he does not get.
func TestPlacesAreSharedAmongAddresses(t *testing.T) {
	var h handshakes
	enter := func(from string) *place { return h.enter(t.Context(), from) }
	other := enter("10.0.0.2:1")
	var his []*place
	for i := range maxHandshakes - 1 {
		his = append(his, enter(fmt.Sprintf("10.0.0.1:%d", i)))
	}
	if enter("10.0.0.1:99") != nil || enter("[::ffff:10.0.0.1]:99") != nil {
		t.Error("he got one more place")
	}
	for i := range 30 {
		if p := enter(fmt.Sprintf("10.0.1.%d:1", i)); p == nil || p.ctx.Err() != nil {
			t.Fatalf("nothing for the %d. from elsewhere", i)
		}
		if his[i].ctx.Err() == nil || his[i+1].ctx.Err() != nil {
			t.Errorf("the place of the %d. was not that of his oldest", i)
		}
	}
	if len(h.places) != maxHandshakes || other.ctx.Err() != nil {
		t.Errorf("%d places are taken", len(h.places))
	}
	his[0].leave() // was taken away: leaves nothing
	if len(h.places) != maxHandshakes {
		t.Errorf("%d places are taken", len(h.places))
	}
	for i := range 100 { // one machine, as many addresses as it likes
		enter(fmt.Sprintf("[2001:db8:0:1:%x::1]:1", i))
	}
	if got := enter("[2001:db8:0:2::1]:1"); got == nil {
		t.Error("the network of one machine keeps out others")
	}
	if p := enter("10.0.0.3:1"); p != nil {
		p.leave()
	}
	if len(h.places) != maxHandshakes-1 {
		t.Errorf("%d places are taken", len(h.places))
	}
}

// Connections that say nothing, as many as there are places, keep no node from
// another address out.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	b := start(t, 2)
	for range maxHandshakes {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "GET /peer HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade); err != nil {
			t.Fatal(err)
		}
	}
	taken := func() int {
		b.handshakes.mu.Lock()
		defer b.handshakes.mu.Unlock()
		return len(b.handshakes.places)
	}
	eventually(t, "all places are taken", func() bool { return taken() == maxHandshakes })
	a := start(t, 1, func(o *Options) {
		o.Dial = func(_ context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
			return d.Dial("tcp", addr)
		}
	})
	a.SetNodes(b.nodes())
	q, _ := a.lookup(21)
	c, err := q.dial(t.Context(), calling)
	if err != nil {
		t.Fatal(err)
	}
	c.end()
}
