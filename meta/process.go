package meta

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// NodeKind is the role that a node id stands for.
type NodeKind string

// The roles of a process. A process with both has two nodes with one UUID.
const (
	MetaNode NodeKind = "meta"
	DataNode NodeKind = "data"
)

// NodeState says whether a role of a process is in use.
type NodeState uint8

// The states of a node. A node that was removed keeps its id for ever.
const (
	Active  NodeState = iota
	Leaving           // it gets nothing new, and what it holds is moved away
	Removed
)

var nodeStates = []string{"active", "leaving", "removed"}

// String returns the state as SHOW CLUSTER prints it.
func (s NodeState) String() string { return nameOf(nodeStates, s, "NodeState") }

// MarshalText writes what String returns.
func (s NodeState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *NodeState) UnmarshalText(b []byte) error { return parseName(nodeStates, b, s) }

// Addresses are where a process is reached, each as host:port.
type Addresses struct {
	HTTPAddr     string `json:"http"`      // the API for clients
	MetaHTTPAddr string `json:"meta_http"` // join, status and snapshot of the catalogue
	TCPAddr      string `json:"tcp"`       // for the other processes of the cluster
}

// Process is a server process that has joined the cluster. One that is gone
// stays listed, so that its folders cannot come back.
type Process struct {
	UUID      string      `json:"uuid"`
	MetaID    dsdb.NodeID `json:"meta_id,omitempty"` // 0: it never was a meta node
	DataID    dsdb.NodeID `json:"data_id,omitempty"` // 0: it never was a data node
	MetaState NodeState   `json:"meta_state,omitempty"`
	DataState NodeState   `json:"data_state,omitempty"`
	Addresses
	MetaUnwanted bool `json:"meta_unwanted,omitempty"` // of a role that is not active: the process gave it up itself, see SetRoles
	DataUnwanted bool `json:"data_unwanted,omitempty"`
	DataFull     bool `json:"data_full,omitempty"` // of a data node: it gets a copy only if there are not enough others, see NoteDisk
	Loss
	Epoch      uint64      `json:"epoch"`                 // counts its starts
	Nonce      uint64      `json:"nonce,omitempty"`       // random, of the start that Epoch counts
	ReplacedBy dsdb.NodeID `json:"replaced_by,omitempty"` // the first id of the process that took its place
}

// Loss says of a data node whether it was given up.
type Loss struct {
	DataLost bool   `json:"data_lost,omitempty"` // it was dropped, and what it held was given up, see SucceedShard
	DataSeen uint64 `json:"data_seen,omitempty"` // index of the catalogue at which it was there all the same, see NoteReturn; 0: it never was
}

// Has reports whether the process has the role, also if it is leaving.
func (p *Process) Has(kind NodeKind) bool {
	id, state := p.role(kind)
	return id != 0 && state != Removed
}

// Is reports whether the process has the role and is to keep it.
func (p *Process) Is(kind NodeKind) bool {
	id, state := p.role(kind)
	return id != 0 && state == Active
}

func (p *Process) role(kind NodeKind) (dsdb.NodeID, NodeState) {
	if kind == MetaNode {
		return p.MetaID, p.MetaState
	}
	return p.DataID, p.DataState
}

// Gone reports whether the process has no role left: nothing of it may come back.
func (p *Process) Gone() bool { return !p.Has(MetaNode) && !p.Has(DataNode) }

// ID returns the id by which the process is a member of the meta group: that of
// the meta node, or of the data node if it never was a meta node.
func (p *Process) ID() dsdb.NodeID {
	if p.MetaID != 0 {
		return p.MetaID
	}
	return p.DataID
}

// Node is one role of one process.
type Node struct {
	ID       dsdb.NodeID
	Kind     NodeKind
	UUID     string // of the process
	HTTPAddr string // of the API for clients; of a meta node that of the catalogue's API
	TCPAddr  string
	State    NodeState
}

func (p *Process) node(kind NodeKind) Node {
	id, state := p.role(kind)
	n := Node{ID: id, Kind: kind, UUID: p.UUID, HTTPAddr: p.HTTPAddr, TCPAddr: p.TCPAddr, State: state}
	if kind == MetaNode {
		n.HTTPAddr = p.MetaHTTPAddr
	}
	return n
}

// CreateCluster gives the cluster its id. It is no error if it has that id already.
type CreateCluster struct {
	ID uint64 `json:"id"`
}

func (c *CreateCluster) op() string { return "CreateCluster" }

func (c *CreateCluster) apply(d *Data) error {
	if c.ID == 0 || d.ClusterID != 0 && d.ClusterID != c.ID {
		return dsdb.Errorf(dsdb.KindConflict, "cluster id %d refused: the cluster is %d", c.ID, d.ClusterID)
	}
	d.ClusterID = c.ID
	return nil
}

// JoinCluster registers a process: it gets an id for each role that it does not
// have yet (the meta role first), and a replica of the meta group, which is a
// voter for the founder of the cluster and a learner for all others. Asking
// again changes nothing but the addresses. The answer is a Joined.
//
// An address that another process has is refused, unless Replace names that
// one: it then gets nothing new, may not start again, and what it holds is moved away.
type JoinCluster struct {
	UUID string `json:"uuid"`
	Meta bool   `json:"meta,omitempty"`
	Data bool   `json:"data,omitempty"`
	Addresses
	Epoch   uint64      `json:"epoch"`
	Nonce   uint64      `json:"nonce,omitempty"`
	Replace dsdb.NodeID `json:"replace,omitempty"` // 0: none; either id of the process
}

// Joined is what a process gets by JoinCluster.
type Joined struct {
	Cluster uint64         `json:"cluster"`
	MetaID  dsdb.NodeID    `json:"meta_id"` // 0: not a meta node
	DataID  dsdb.NodeID    `json:"data_id"` // 0: not a data node
	Replica dsdb.ReplicaID `json:"replica"` // of the meta group
}

// DecodeJoined reads the value of the verdict on a JoinCluster: JSON, as the tags say.
func DecodeJoined(value []byte) (Joined, error) {
	var j Joined
	if err := unmarshalStrict(value, &j); err != nil {
		return Joined{}, fmt.Errorf("meta: answer to a join: %w", err)
	}
	return j, nil
}

func (c *JoinCluster) op() string { return "JoinCluster" }

func (c *JoinCluster) answer(d *Data) []byte { return d.joined(c.UUID) }

// joined encodes what a process has got.
func (d *Data) joined(uuid string) []byte {
	p, _ := d.Process(uuid)
	r, _ := d.MetaReplica(p)
	b, err := json.Marshal(Joined{d.ClusterID, p.MetaID, p.DataID, r.ID})
	if err != nil {
		panic("BUG: answer to a join: " + err.Error())
	}
	return b
}

func (c *JoinCluster) apply(d *Data) error {
	if err := c.valid(d); err != nil {
		return err
	}
	i, found := d.findProcess(c.UUID)
	if found {
		if err := c.readmit(&d.Processes[i]); err != nil {
			return err
		}
	}
	d.Processes = slices.Clone(d.Processes)
	if !found {
		i = len(d.Processes)
		d.Processes = append(d.Processes, Process{UUID: c.UUID})
	}
	p := &d.Processes[i]
	if c.Replace != 0 {
		if err := d.replace(c.Replace, p, d.Counters.Node+1); err != nil {
			return err
		}
	}
	if err := d.move(p, c.Addresses, c.Meta, c.Data); err != nil {
		return err
	}
	if c.Meta && p.MetaID == 0 {
		d.Counters.Node++
		p.MetaID = d.Counters.Node
	}
	if c.Data && p.DataID == 0 {
		d.Counters.Node++
		p.DataID = d.Counters.Node
	}
	if c.Epoch > p.Epoch {
		p.Epoch, p.Nonce = c.Epoch, c.Nonce
	}
	d.addMetaReplica(p)
	return nil
}

// valid checks what does not depend on who else is there.
func (c *JoinCluster) valid(d *Data) error {
	switch {
	case d.ClusterID == 0:
		return dsdb.Errorf(dsdb.KindConflict, "there is no cluster yet")
	case !c.Meta && !c.Data:
		return dsdb.Errorf(dsdb.KindInvalid, "either Meta, Data, or both must be enabled")
	case len(d.MetaReplicas) == 0 && !c.Meta:
		return dsdb.Errorf(dsdb.KindInvalid, "server not set to join existing cluster must run also as a meta node")
	case c.UUID == "" || c.TCPAddr == "":
		return dsdb.Errorf(dsdb.KindInvalid, "a node needs a UUID and an address")
	case !utf8.ValidString(c.UUID):
		return dsdb.Errorf(dsdb.KindInvalid, "the UUID of a node is not UTF-8")
	}
	return nil
}

// readmit checks that a process which was here may be so again.
func (c *JoinCluster) readmit(p *Process) error {
	if err := p.refused(); err != nil {
		return err
	}
	for _, kind := range kinds {
		asked := c.Meta
		if kind == DataNode {
			asked = c.Data
		}
		if id, state := p.role(kind); asked && id != 0 && state == Removed {
			return dsdb.Errorf(dsdb.KindConflict, "%s node %d of process %s was dropped: it comes back only as a new process, with empty folders", kind, id, p.UUID)
		}
	}
	return nil
}

// refused returns why the process may not be in the cluster any more, nil if it may.
func (p *Process) refused() error {
	if p.ReplacedBy != 0 {
		return dsdb.Errorf(dsdb.KindConflict, "process %s (node %d) was replaced by node %d: start it with empty folders to join as a new node", p.UUID, p.ID(), p.ReplacedBy)
	}
	if p.Gone() {
		return dsdb.Errorf(dsdb.KindConflict, "process %s (node %d) was dropped from the cluster: start it with empty folders to join as a new node", p.UUID, p.ID())
	}
	return nil
}

// replace takes the roles and the addresses from the process that old is an id
// of; p, whose first id is to be next unless it has one, is to be in its place.
func (d *Data) replace(old dsdb.NodeID, p *Process, next dsdb.NodeID) error {
	i := slices.IndexFunc(d.Processes, func(q Process) bool { return q.MetaID == old || q.DataID == old })
	if i >= 0 && p.has(d.Processes[i].ReplacedBy) {
		return nil // p asks again: what it replaced may be gone by now
	}
	if i < 0 || d.Processes[i].Gone() {
		return dsdb.Errorf(dsdb.KindNotFound, "node %d, which is to be replaced, is not in the cluster", old)
	}
	q := &d.Processes[i]
	if q.UUID == p.UUID {
		return dsdb.Errorf(dsdb.KindInvalid, "node %d cannot replace itself", old)
	}
	if p.ID() != 0 {
		next = p.ID()
	}
	if q.ReplacedBy != 0 {
		return dsdb.Errorf(dsdb.KindConflict, "node %d is replaced by node %d already", old, q.ReplacedBy)
	}
	q.ReplacedBy, q.Addresses = next, Addresses{}
	q.leave(MetaNode)
	q.leave(DataNode)
	return nil
}

// leave takes a role out of use, if the process has it.
func (p *Process) leave(kind NodeKind) {
	switch {
	case kind == MetaNode && p.Is(MetaNode):
		p.MetaState = Leaving
	case kind == DataNode && p.Is(DataNode):
		p.DataState = Leaving
	}
}

// move gives p its addresses, unless another process has one of them.
func (d *Data) move(p *Process, a Addresses, isMeta, isData bool) error {
	if !utf8.ValidString(a.HTTPAddr + a.MetaHTTPAddr + a.TCPAddr) {
		return dsdb.Errorf(dsdb.KindInvalid, "node address is not UTF-8")
	}
	for i := range d.Processes {
		q := &d.Processes[i]
		if q.UUID == p.UUID || q.Gone() {
			continue
		}
		taken := ""
		switch {
		case q.TCPAddr == a.TCPAddr:
			taken = a.TCPAddr
		case isMeta && q.Has(MetaNode) && a.MetaHTTPAddr != "" && q.MetaHTTPAddr == a.MetaHTTPAddr:
			taken = a.MetaHTTPAddr
		case isData && q.Has(DataNode) && a.HTTPAddr != "" && q.HTTPAddr == a.HTTPAddr:
			taken = a.HTTPAddr
		}
		if taken != "" {
			return dsdb.Errorf(dsdb.KindConflict, "address %s belongs to node %d (process %s): if this node is to take its place, because its folders are lost, start it with --replace %d", taken, q.ID(), q.UUID, q.ID())
		}
	}
	if p.TCPAddr == "" || !mutant.AddressKept {
		p.Addresses = a
	}
	return nil
}

// vacate takes addresses from the processes that had them before p.
func (d *Data) vacate(p *Process, a Addresses) {
	same := func(a, b string) bool { return a == b && a != "" }
	for i := range d.Processes {
		q := &d.Processes[i]
		if q.UUID != p.UUID && (same(q.TCPAddr, a.TCPAddr) || same(q.MetaHTTPAddr, a.MetaHTTPAddr) || same(q.HTTPAddr, a.HTTPAddr)) {
			q.Addresses = Addresses{}
		}
	}
}

// BootNode records that a process starts, and where it is reached now. The
// epochs of a process grow: a start with one that is not above the last is that
// of folders that were copied or put back, and is refused, unless the nonce says
// that it is the same start.
//
// An address that another process has is refused, unless the process has found
// itself there: then the other one, which was there before it, has none until it
// starts and says where it is.
type BootNode struct {
	UUID string `json:"uuid"`
	Addresses
	Epoch uint64 `json:"epoch"`
	Nonce uint64 `json:"nonce,omitempty"`
	Found bool   `json:"found,omitempty"` // the process has found itself at its addresses
}

func (c *BootNode) op() string { return "BootNode" }

func (c *BootNode) apply(d *Data) error {
	i, found := d.findProcess(c.UUID)
	if !found {
		return dsdb.Errorf(dsdb.KindConflict, "process %s is not in the cluster", c.UUID)
	}
	if c.TCPAddr == "" {
		return dsdb.Errorf(dsdb.KindInvalid, "a node needs an address")
	}
	d.Processes = slices.Clone(d.Processes)
	p := &d.Processes[i]
	if mutant.DroppedComesBack {
		p.MetaState, p.DataState = Active, Active
	}
	if err := p.refused(); err != nil {
		return err
	}
	again := c.Epoch == p.Epoch && c.Nonce == p.Nonce && c.Nonce != 0
	if c.Epoch <= p.Epoch && !again && !mutant.StaleEpochAccepted {
		return dsdb.Errorf(dsdb.KindConflict, "the folders of node %d (process %s) are an older copy: this is start %d of them, and the cluster has seen start %d; start it with empty folders and --replace %d", p.ID(), p.UUID, c.Epoch, p.Epoch, p.ID())
	}
	if c.Found {
		d.vacate(p, c.Addresses)
	}
	if err := d.move(p, c.Addresses, p.Has(MetaNode), p.Has(DataNode)); err != nil {
		return err
	}
	p.Epoch, p.Nonce = c.Epoch, c.Nonce
	return nil
}

// nameOf returns names[v], or what and the number if there is no such name.
func nameOf[T ~uint8](names []string, v T, what string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", what, v)
}

// parseName sets v to the index of b in names.
func parseName[T ~uint8](names []string, b []byte, v *T) error {
	i := slices.Index(names, string(b))
	if i < 0 {
		return fmt.Errorf("unknown word %q", b)
	}
	*v = T(i)
	return nil
}
