package server

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/rpc"
)

// The catalogue says where the other nodes are. If most of them have come back at
// other addresses it does not, and cannot be told without most of them. Then nodes
// look for each other: where -join and the last start had them, and where those
// whom they have met say that others are. What is heard is a hint: whom the
// handshake does not show to be the process of that UUID, in this cluster and with
// its secret, is told nothing and believed nothing. Nobody joins anything by this.

// methodPeers asks a node which others it has a connection to, and where.
const methodPeers = "peers"

// seekEvery is how often a node that lacks a quorum, or a leader, looks for the others.
const seekEvery = time.Second

// seekPeers looks for the other nodes while too few of those that vote are
// reached, or none that leads.
func (n *Node) seekPeers(ctx context.Context) {
	for pauseFor(ctx, seekEvery) == nil {
		if reached, voters, _ := n.quorum(); reached <= voters/2 || n.host.Status(dsdb.MetaGroup).LeaderNode == 0 {
			n.seek(ctx)
			n.askWhyRefused(ctx)
		}
	}
}

// askWhyRefused asks the other nodes, if some refuse this one, whether it has been
// dropped. A node may be sent nothing more of the catalogue before that is in it.
func (n *Node) askWhyRefused(ctx context.Context) {
	refused := func(st rpc.PeerStatus) bool { return st.Refusal != "" }
	if n.phase.err() != nil || !slices.ContainsFunc(n.peers.Status(), refused) {
		return
	}
	c := newPeerClient(n.door.outgoing)
	defer c.CloseIdleConnections()
	for _, p := range n.meta.View().Processes {
		if p.UUID == n.id.UUID || p.Gone() || p.MetaHTTPAddr == "" {
			continue
		}
		s, err := c.status(ctx, p.MetaHTTPAddr, n.starter())
		if err == nil && s.UUID == p.UUID && s.Refuses != "" {
			n.phase.wait(s.Refuses)
			n.log.Error(s.Refuses, "says", p.MetaHTTPAddr)
			return
		}
	}
}

// seek looks once for the other nodes of the cluster at addresses that the
// catalogue does not have.
func (n *Node) seek(ctx context.Context) {
	status := n.peers.Status()
	var wg sync.WaitGroup
	for uuid, addr := range n.sightings(ctx, status) {
		if uuid == n.id.UUID || addr == "" || reachedAt(status, uuid, addr) {
			continue
		}
		wg.Go(func() {
			if err := n.peers.Meet(ctx, uuid, addr); err != nil {
				n.log.Debug("a node is not where it was said to be", "process", uuid, "tcp_addr", addr, "err", err)
				return
			}
			n.log.Info("found a node of the cluster at another address", "process", uuid, "tcp_addr", addr)
		})
	}
	wg.Wait()
}

// reachedAt reports whether nothing is to be learned of a process that is said to
// be at an address.
func reachedAt(status []rpc.PeerStatus, uuid, addr string) bool {
	for _, st := range status {
		if st.Process.UUID == uuid {
			return st.Up || st.Process.Addr == addr
		}
	}
	return true // not of this cluster, as far as is known here
}

// sightings returns the cluster addresses at which processes are said to be.
func (n *Node) sightings(ctx context.Context, status []rpc.PeerStatus) map[string]string {
	seen := map[string]string{}
	list, err := n.others()
	if err != nil {
		n.log.Warn("where other nodes were is not known", "err", err)
	}
	j := &joining{n: n, id: n.id, list: list, client: newPeerClient(n.door.outgoing)}
	defer j.client.CloseIdleConnections()
	for _, a := range j.askAll(ctx) {
		if a.err == nil && a.status.Cluster == strconv.FormatUint(n.id.ClusterID, 10) {
			seen[a.status.UUID] = a.status.TCPAddr
		}
	}
	for _, st := range status {
		p, known := n.meta.View().Process(st.Process.UUID)
		if !st.Up || !known {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, askWait)
		b, err := n.call(ctx, p.ID(), methodPeers, nil)
		cancel()
		var theirs map[string]string
		if err != nil || json.Unmarshal(b, &theirs) != nil {
			continue // it is asked again
		}
		for uuid, addr := range theirs {
			seen[uuid] = addr
		}
	}
	return seen
}

// servePeers answers the call "peers": UUIDs and cluster addresses.
func (n *Node) servePeers(context.Context, rpc.Process, []byte) ([]byte, error) {
	reached := map[string]string{}
	for _, st := range n.peers.Status() {
		if st.Up {
			reached[st.Process.UUID] = st.Process.Addr
		}
	}
	return json.Marshal(reached)
}

// findsItself reports whether this node finds itself at the addresses that it tells others.
func (n *Node) findsItself(ctx context.Context, a meta.Addresses) bool {
	host, _, err := net.SplitHostPort(a.TCPAddr)
	for _, other := range []string{a.HTTPAddr, a.MetaHTTPAddr} {
		if h, _, err2 := net.SplitHostPort(other); other != "" && (err2 != nil || h != host) {
			return false
		}
	}
	return err == nil && n.peers.Leads(ctx, a.TCPAddr)
}
