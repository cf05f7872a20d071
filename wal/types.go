package wal

import "github.com/dasudian/dsdb"

// Entry is one entry of a group's log. Kind is the caller's (raft's entry
// type) and is stored as given. Data is aliased, not copied, until the Write
// that carries it has returned; entries that come out of the log are the
// reader's to keep but not to change.
type Entry struct {
	Index, Term uint64
	Kind        uint8
	Data        []byte
}

// HardState is what a replica must never forget: its term, its vote (a
// replica id, 0: none) and, lazily, its commit index.
type HardState struct{ Term, Vote, Commit uint64 }

// GroupState is the state of one group's log apart from its entries.
type GroupState struct {
	Replica   dsdb.ReplicaID
	HardState HardState
	Truncated Position // the entries up to and including it are gone
	Conf      []byte   // membership as of Truncated, or later; opaque to the log
	// Installing is the state that a Reset is to bring once a snapshot is
	// installed; nil if none was begun. Its own Installing is nil.
	Installing *GroupState
}

// Position is an index of a group's log and the term of the entry there.
type Position struct{ Index, Term uint64 }

// Update is what one group asks to have persisted, all or nothing. The zero
// value of a member means: no change.
type Update struct {
	Group     dsdb.GroupID
	Create    *GroupState // the group is new on this node, with this state and no entries
	Entries   []Entry     // contiguous; entries at and above the first one's index are replaced
	HardState *HardState
	Truncate  *Position // forget entries up to and including it (a hint: space is freed later)
	Conf      []byte    // membership as of Truncate, or later
	// Installing notes that a snapshot is being installed, after which a Reset to
	// this state follows; with index 0 that this was given up. Until then nothing
	// else of the group is written.
	Installing *GroupState
	Reset      *GroupState // a snapshot was installed: forget all entries, go on from this state
	Remove     bool        // the replica left this node; its id is refused ever after
	Vital      bool        // its entries may use the space that is kept for when the disk is full; what has no entries may
}
