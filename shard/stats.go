package shard

// Stats are figures about a shard.
type Stats struct {
	MemBytes         int64 // allocated by memtables
	MemRows          int   // rows that no file has
	Series           int
	Files            int
	Bytes            int64 // of files
	NeedsCompact     bool  // Compact(false) has something to do
	LastAppliedIndex uint64
	FlushedIndex     uint64
	RowsApplied      uint64 // since the shard was opened, as are the next two
	RowsRejected     uint64
	Deletes          uint64
}

// Stats returns figures about the shard as it is now.
func (s *Shard) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Stats{
		Series:           int(s.disk.series),
		Files:            len(s.files),
		LastAppliedIndex: s.applied.index,
		FlushedIndex:     s.disk.flushed.index,
		RowsApplied:      s.counters.rows,
		RowsRejected:     s.counters.rejected,
		Deletes:          s.counters.deletes,
	}
	if s.index != nil {
		st.Series = s.index.Stats().Series
	}
	for _, m := range s.memtablesLocked() {
		st.MemBytes += m.bytes
		st.MemRows += m.rows
	}
	from, to := pickFiles(s.files)
	st.NeedsCompact = from < to
	for _, f := range s.files {
		st.Bytes += f.size
	}
	for _, f := range s.disk.indexes {
		st.Bytes += f.size
	}
	return st
}
