package rpc

import (
	"context"
	"errors"

	"github.com/dasudian/dsdb"
)

// Meet looks whether a process of the cluster is at an address that is not its own
// as far as is known here. If it is there, and proves who it is, it is reached from
// then on at the address that it gives itself, and knows where this one is.
// Nothing but the handshake is sent to whoever is there before that.
func (p *Peers) Meet(ctx context.Context, uuid, addr string) error {
	p.mu.RLock()
	q := p.registry.peers[uuid]
	p.mu.RUnlock()
	if q == nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "process %s is not known here", uuid)
	}
	c, err := q.dialAt(ctx, addr, streaming)
	if err == nil && !q.streams.put(c) {
		c.end()
	}
	return err
}

// Leads reports whether an address leads to this process.
func (p *Peers) Leads(ctx context.Context, addr string) bool {
	q := p.newPeer(p.opt.Self.UUID)
	defer q.remove()
	c, err := q.dialAt(ctx, addr, streaming)
	if err == nil {
		c.end()
	}
	var r *refusal
	return errors.As(err, &r) && r.reason == badSelf
}
