package rpc

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// maxHandshakes bounds the incoming connections that have not shown yet who they are.
const maxHandshakes = 64

// handshakes are the places for incoming connections that have not shown yet who
// they are. When there is none, one who comes from elsewhere takes that of the
// oldest from where most come: who opens connections and says nothing keeps out
// nobody but those at the same address.
type handshakes struct {
	mu     sync.Mutex
	places []*place // guarded by mu; in the order in which they were taken
}

// place is one of them. Its ctx ends when it is given to another.
type place struct {
	owner  *handshakes
	source netip.Prefix
	ctx    context.Context
	cut    context.CancelFunc
}

// enter takes a place for a connection from an address, nil if there is none.
func (h *handshakes) enter(ctx context.Context, address string) *place {
	q := &place{owner: h, source: sourceOf(address)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.places) >= maxHandshakes && !h.clear(q.source) {
		return nil
	}
	q.ctx, q.cut = context.WithCancel(ctx)
	h.places = append(h.places, q)
	return q
}

// clear takes a place from those who hold most, unless source is among these.
// The caller holds mu.
func (h *handshakes) clear(source netip.Prefix) bool {
	held := map[netip.Prefix]int{}
	most := 0
	for _, q := range h.places {
		held[q.source]++
		most = max(most, held[q.source])
	}
	if held[source] >= most {
		return false
	}
	i := slices.IndexFunc(h.places, func(q *place) bool { return held[q.source] == most })
	h.places[i].cut()
	h.places = slices.Delete(h.places, i, i+1)
	return true
}

// leave gives the place back. One that was taken away is not given back again.
func (q *place) leave() {
	q.cut()
	q.owner.mu.Lock()
	defer q.owner.mu.Unlock()
	q.owner.places = slices.DeleteFunc(q.owner.places, func(other *place) bool { return other == q })
}

// sourceOf returns who is behind the address of a connection: of IPv6 the
// network, in which one machine has addresses without number.
func sourceOf(address string) netip.Prefix {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip := a.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	network, _ := ip.Prefix(bits) // bits are fewer than it has
	return network
}
