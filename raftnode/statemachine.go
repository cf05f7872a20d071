package raftnode

import "github.com/dasudian/dsdb"

// StateMachine is the replicated state of one group: a shard, or the meta
// store. Its methods are called by one goroutine at a time, but for
// FlushedIndex and Snapshot, which may come from any.
type StateMachine interface {
	// Apply applies committed entries in index order and returns one verdict per
	// entry. It is a function of the log alone: no clock, no randomness, no map
	// order. Entries at or below an index already applied are skipped by the
	// caller. The entries' data may be reused after it returns. An error means that
	// the replica cannot go on (its disk failed, its files are corrupt); with
	// dsdb.ErrNewer in its chain, that it has applied all before an entry that only
	// a newer program can apply.
	Apply(entries []dsdb.Entry) ([]dsdb.Verdict, error)
	// FlushedIndex is the highest index whose effects, and those of all before
	// it, are durable without the log.
	FlushedIndex() uint64
	// Snapshot pins the files that hold the state at FlushedIndex until release is called.
	Snapshot() (m dsdb.Manifest, release func(), err error)
	// Install replaces the whole state by the files of m, which lie in dir, atomically.
	// After an error that vfs.NoSpace knows, one of KindUnavailable or one of
	// dsdb.ErrNewer the state is as it was; any other means that the replica cannot
	// go on.
	Install(m dsdb.Manifest, dir string) error
}
