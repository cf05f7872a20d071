package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/rpc"
)

// The headers by which two nodes prove to each other that they know the shared secret.
const (
	nonceHeader = "X-Dsdb-Nonce"
	proofHeader = "X-Dsdb-Proof"
)

// The bounds on asking to be admitted.
const (
	maxJoin    = 64 << 10        // bytes of a request
	joinBody   = 5 * time.Second // until they are here
	dialBack   = 2 * time.Second // for reaching the node that asks
	admitWait  = 10 * time.Second
	statusWait = time.Second
)

// stateRunning is the state of a node whose start the cluster has accepted.
const stateRunning = "running"

// joinRequest is what a node that wants to join tells of itself.
type joinRequest struct {
	UUID string `json:"uuid"`
	Meta bool   `json:"meta"`
	Data bool   `json:"data"`
	meta.Addresses
	Replace  dsdb.NodeID `json:"replace,omitempty"`
	Instance uint64      `json:"instance"` // of this start

	// Of a member whose replica of the catalogue is damaged: which that is, and its start.
	Failed dsdb.ReplicaID `json:"failed,omitempty"`
	Epoch  uint64         `json:"epoch,omitempty"`
}

// nodeStatus is what a node tells anybody about itself.
type nodeStatus struct {
	Version  string         `json:"version"`
	Instance string         `json:"instance"` // of this start
	UUID     string         `json:"uuid"`
	Cluster  string         `json:"cluster,omitempty"` // "": it is in none yet
	MetaID   dsdb.NodeID    `json:"meta_id,omitempty"`
	DataID   dsdb.NodeID    `json:"data_id,omitempty"`
	TCPAddr  string         `json:"tcp_addr,omitempty"`
	State    string         `json:"state"` // running, starting, stopping
	Waiting  string         `json:"waiting,omitempty"`
	Leader   string         `json:"leader,omitempty"`  // [meta] http address of the leader of the meta nodes
	Voters   []string       `json:"voters,omitempty"`  // cluster addresses of the meta nodes that decide
	Refuses  string         `json:"refuses,omitempty"` // why the process that asks is no member any more
	Replica  dsdb.ReplicaID `json:"replica,omitempty"` // of the catalogue, that the process that asks is to have
}

// admitter is the API of [meta]: it tells how this node is, and where it leads
// the meta group, admits new nodes. Elsewhere it says whom to ask.
type admitter struct {
	n      *Node
	member atomic.Pointer[meta.Identity]
	secret []byte

	nonces *nonces

	admitting sync.Mutex // one node joins at a time
}

func newAdmitter(n *Node, id meta.Identity) *admitter {
	a := &admitter{n: n, nonces: newNonces()}
	a.secret, _ = n.cfg.Meta.Secret() // was read when the configuration was checked
	a.member.Store(&id)
	return a
}

// ServeHTTP answers /join, /status, /peers and /ping.
func (a *admitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Dsdb-Version", a.n.opt.Version)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case r.URL.Path == "/join" && r.Method == http.MethodPost:
		a.serveJoin(w, r)
	case r.URL.Path == "/join" && get:
		a.serveNonce(w)
	case !get:
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
	case r.URL.Path == "/status":
		s := a.status()
		if a.n.door.peers.Load() != nil {
			by := parseStarter(r.URL.Query())
			if p, found := a.n.meta.View().Process(by.UUID); found {
				s.Refuses = by.banned(p)
				r, _ := a.n.meta.View().MetaReplica(p)
				s.Replica = r.ID
			}
		}
		writeJSON(w, s)
	case r.URL.Path == "/peers":
		writeJSON(w, a.status().Voters)
	default: // /ping: who leads, as in InfluxDB 0.10
		leader, _ := a.leader()
		_, _ = io.WriteString(w, leader.TCPAddr) // the asker may be gone
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker may be gone
}

// status tells how this node is.
func (a *admitter) status() nodeStatus {
	n, id := a.n, a.member.Load()
	s := nodeStatus{Version: n.opt.Version, Instance: instanceText(n.door.instance), UUID: id.UUID,
		MetaID: id.MetaID, DataID: id.DataID, TCPAddr: n.addrs.TCP, State: stateRunning, Waiting: n.phase.waiting()}
	if id.ClusterID != 0 {
		s.Cluster = strconv.FormatUint(id.ClusterID, 10)
	}
	if n.phase.err() != nil {
		s.State = "starting"
	}
	leader, members := a.leader()
	s.Leader = leader.MetaHTTPAddr
	s.Voters = members
	return s
}

// starter is one start of a process.
type starter struct {
	UUID            string
	Epoch, Instance uint64 // 0: not known
}

// query is the starter as a part of a URL.
func (s starter) query() string {
	return url.Values{"uuid": {s.UUID}, "epoch": {strconv.FormatUint(s.Epoch, 10)}, "instance": {strconv.FormatUint(s.Instance, 10)}}.Encode()
}

// parseStarter is the inverse of query; what is missing is zero.
func parseStarter(q url.Values) (s starter) {
	s.UUID = q.Get("uuid")
	s.Epoch, _ = strconv.ParseUint(q.Get("epoch"), 10, 64)
	s.Instance, _ = strconv.ParseUint(q.Get("instance"), 10, 64)
	return s
}

// banned says why this start of a process may not be in the cluster, "" if it may.
func (s starter) banned(p meta.Process) string {
	switch {
	case p.ReplacedBy != 0:
		return fmt.Sprintf("node %d was replaced by node %d: to make it a node again, start it with empty folders and -join", p.ID(), p.ReplacedBy)
	case p.Gone():
		return fmt.Sprintf("node %d was dropped from the cluster: to make it a node again, start it with empty folders and -join", p.ID())
	case s.Epoch != 0 && (s.Epoch < p.Epoch || s.Epoch == p.Epoch && s.Instance != p.Nonce):
		return fmt.Sprintf("the folders of node %d are an older copy: this is start %d of them, and the cluster has seen start %d: start it with empty folders and --replace %d", p.ID(), s.Epoch, p.Epoch, p.ID())
	}
	return ""
}

// leader returns the process that leads the meta group, if it is known, and the
// addresses of those that vote.
func (a *admitter) leader() (leader meta.Process, voters []string) {
	n := a.n
	if n.door.peers.Load() == nil {
		return leader, nil
	}
	st, view := n.host.Status(dsdb.MetaGroup), n.meta.View()
	leader, _ = view.ProcessOf(st.LeaderNode)
	for _, p := range st.Members.Voters {
		if v, ok := view.ProcessOf(p.Node); ok {
			voters = append(voters, v.TCPAddr)
		}
	}
	slices.Sort(voters)
	return leader, voters
}

// proof is what only who knows the secret can say about a body and a nonce.
func proof(secret []byte, what, nonce string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	for _, part := range []string{"dsdb", what, nonce} {
		_, _ = io.WriteString(m, part+"\x00") // never fails: see hash.Hash
	}
	_, _ = m.Write(body)
	return hex.EncodeToString(m.Sum(nil))
}

// serveNonce gives out what is to be signed, to be used once.
func (a *admitter) serveNonce(w http.ResponseWriter) {
	_, _ = io.WriteString(w, a.nonces.give()) // the asker may be gone
}

// proven reports whether a request was signed with the shared secret, if there is one.
func (a *admitter) proven(r *http.Request, body []byte) bool {
	if a.secret == nil {
		return true
	}
	nonce := r.Header.Get(nonceHeader)
	return hmac.Equal([]byte(r.Header.Get(proofHeader)), []byte(proof(a.secret, "join", nonce, body))) && a.nonces.use(nonce)
}

// serveJoin admits a node, or says who can.
func (a *admitter) serveJoin(w http.ResponseWriter, r *http.Request) {
	if a.n.door.peers.Load() == nil {
		http.Error(w, "this node is starting itself", http.StatusServiceUnavailable)
		return
	}
	if st := a.n.host.Status(dsdb.MetaGroup); !st.Leading {
		leader, _ := a.leader()
		if leader.MetaHTTPAddr == "" {
			http.Error(w, "no leader of the meta nodes is known here yet", http.StatusServiceUnavailable)
			return
		}
		to := url.URL{Scheme: "http", Host: leader.MetaHTTPAddr, Path: "/join"}
		if r.TLS != nil {
			to.Scheme = "https"
		}
		http.Redirect(w, r, to.String(), http.StatusTemporaryRedirect)
		return
	}
	body, err := readJoin(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if a.secret == nil && r.Header.Get(proofHeader) != "" { // it will not trust the answer: nothing must be registered
		http.Error(w, "this cluster has no shared secret, and the node that asks has one: set [meta] shared-secret on all nodes or on none", http.StatusUnauthorized)
		return
	}
	if !a.proven(r, body) {
		a.n.log.Warn("a node that does not know the shared secret asked to join", "from", r.RemoteAddr)
		http.Error(w, "the shared secret of the cluster is another one, or missing: set [meta] shared-secret as on the other nodes", http.StatusUnauthorized)
		return
	}
	var rq joinRequest
	if err := json.Unmarshal(body, &rq); err != nil {
		http.Error(w, "bad request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := rpc.Certified(r.TLS, rq.UUID); err != nil {
		a.n.log.Warn("a node was not admitted", "from", r.RemoteAddr, "tcp_addr", rq.TCPAddr, "err", err)
		http.Error(w, strings.TrimPrefix(err.Error(), "refused: "), http.StatusForbidden)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), admitWait)
	defer cancel()
	answer, err := a.admit(ctx, rq)
	if err != nil {
		a.n.log.Warn("a node was not admitted", "from", r.RemoteAddr, "tcp_addr", rq.TCPAddr, "err", err)
		http.Error(w, err.Error(), joinCode(err))
		return
	}
	if a.secret != nil {
		w.Header().Set(proofHeader, proof(a.secret, "joined", r.Header.Get(nonceHeader), answer))
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // a node that does not get it asks again
}

// readJoin reads the body of a request. Anybody may send one: it is not waited for long.
func readJoin(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	conn := http.NewResponseController(w) // not every ResponseWriter has deadlines (tests)
	_ = conn.SetReadDeadline(time.Now().Add(joinBody))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoin))
	if err == nil {
		_ = conn.SetReadDeadline(time.Time{}) // it would end the request while that is carried out
	}
	return body, err
}

// joinCode is the status of an error of admit; from 500 on asking again may help.
func joinCode(err error) int {
	switch dsdb.KindOf(err) {
	case dsdb.KindInvalid:
		return http.StatusBadRequest
	case dsdb.KindConflict, dsdb.KindNotFound:
		return http.StatusConflict
	case dsdb.KindInternal:
		return http.StatusInternalServerError
	}
	return http.StatusServiceUnavailable
}

// hasEnded refuses to have a node replaced that answers at its address: rather
// another machine was given its name.
func (a *admitter) hasEnded(ctx context.Context, replaced dsdb.NodeID) error {
	p, known := a.n.meta.View().ProcessOf(replaced)
	if replaced == 0 || !known || p.Gone() || p.MetaHTTPAddr == "" {
		return nil
	}
	c := newPeerClient(a.n.door.outgoing)
	defer c.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if s, err := c.status(ctx, p.MetaHTTPAddr, a.n.starter()); err == nil && s.UUID == p.UUID {
		return dsdb.Errorf(dsdb.KindConflict, "node %d, which is to be replaced, runs and answers at %s: stop it first, or give this node an address of its own", replaced, p.MetaHTTPAddr)
	}
	return nil
}

// admit registers a node and makes it a member of the meta group that does not
// vote. Asking once more changes nothing. It returns an encoded meta.Joined.
func (a *admitter) admit(ctx context.Context, rq joinRequest) ([]byte, error) {
	n := a.n
	if err := a.canReach(ctx, rq.TCPAddr); err != nil {
		return nil, err
	}
	a.admitting.Lock()
	defer a.admitting.Unlock()
	if rq.Failed != 0 {
		if err := a.renew(ctx, &rq); err != nil {
			return nil, err
		}
	}
	if err := a.hasEnded(ctx, rq.Replace); err != nil {
		return nil, err
	}
	c := &meta.JoinCluster{UUID: rq.UUID, Meta: rq.Meta, Data: rq.Data, Addresses: rq.Addresses, Replace: rq.Replace, Nonce: rq.Instance}
	v, err := n.propose(ctx, dsdb.MetaGroup, func(id dsdb.ProposalID) []byte { return meta.Encode(id, c) })
	if err == nil {
		err = v.Err()
	}
	if err != nil {
		return nil, err
	}
	joined, err := meta.DecodeJoined(v.Value)
	if err != nil {
		return nil, err
	}
	peer := raftnode.Peer{Replica: joined.Replica, Node: meta.Identity{MetaID: joined.MetaID, DataID: joined.DataID}.Peer()}
	if !isMember(n.host.Status(dsdb.MetaGroup).Members, peer.Replica) {
		if err := n.host.Change(ctx, dsdb.MetaGroup, []raftnode.Change{{Op: raftnode.AddLearner, Peer: peer}}); err != nil {
			return nil, dsdb.Errorf(dsdb.KindUnavailable, "add a replica of the catalogue: %w", err)
		}
		n.log.Info("a node joined", "meta_id", joined.MetaID, "data_id", joined.DataID, "tcp_addr", rq.TCPAddr, "uuid", rq.UUID)
	}
	return v.Value, nil
}

// isMember reports whether a replica is in a group already.
func isMember(m raftnode.Members, r dsdb.ReplicaID) bool {
	return slices.ContainsFunc(slices.Concat(m.Voters, m.Outgoing, m.Learners), func(p raftnode.Peer) bool { return p.Replica == r })
}

// canReach makes sure that the cluster and a new node find each other: neither
// may name loopback to the other unless both do, and its address must answer here, with
// a certificate that is good for it if nodes have one.
func (a *admitter) canReach(ctx context.Context, address string) error {
	theirs, _, err := net.SplitHostPort(address)
	if err != nil {
		return dsdb.Errorf(dsdb.KindInvalid, "address %q of the node: %w", address, err)
	}
	mine, _, err := net.SplitHostPort(a.n.addrs.TCP)
	if err != nil {
		return fmt.Errorf("own address: %w", err)
	}
	switch {
	case isLoopbackHost(theirs) && !isLoopbackHost(mine) && !mutant.LoopbackTold:
		return dsdb.Errorf(dsdb.KindInvalid, "the node says that it is reached at %s, where %s finds only itself: set hostname on it", address, mine)
	case !isLoopbackHost(theirs) && isLoopbackHost(mine):
		return dsdb.Errorf(dsdb.KindConflict, "the cluster is reached at %s only, where %s finds only itself: set hostname on the node there, and start it again", a.n.addrs.TCP, theirs)
	}
	d := net.Dialer{Timeout: dialBack}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "%s cannot reach the node at %s, which it says is its address: %w", mine, address, err)
	}
	defer conn.Close()
	if secure := a.n.door.outgoing; secure != nil {
		ctx, cancel := context.WithTimeout(ctx, dialBack)
		defer cancel()
		return fits(ctx, conn, secure, theirs)
	}
	return nil
}
