package server

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
)

// How a node that is to join asks.
const (
	askTimeout   = 3 * time.Second  // for the status of another node
	joinTimeout  = 15 * time.Second // for being admitted
	joinBackOff  = 250 * time.Millisecond
	joinSlowest  = 4 * time.Second // the longest pause between two rounds
	remainWait   = time.Second     // for the nodes that a member is to join, and does not need
	maxRedirects = 5
	maxAnswer    = 4 << 20 // bytes
)

// becomeMember returns the identity of this node as a member of a cluster: the
// one it has, one in a cluster that it founds, or one in a cluster that it
// joins. It waits as long as it takes.
func (n *Node) becomeMember(ctx context.Context, id meta.Identity) (meta.Identity, error) {
	list, err := n.cfg.Meta.Peers()
	if err != nil {
		return id, err
	}
	if id.ClusterID != 0 {
		return id, n.remain(ctx, id, list)
	}
	if len(list) == 0 {
		if n.opt.Replace != 0 {
			return id, fmt.Errorf("--replace %d wants -join: the address of a node of the cluster", n.opt.Replace)
		}
		n.log.Info("founding a cluster: the folders are empty, and there is no -join. If this node has run before, stop it: its disk is not mounted, or its folders are lost",
			"meta", n.cfg.Meta.Dir, "data", n.cfg.Data.Dir, "wal", n.cfg.Data.WALDir)
		return n.foundCluster(id)
	}
	if n.addrs.TCP == "" || n.addrs.MetaHTTP == "" {
		return id, errors.New("a node that joins a cluster wants [meta] bind-address and http-bind-address")
	}
	if err := n.reachable(list); err != nil {
		return id, err
	}
	if err := meta.WriteIdentity(n.fs, n.cfg.Meta.Dir, id); err != nil { // who asks twice is to be the same node
		return id, err
	}
	j := &joining{n: n, id: id, list: list, client: newPeerClient(n.door.outgoing)}
	defer j.client.CloseIdleConnections()
	return j.run(ctx)
}

// remain makes sure that a node which is a member of a cluster is not meant to
// be one of another.
func (n *Node) remain(ctx context.Context, id meta.Identity, list []string) error {
	if len(list) == 0 {
		return nil
	}
	n.log.Info("join is no more than a hint where other nodes may be: this node is a member of a cluster already", "cluster", id.ClusterID, "meta_id", id.MetaID, "data_id", id.DataID)
	j := &joining{n: n, id: id, list: list, client: newPeerClient(n.door.outgoing)}
	defer j.client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, remainWait)
	defer cancel()
	for i, a := range j.askAll(ctx) {
		if a.err == nil && a.status.Cluster != "" && a.status.Cluster != strconv.FormatUint(id.ClusterID, 10) {
			return fmt.Errorf("%s and %s are of cluster %d, but %s, which this node is to join, is of cluster %s: move the folders away to join that one, or take the address out of -join",
				n.cfg.Meta.Dir, n.cfg.Data.Dir, id.ClusterID, list[i], a.status.Cluster)
		}
	}
	return nil
}

// foundCluster makes the identity of the first node of a cluster.
func (n *Node) foundCluster(id meta.Identity) (meta.Identity, error) {
	if !n.cfg.Meta.Enabled {
		return id, errors.New("server not set to join existing cluster must run also as a meta node")
	}
	id.ClusterID, id.MetaID, id.Replica = randomID(), founderMeta, founder
	if n.cfg.Data.Enabled {
		id.DataID = founderData
	}
	return id, n.settle(id)
}

// reachable refuses to join nodes elsewhere while telling them an address at
// which everybody finds only himself.
func (n *Node) reachable(list []string) error {
	host, _, err := net.SplitHostPort(n.addrs.TCP)
	if err != nil || !isLoopbackHost(host) || mutant.LoopbackTold {
		return err
	}
	for _, a := range list {
		if h, _, err := net.SplitHostPort(a); err == nil && !standsForLoopback(h) {
			return fmt.Errorf("this node would tell the cluster that it is reached at %s, where every machine finds only itself: set hostname to the name or address of this machine (or [meta] bind-address and http-bind-address to it), then start it again", n.addrs.TCP)
		}
	}
	return nil
}

// isLoopbackHost reports whether a host, as it is written, is loopback on every machine.
func isLoopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// standsForLoopback reports whether a host is loopback here, by its address or its name.
func standsForLoopback(host string) bool {
	if isLoopbackHost(host) {
		return true
	}
	ips, err := lookup(host)
	return err == nil && !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !ip.Unmap().IsLoopback() })
}

// joining is a node on its way into a cluster.
type joining struct {
	n      *Node
	id     meta.Identity
	list   []string // the addresses of -join
	client *peerClient
}

// run asks round after round, until the node is a member or is refused for good.
func (j *joining) run(ctx context.Context) (meta.Identity, error) {
	for pause := joinBackOff; ; pause = min(2*pause, joinSlowest) {
		id, waits, err := j.round(ctx)
		if err != nil || waits == "" {
			return id, err
		}
		j.n.phase.say(j.n.log, waits)
		if err := pauseFor(ctx, pause); err != nil {
			return j.id, fmt.Errorf("joining was given up, waiting for %s: %w", waits, err)
		}
	}
}

// round asks all nodes of the list for their status and, where there is a
// cluster, to be admitted. waits says what it waits for if it is not over.
func (j *joining) round(ctx context.Context) (id meta.Identity, waits string, err error) {
	answers := j.askAll(ctx)
	me, without := -1, 0
	var trouble []string
	for i, a := range answers {
		switch {
		case a.err != nil:
			trouble = append(trouble, fmt.Sprintf("%s: %v", j.list[i], a.err))
		case a.status.Instance == instanceText(j.n.door.instance):
			me = i
			without++
		case a.status.Cluster == "" || mutant.EachFoundsItsOwn:
			without++
		default:
			id, err := j.ask(ctx, j.list[i])
			if err == nil || !retryable(err) {
				return id, "", err
			}
			trouble = append(trouble, fmt.Sprintf("%s: %v", j.list[i], err))
		}
	}
	if ctx.Err() != nil {
		return j.id, "", ctx.Err()
	}
	if me == 0 && 2*without > len(j.list) || mutant.EachFoundsItsOwn {
		j.n.log.Info("founding a cluster: this node is the first of the -join list, and most of the list know of none", "asked", len(j.list), "answered", without)
		id, err := j.n.foundCluster(j.id)
		return id, "", err
	}
	return j.id, j.waitsFor(me, without, trouble), nil
}

// waitsFor words what a round lacked.
func (j *joining) waitsFor(me, without int, trouble []string) string {
	text := fmt.Sprintf("%s to found or join a cluster", j.list[0])
	switch {
	case me == 0:
		text = fmt.Sprintf("most of the -join list to answer, so that this node, the first of it, may found the cluster: %d of %d have", without, len(j.list))
	case without == 0:
		text = "a node of the cluster to admit this one"
	}
	if len(trouble) > 0 {
		text += " (" + strings.Join(trouble, "; ") + ")"
	}
	return text
}

// answer is what one node said about itself, or why it did not.
type answer struct {
	status nodeStatus
	err    error
}

// askAll asks the nodes of the list at the same time.
func (j *joining) askAll(ctx context.Context) []answer {
	answers := make([]answer, len(j.list))
	done := make(chan struct{})
	for i, address := range j.list {
		go func() {
			answers[i].status, answers[i].err = j.client.status(ctx, address, starter{UUID: j.id.UUID})
			done <- struct{}{}
		}()
	}
	for range j.list {
		<-done
	}
	return answers
}

// ask asks the node at an address to be admitted, following it to the leader.
func (j *joining) ask(ctx context.Context, address string) (meta.Identity, error) {
	n := j.n
	body, err := json.Marshal(joinRequest{UUID: j.id.UUID, Meta: n.cfg.Meta.Enabled || mutant.RolesIgnored, Data: n.cfg.Data.Enabled || mutant.RolesIgnored,
		Addresses: n.addresses(), Replace: n.opt.Replace, Instance: n.door.instance})
	if err != nil {
		return j.id, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	for range maxRedirects {
		joined, next, err := j.post(ctx, address, body)
		if err != nil {
			return j.id, err
		}
		if next != "" {
			address = next
			continue
		}
		id := j.id
		id.ClusterID, id.MetaID, id.DataID, id.Replica = joined.Cluster, joined.MetaID, joined.DataID, joined.Replica
		n.log.Info("joined a cluster", "by", address, "cluster", id.ClusterID, "meta_id", id.MetaID, "data_id", id.DataID)
		return id, n.settle(id)
	}
	return j.id, dsdb.Errorf(dsdb.KindUnavailable, "the nodes of the cluster do not agree on who leads")
}

// post asks one node to admit this one. next is whom to ask instead.
func (j *joining) post(ctx context.Context, address string, body []byte) (joined meta.Joined, next string, err error) {
	secret, err := j.n.cfg.Meta.Secret()
	if err != nil {
		return joined, "", err
	}
	nonce := ""
	if secret != nil {
		if nonce, err = j.nonce(ctx, address); err != nil {
			return joined, "", err
		}
	}
	rq, err := http.NewRequestWithContext(ctx, http.MethodPost, j.client.url(address, "/join"), bytes.NewReader(body))
	if err != nil {
		return joined, "", err
	}
	rq.Header.Set("Content-Type", "application/json")
	if nonce != "" {
		rq.Header.Set(nonceHeader, nonce)
		rq.Header.Set(proofHeader, proof(secret, "join", nonce, body))
	}
	rs, answer, err := j.client.do(rq)
	if err != nil {
		return joined, "", err
	}
	switch {
	case rs.StatusCode == http.StatusTemporaryRedirect:
		to, err := rs.Location()
		if err != nil {
			return joined, "", fmt.Errorf("%s: redirect: %w", address, err)
		}
		return joined, to.Host, nil
	case rs.StatusCode != http.StatusOK:
		return joined, "", refusal(address, rs.StatusCode, answer)
	case nonce != "" && !hmac.Equal([]byte(rs.Header.Get(proofHeader)), []byte(proof(secret, "joined", nonce, answer))):
		return joined, "", dsdb.Errorf(dsdb.KindUnauthorized, "%s does not know the shared secret of this node: set [meta] shared-secret on all nodes or on none", address)
	}
	joined, err = meta.DecodeJoined(answer)
	return joined, "", err
}

// nonce gets what is to be signed with the shared secret.
func (j *joining) nonce(ctx context.Context, address string) (string, error) {
	rq, err := http.NewRequestWithContext(ctx, http.MethodGet, j.client.url(address, "/join"), nil)
	if err != nil {
		return "", err
	}
	rs, answer, err := j.client.do(rq)
	if err != nil {
		return "", err
	}
	if rs.StatusCode != http.StatusOK {
		return "", refusal(address, rs.StatusCode, answer)
	}
	return string(answer), nil
}

// refusal turns an answer that is no success into an error, of which only some
// are worth another try.
func refusal(address string, code int, answer []byte) error {
	kind := dsdb.KindConflict
	switch {
	case code == http.StatusUnauthorized:
		kind = dsdb.KindUnauthorized
	case code >= 500 || code == http.StatusNotFound: // a listener that is not all there yet
		kind = dsdb.KindUnavailable
	}
	return dsdb.Errorf(kind, "%s refuses this node: %s", address, strings.TrimSpace(string(answer)))
}

// retryable reports whether asking again may help.
func retryable(err error) bool {
	switch dsdb.KindOf(err) {
	case dsdb.KindConflict, dsdb.KindUnauthorized, dsdb.KindInvalid:
		return false
	}
	return true
}

// peerClient asks at the [meta] addresses of other nodes.
type peerClient struct {
	http.Client
	scheme string
}

func newPeerClient(secure *tls.Config) *peerClient {
	c := &peerClient{scheme: "http", Client: http.Client{Transport: &http.Transport{TLSClientConfig: secure.Clone()},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if secure != nil {
		c.scheme = "https"
	}
	return c
}

func (c *peerClient) url(address, path string) string { return c.scheme + "://" + address + path }

// do sends a request and reads the answer, which must not be long.
func (c *peerClient) do(rq *http.Request) (*http.Response, []byte, error) {
	rs, err := c.Do(rq)
	if err != nil {
		return nil, nil, dsdb.Errorf(dsdb.KindUnavailable, "%w", plain(err))
	}
	defer rs.Body.Close()
	b, err := io.ReadAll(io.LimitReader(rs.Body, maxAnswer))
	if err != nil {
		return nil, nil, dsdb.Errorf(dsdb.KindUnavailable, "%w", err)
	}
	return rs, b, nil
}

// plain takes method and URL from an error of net/http, which the caller knows.
func plain(err error) error {
	type unwrapper interface{ Unwrap() error }
	if u, ok := err.(unwrapper); ok && u.Unwrap() != nil {
		return u.Unwrap()
	}
	return err
}

// status asks the node at a [meta] address who it is, and what it holds against
// the start of a process that asks.
func (c *peerClient) status(ctx context.Context, address string, by starter) (s nodeStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	rq, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(address, "/status?cluster&"+by.query()), nil)
	if err != nil {
		return s, err
	}
	rs, b, err := c.do(rq)
	if err != nil {
		return s, err
	}
	if rs.StatusCode != http.StatusOK {
		return s, fmt.Errorf("is it the [meta] http-bind-address of a node? It answers %s", rs.Status)
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Instance == "" {
		return s, errors.New("is it the [meta] http-bind-address of a node? It answers something else")
	}
	return s, nil
}

// twin refuses to start while another process answers where this node is, or
// was when it was last started: one with the same identity has the folders of
// which these are a copy.
func (n *Node) twin(ctx context.Context) error {
	var self meta.Process
	if n.meta != nil { // its file is whole
		self, _ = n.meta.View().Process(n.id.UUID)
	}
	c := newPeerClient(n.door.outgoing)
	defer c.CloseIdleConnections()
	for _, address := range []string{self.MetaHTTPAddr, n.addrs.MetaHTTP} {
		if address == "" {
			continue
		}
		s, err := c.status(ctx, address, n.starter())
		if err != nil || s.Instance == instanceText(n.door.instance) {
			continue // nobody there, or no other; that this node does not reach itself need not keep others from it
		}
		if s.UUID == n.id.UUID {
			err := fmt.Errorf("node %d runs already and answers at %s: the folders of this one are a copy of that one's; start it with empty folders and -join to make it a node of its own", n.id.Peer(), address)
			if s.State == stateRunning {
				err = n.renounce(err)
			}
			return err
		}
		if address == n.addrs.MetaHTTP {
			return fmt.Errorf("another node (process %s) answers at %s, which this one tells the cluster to be its own address: give it one of its own", s.UUID, address)
		}
	}
	return nil
}
