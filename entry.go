package dsdb

// Entry is one committed entry of a raft group's log as its state machine sees
// it. Data is owned by the log: a state machine that keeps bytes copies them.
// Entries that raft makes for itself (empty, membership) arrive with Data nil,
// so that a state machine sees every index.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// ProposalID names one proposal to one raft group for all time. Whoever tries
// it again uses the same id, so that the state machine can tell a second copy
// of an entry from a new one. The zero ProposalID names nothing.
type ProposalID struct {
	Node  NodeID // of the process that proposes
	Epoch uint64 // of that process: counts its starts
	Seq   uint64 // counts its proposals to that group in this epoch, from 1
}

// Verdict is what a state machine decided about one entry. The zero Verdict
// means: applied in full. It is a function of the log alone, so that every
// replica reaches the same.
type Verdict struct {
	Rejected int    // rows or commands that had no effect
	Kind     Kind   // why, if Rejected > 0
	Reason   string // InfluxDB's words for the first rejection
	Value    []byte // what the entry produced, e.g. the id of a created shard; nil for most
	Index    uint64 // of the entry in its group's log; set by whoever tells the proposer
}

// Err returns the verdict as an error, nil if nothing was rejected.
func (v Verdict) Err() error {
	if v.Rejected == 0 {
		return nil
	}
	return &Error{Kind: v.Kind, Text: v.Reason}
}

// Manifest names the immutable files that hold a replica's state up to and
// including Index. The files it names stay readable until it is released.
type Manifest struct {
	Index, Term uint64
	Files       []ManifestFile
}

// ManifestFile is one file of a Manifest; Name is relative to the replica's folder.
type ManifestFile struct {
	Name string
	Size int64
	CRC  uint32 // CRC-32C of the whole file
}
