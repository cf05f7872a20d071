package wal

import (
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// writer holds the batch that is being built.
type writer struct {
	buf     []byte // room for the batch header, then records
	records uint32
	entries bool                    // among them are entries
	bulk    bool                    // among those of the Write are some that are not Vital
	vital   bool                    // it has updates, and no such entries
	reserve bool                    // the active segment is not for points unless there is another ballast
	rest    int64                   // bytes that further batches of the same Write need at most
	staged  map[dsdb.GroupID]staged // groups as they will be after the batch
	dirty   []*group                // groups whose lazily written state is not on disk
	marked  bool                    // the last batch is a mark
}

func (w *writer) begin() {
	if cap(w.buf) > 2*maxBatch {
		w.buf = nil
	}
	w.buf = append(w.buf[:0], make([]byte, batchHeaderSize)...)
	w.records, w.rest = 0, 0
	w.entries, w.bulk, w.vital = false, false, false
	if w.staged == nil {
		w.staged = map[dsdb.GroupID]staged{}
	}
	clear(w.staged)
}

func (w *writer) add(r record) {
	w.buf = appendRecord(w.buf, r)
	w.records++
}

// Write makes the updates durable, in their order: in one batch, or several if
// they exceed 16 MiB, each with one pwrite and one fdatasync. An update that
// contradicts the group's state (KindInvalid, KindNotFound, KindConflict, KindCorrupt for a
// suspect group) or is too large (KindTooLarge) is refused together with the
// others of its batch. KindUnavailable means that the disk is full: nothing
// of the Write was written, and the same Write can succeed later. One of Vital
// updates alone may find space that others do not. After any
// other error the log is dead and every later call returns that error.
//
// Without sync, hard states and truncations are only remembered: readers see
// them at once, and they are written with the next batch. All else is durable
// with or without sync. A Write of nothing with sync writes what is remembered
// and a mark that proves the batch before it, unless that is a mark already: a
// host does so when it has been idle for a while.
func (l *Log) Write(us []Update, sync bool) error {
	if err := l.usable(); err != nil {
		return err
	}
	if !sync && lazyOnly(us) {
		return l.remember(us)
	}
	if len(us) == 0 {
		return l.mark()
	}
	bulk := slices.ContainsFunc(us, func(u Update) bool { return len(u.Entries) > 0 && !u.Vital })
	for first := true; len(us) > 0; first = false {
		n, err := l.encode(us)
		if err != nil {
			return err
		}
		us, l.w.bulk, l.w.vital = us[n:], bulk, !bulk
		if first { // space for all of them is found now or not at all
			l.w.rest = batchBytes(us)
		}
		if err := l.commit(); err != nil {
			return err
		}
	}
	return nil
}

// batchBytes bounds the bytes that batches of us take in a segment: any two
// neighbouring batches together hold more than maxBatch.
func batchBytes(us []Update) int64 {
	var n int64
	for i := range us {
		n += us[i].size()
	}
	if n == 0 {
		return 0
	}
	return n + 2*pageSize*(2*(n/maxBatch)+2)
}

// mark writes a batch that proves the one before it.
func (l *Log) mark() error {
	if l.w.marked && len(l.w.dirty) == 0 {
		return nil
	}
	l.w.begin()
	l.w.addDirty(l)
	l.w.add(record{typ: recMarker})
	if err := l.commit(); err != nil {
		return err
	}
	l.w.marked = true
	return nil
}

func lazyOnly(us []Update) bool {
	for i := range us {
		u := &us[i]
		if u.Create != nil || u.Reset != nil || u.Installing != nil || u.Remove || len(u.Entries) > 0 {
			return false
		}
	}
	return true
}

// remember applies hard states and truncations in memory. They name the next
// batch as theirs: a segment that they free is free once that is durable.
func (l *Log) remember(us []Update) error {
	l.w.begin()
	for i := range us {
		if err := l.w.check(l, &us[i]); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range us {
		u := &us[i]
		g := l.table.groups[u.Group]
		was := g.dirty
		if u.HardState != nil {
			g.state.HardState = *u.HardState
			g.dirty |= dirtyHardState
		}
		if u.Truncate != nil && u.Truncate.Index > g.state.Truncated.Index {
			l.table.truncate(g, *u.Truncate, append([]byte(nil), u.Conf...), l.lastBatch+1)
			g.dirty |= dirtyTruncate
		}
		if was == 0 && g.dirty != 0 {
			l.w.dirty = append(l.w.dirty, g)
		}
	}
	return nil
}

// addDirty adds what was remembered to the batch.
func (w *writer) addDirty(l *Log) {
	for _, g := range w.dirty {
		if l.table.groups[g.id] != g {
			continue
		}
		s := &g.state
		if g.dirty&dirtyHardState != 0 {
			w.buf = appendHardState(w.buf, g.id, s.Replica, s.HardState)
			w.records++
		}
		if g.dirty&dirtyTruncate != 0 {
			w.add(record{typ: recTruncate, group: g.id, replica: s.Replica,
				index: s.Truncated.Index, term: s.Truncated.Term, payload: s.Conf})
		}
	}
}

// encode builds a batch of what is remembered and a first part of us, whose
// length it returns.
func (l *Log) encode(us []Update) (n int, err error) {
	l.w.begin()
	l.w.addDirty(l)
	for i := range us {
		size := us[i].size()
		if size > MaxUpdate {
			return 0, dsdb.Errorf(dsdb.KindTooLarge, "wal: group %d: update of %d bytes, at most %d", us[i].Group, size, int64(MaxUpdate))
		}
		if i > 0 && int64(len(l.w.buf))+size > maxBatch {
			return i, nil
		}
		if err := l.w.check(l, &us[i]); err != nil {
			return 0, err
		}
		l.w.addUpdate(&us[i])
	}
	return len(us), nil
}

// size bounds the bytes that the update takes in a batch.
func (u *Update) size() int64 {
	n := int64(4*recordSize(64) + len(u.Conf))
	if u.Create != nil {
		n += int64(len(u.Create.Conf))
	}
	if u.Reset != nil {
		n += int64(len(u.Reset.Conf))
	}
	if u.Installing != nil {
		n += int64(recordSize(64) + len(u.Installing.Conf))
	}
	for i := range u.Entries {
		n += int64(recordSize(len(u.Entries[i].Data)))
	}
	return n
}

// addUpdate adds the records of an update that has been checked.
func (w *writer) addUpdate(u *Update) {
	replica := w.staged[u.Group].replica
	if s := u.Create; s != nil {
		c := checkpoint{state: *s, last: s.Truncated.Index}
		w.add(c.record(recCreate, u.Group))
	}
	if s := u.Installing; s != nil {
		c := checkpoint{state: *s, last: s.Truncated.Index}
		c.state.Replica = replica
		w.add(c.record(recInstall, u.Group))
	}
	if s := u.Reset; s != nil {
		c := checkpoint{state: *s, last: s.Truncated.Index}
		w.add(c.record(recReset, u.Group))
	}
	for i := range u.Entries {
		e := &u.Entries[i]
		w.add(record{typ: recEntry, kind: e.Kind, replica: replica, group: u.Group, term: e.Term, index: e.Index, payload: e.Data})
		w.entries = true
	}
	if u.HardState != nil {
		w.buf = appendHardState(w.buf, u.Group, replica, *u.HardState)
		w.records++
	}
	if t := u.Truncate; t != nil {
		w.add(record{typ: recTruncate, replica: replica, group: u.Group, term: t.Term, index: t.Index, payload: u.Conf})
	}
	if u.Remove {
		w.add(record{typ: recRemove, replica: replica, group: u.Group})
	}
}

// finish pads a batch to whole pages and writes its header into its front.
func (l *Log) finish(h *batchHeader, batch []byte, seg uint64, off int64) {
	body := batch[batchHeaderSize:][:h.bodyLen]
	h.bodyCRC = crc32.Checksum(body, castagnoli)
	h.seg, h.self, h.syncedOffset, h.syncedBatch = seg, uint64(off), uint64(off), h.seq-1
	h.put(batch)
}

// padBatch appends zeros up to a whole number of pages and returns the length of the body.
func padBatch(batch []byte) (padded []byte, bodyLen uint32) {
	n := len(batch)
	return append(batch, make([]byte, roundUp(int64(n), pageSize)-int64(n))...), uint32(n - batchHeaderSize)
}

// commit writes the batch that has been built, makes it durable and applies it.
func (l *Log) commit() error {
	w := &l.w
	w.marked = false
	var h batchHeader
	w.buf, h.bodyLen = padBatch(w.buf)
	h.records = w.records
	if w.bulk && w.reserve {
		if err := l.restock(); err != nil {
			return err
		}
	}
	seg := l.active()
	if seg.end+int64(len(w.buf))+w.rest > seg.size {
		var err error
		if seg, err = l.rotate(); err != nil {
			return err
		}
	}
	h.seq = l.lastBatch + 1
	l.finish(&h, w.buf, seg.seq, seg.end)
	if err := seg.put(w.buf); err != nil {
		return l.fail(fmt.Errorf("wal: write %s at %d: %w", seg.path, seg.end, err))
	}
	if err := l.sync(seg.file); err != nil && !mutant.ErrorSwallowed {
		return l.fail(fmt.Errorf("wal: sync %s: %w", seg.path, err))
	}
	l.count(h.records, int64(len(w.buf)))
	l.publish(&h, seg)
	return nil
}

// publish makes a durable batch visible to readers.
func (l *Log) publish(h *batchHeader, seg *segment) {
	body := l.w.buf[batchHeaderSize:][:h.bodyLen]
	var fresh []cacheRun
	if l.o.CacheBytes > 0 && l.w.entries {
		fresh = copyEntries(body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.applyBody(body, place{seg: seg, body: seg.end + batchHeaderSize, batch: h.seq})
	seg.end += int64(len(l.w.buf))
	l.lastBatch = h.seq
	l.w.dirty = l.w.dirty[:0]
	for _, r := range fresh {
		l.table.cache(r, l.counters.clock.Add(1))
	}
	l.table.evict(l.o.CacheBytes)
}

// rotate opens the next segment; its first batch is a checkpoint of all groups,
// so that only entries keep older segments alive.
func (l *Log) rotate() (*segment, error) {
	prev := l.active()
	body := make([]byte, batchHeaderSize, 1<<16)
	body, records := l.table.appendCheckpoint(body)
	leave := leaveBallast
	if l.w.vital {
		leave = leaveRoom
	}
	n := newSegment{room: int64(len(l.w.buf)) + l.w.rest, leave: leave,
		header: segmentHeader{cluster: l.o.ClusterID, node: l.o.NodeUUID, seq: prev.seq + 1,
			prevSeq: prev.seq, prevEnd: uint64(prev.end), prevBatch: l.lastBatch},
		first: batchHeader{seq: l.lastBatch + 1, records: records, flags: flagCheckpoint}}
	n.body, n.first.bodyLen = padBatch(body)
	seg, err := l.openSegment(n)
	if err != nil {
		if dsdb.KindOf(err) == dsdb.KindUnavailable {
			return nil, err
		}
		return nil, l.fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segs = append(l.segs, seg)
	l.lastBatch = n.first.seq
	return seg, nil
}
