package wal

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Report says what Open found.
type Report struct {
	Segments int
	Batches  uint64
	Records  uint64
	Bytes    int64  // of batches that were replayed
	Clean    bool   // the last thing in the log is the mark of a Close
	Torn     *Range // the unfinished write at the end, which was dropped; nil if there is none
	TornCopy string // where its first bytes (at most 8 MiB) are kept
	// Corrupt lists damage to what was durable once. If there is any, groups may
	// be missing of which nothing else tells: a replica that the catalogue
	// places on this node and that is not in the log must be replaced too. It is
	// reported by each Open until one of those logs is told that it is Noted.
	Corrupt []Range
	// Suspect lists, ascending, the groups whose state or entries may be
	// incomplete. They must not vote or acknowledge anything; Write refuses
	// them everything but Remove and Reset, also after further restarts.
	Suspect []dsdb.GroupID
}

// Range is a stretch of a file that does not hold what was written there.
type Range struct {
	File        string
	Offset, Len int64
	Reason      string
}

func (r Range) String() string {
	return fmt.Sprintf("%s at %d, %d bytes: %s", r.File, r.Offset, r.Len, r.Reason)
}

const (
	maxTornCopy  = 8 << 20
	maxTornFiles = 4 // older copies are removed
)

// Open recovers the log in dir, which it makes if needed, and opens a new
// segment; it never writes into those it found. It fails if the log belongs to
// another node or cluster or to a newer format, if the disk fails, and, as
// KindUnavailable, if it is full. Damage does not make it fail: see Report.
// The caller sees to it that no other process has the log open.
func Open(fs vfs.FS, dir string, o Options) (*Log, Report, error) {
	return (&recovery{log: newLog(fs, dir, o)}).open()
}

// Read is Open of a log that is to be left as it is: it changes nothing on disk,
// and what it returns can be read and closed.
func Read(fs vfs.FS, dir string, o Options) (*Log, Report, error) {
	return (&recovery{log: newLog(fs, dir, o), readOnly: true}).open()
}

func newLog(fs vfs.FS, dir string, o Options) *Log {
	return &Log{fs: fs, dir: dir, o: o.withDefaults(), table: newTable()}
}

func (r *recovery) open() (*Log, Report, error) {
	if err := r.run(); err != nil {
		for _, s := range r.segs {
			s.file.Close()
		}
		return nil, r.report, fmt.Errorf("wal: open %s: %w", r.log.dir, err)
	}
	return r.log, r.report, nil
}

// recovery is the state of one Open.
type recovery struct {
	log      *Log
	readOnly bool
	report   Report
	segs     []foundSegment
	spares   []string
	torn     []string
	next     uint64      // number the next batch must have; 0: any
	held     batchHeader // the last batch of the log, seq 0 if there is none: it is not proven durable
	body     []byte      // its records
	top      uint64      // the highest number of a batch that is known to have existed
}

// foundSegment is a segment with its header, or why it has none.
type foundSegment struct {
	*segment
	header segmentHeader
	bad    error
}

func (r *recovery) run() error {
	l := r.log
	if !r.readOnly {
		if err := l.fs.MkdirAll(l.dir); err != nil {
			return err
		}
	}
	if err := r.list(); err != nil {
		return err
	}
	for i := range r.segs {
		if err := r.replay(i); err != nil {
			return err
		}
	}
	if r.readOnly {
		r.settle()
		r.reportSuspects()
		l.err = errReadOnly
		return nil
	}
	if err := r.start(); err != nil {
		return err
	}
	l.segs[0].kept = len(r.report.Corrupt) > 0
	r.reportSuspects()
	return l.Recycle()
}

// list finds the segments and opens them, keeps usable spares and removes the rest.
func (r *recovery) list() error {
	l := r.log
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(l.dir, name)
		if seq, ok := parseName(name, livePrefix, segmentExt); ok {
			if err := r.openFound(seq, p); err != nil {
				return err
			}
		} else if n, ok := parseName(name, sparePrefix, segmentExt); ok {
			r.spares = append(r.spares, p)
			l.nextSpare = max(l.nextSpare, n)
		} else if _, ok := parseName(name, livePrefix, tornExt); ok {
			r.torn = append(r.torn, p)
		}
	}
	r.report.Segments = len(r.segs)
	if r.readOnly {
		return nil
	}
	return r.sortSpares()
}

func (r *recovery) openFound(seq uint64, p string) error {
	f, err := r.log.fs.Open(p)
	if err != nil {
		return err
	}
	s := foundSegment{segment: &segment{seq: seq, path: p, file: f}}
	r.segs = append(r.segs, s)
	if s.size, err = f.Size(); err != nil {
		return err
	}
	page := make([]byte, pageSize)
	n, err := f.ReadAt(page, 0)
	if err != nil && err != io.EOF {
		return err
	}
	s.header, s.bad = parseSegmentHeader(page[:n])
	if s.bad == nil && s.header.seq != seq {
		s.bad = fmt.Errorf("segment header: number %d", s.header.seq)
	}
	o := &r.log.o
	switch {
	case errors.Is(s.bad, errVersion):
		return fmt.Errorf("%s: %w", p, s.bad)
	case s.bad == nil && s.header.cluster != o.ClusterID:
		return dsdb.Errorf(dsdb.KindInvalid, "%s belongs to cluster %x, this is %x", p, s.header.cluster, o.ClusterID)
	case s.bad == nil && s.header.node != o.NodeUUID:
		return dsdb.Errorf(dsdb.KindInvalid, "%s belongs to node %x, this is %x", p, s.header.node, o.NodeUUID)
	}
	r.segs[len(r.segs)-1] = s
	return nil
}

// sortSpares keeps spares that are whole. Without a segment there is no
// number that old batches in them could not carry too, so none is kept then.
func (r *recovery) sortSpares() error {
	l := r.log
	for _, p := range r.spares {
		info, err := l.fs.Stat(p)
		if err != nil {
			return err
		}
		if info.Size() == l.o.SegmentSize && len(l.spares) < l.o.MaxSpare && len(r.segs) > 0 {
			l.spares = append(l.spares, spare{path: p, size: info.Size()})
		} else if err := l.fs.Remove(p); err != nil {
			return err
		}
	}
	for _, p := range r.torn[:max(0, len(r.torn)-maxTornFiles+1)] {
		if err := l.fs.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// corrupt records damage: what was written there is lost, and with it
// certainty about every group.
func (r *recovery) corrupt(s *segment, off, n int64, reason string) {
	r.settle()
	r.report.Corrupt = append(r.report.Corrupt, Range{s.path, off, n, reason})
	r.log.table.lost()
	r.next = 0
}

// replay applies the batches of segment i and checks that it follows the one before.
func (r *recovery) replay(i int) error {
	s := r.segs[i]
	last := i == len(r.segs)-1
	switch {
	case s.bad != nil:
		r.report.Corrupt = append(r.report.Corrupt, Range{s.path, 0, pageSize, s.bad.Error()})
	case i > 0 && s.header.prevSeq != r.segs[i-1].seq:
		r.corrupt(s.segment, 0, 0, fmt.Sprintf("segment %016x before it is missing", s.header.prevSeq))
	case i > 0 && r.next != 0 && s.header.prevBatch+1 != r.next:
		r.corrupt(s.segment, 0, 0, fmt.Sprintf("follows batch %d, but batch %d was the last", s.header.prevBatch, r.next-1))
	}
	if s.bad == nil {
		r.next, r.top = s.header.prevBatch+1, max(r.top, s.header.prevBatch)
	}
	r.log.segs = append(r.log.segs, s.segment)
	end, known := s.size, false
	if !last && r.segs[i+1].bad == nil && r.segs[i+1].header.prevSeq == s.seq {
		end, known = min(int64(r.segs[i+1].header.prevEnd), s.size), true
	}
	if err := r.walk(s.segment, end, known, last); err != nil {
		return err
	}
	if !last {
		r.settle()
	}
	return nil
}

// settle applies the batch that was held back.
func (r *recovery) settle() {
	if r.held.seq == 0 {
		return
	}
	s := r.log.segs[len(r.log.segs)-1]
	r.log.table.applyBody(r.body, place{seg: s, body: int64(r.held.self) + batchHeaderSize, batch: r.held.seq})
	r.held = batchHeader{}
}

// walk reads the batches of a segment up to end, which is where the log goes
// on elsewhere if known, else the end of the file.
func (r *recovery) walk(s *segment, end int64, known, last bool) error {
	in := scanner{file: s.file, size: end, seg: s.seq}
	off := int64(pageSize)
	for off < end {
		h, body, reason, err := in.batch(off)
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", s.path, off, err)
		}
		if reason == "" && r.next != 0 && h.seq != r.next {
			if h.seq < r.next {
				reason = fmt.Sprintf("batch %d where %d is due", h.seq, r.next)
			} else {
				r.corrupt(s, off, 0, fmt.Sprintf("batch %d where %d is due", h.seq, r.next))
			}
		}
		if reason == "" {
			r.accept(s, &h, body, off)
			off = s.end
			continue
		}
		later, err := in.find(off+max(pageSize, h.size()), r.next)
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", s.path, off, err)
		}
		// The first batch is durable before its segment has a name, and a later
		// batch is only written after this one was synced.
		if later == end && !known && off > pageSize || mutant.TornEqualsCorrupt {
			if last {
				return r.tear(&in, s, off, h)
			}
			break
		}
		r.corrupt(s, off, later-off, reason)
		off = later
	}
	s.end = min(off, end)
	return nil
}

// accept applies the batch held so far and holds this one.
func (r *recovery) accept(s *segment, h *batchHeader, body []byte, off int64) {
	r.settle()
	r.held, r.body = *h, append(r.body[:0], body...)
	s.end = off + h.size()
	r.next, r.top = h.seq+1, max(r.top, h.seq)
	r.report.Batches++
	r.report.Records += uint64(h.records)
	r.report.Bytes += h.size()
}

// tear ends the log at off. If a write was under way there, its bytes are kept in a file.
func (r *recovery) tear(in *scanner, s *segment, off int64, h batchHeader) error {
	s.end = off
	n := h.size()
	if h.seq == 0 {
		head, err := in.at(off, min(batchHeaderSize, in.size-off))
		if err != nil {
			return err
		}
		if len(head) < batchHeaderSize {
			return nil
		}
		raw := rawBatchHeader(head)
		if raw.seg != s.seq && (raw.seq != r.next || raw.self != uint64(off)) {
			return nil // zeros, or what an earlier use of the file left
		}
		n = in.size - off
	}
	r.report.Torn = &Range{s.path, off, min(n, in.size-off), "unfinished write"}
	if r.readOnly {
		return nil
	}
	copyPath := path.Join(r.log.dir, fileName(livePrefix, s.seq, tornExt))
	if err := r.keep(in, copyPath, off, min(n, in.size-off, maxTornCopy)); err != nil {
		if vfs.NoSpace(err) {
			return nil
		}
		return fmt.Errorf("keep torn bytes of %s: %w", s.path, err)
	}
	r.report.TornCopy = copyPath
	return nil
}

func (r *recovery) keep(in *scanner, to string, off, n int64) error {
	bytes, err := in.at(off, n)
	if err != nil {
		return err
	}
	f, err := r.log.fs.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes, 0); err != nil {
		return err
	}
	if err := f.SyncData(); err != nil {
		return err
	}
	return r.log.fs.SyncDir(r.log.dir)
}

// start opens the segment that the log goes on in. The last batch found may be
// in the page cache only, so it is written again: the new segment says that
// the log ends before that batch in the old one, and begins with a checkpoint
// of the state before it and its records, in one batch with its number.
func (r *recovery) start() error {
	l := r.log
	n := newSegment{leave: leaveNone, header: segmentHeader{cluster: l.o.ClusterID, node: l.o.NodeUUID, seq: 1},
		first: batchHeader{seq: r.top + 1, flags: flagCheckpoint}}
	var old *segment
	var end int64 // of old, with the batch that is held
	if len(l.segs) > 0 {
		old = l.segs[len(l.segs)-1]
		end = old.end
		if err := l.sync(old.file); err != nil {
			return fmt.Errorf("sync %s: %w", old.path, err)
		}
		n.header.seq, n.header.prevSeq, n.header.prevEnd = old.seq+1, old.seq, uint64(old.end)
	}
	carried, records := r.carry(old)
	if r.held.seq != 0 {
		n.header.prevEnd, n.first.seq = r.held.self, r.held.seq
		old.end = int64(r.held.self)
	}
	n.header.prevBatch = n.first.seq - 1
	body, count := l.table.appendCheckpoint(make([]byte, batchHeaderSize, 1<<16))
	at := int64(len(body)) - batchHeaderSize
	n.body, n.first.bodyLen = padBatch(append(body, carried...))
	n.first.records = count + records
	seg, err := r.openNext(n, end)
	if err != nil {
		return err
	}
	l.table.applyBody(carried, place{seg: seg, body: pageSize + batchHeaderSize + at, batch: n.first.seq})
	l.segs = append(l.segs, seg)
	r.segs = append(r.segs, foundSegment{segment: seg})
	l.lastBatch = n.first.seq
	l.w.reserve = true // until it is known that there is more
	if old != nil && len(r.report.Corrupt) == 0 {
		return l.shrink(old, old.end)
	}
	return nil
}

// shrink gives back what was reserved from end on of a segment that nothing
// will be written to any more, so that a process that crashes again and again
// does not fill the disk. The segment after it, which is durable, says where it
// ends.
func (l *Log) shrink(s *segment, end int64) error {
	if end >= s.size {
		return nil
	}
	f, err := l.fs.OpenReadWrite(s.path)
	if err != nil {
		return err
	}
	if err = f.Truncate(end); err == nil {
		s.size = end
		err = l.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("give back the end of %s: %w", s.path, err)
	}
	return nil
}

// openNext opens the segment. On a full disk it does with little, and if there is
// nothing at all, with what was reserved behind the end of the one before: in front
// of it is all that counts.
func (r *recovery) openNext(n newSegment, end int64) (*segment, error) {
	seg, err := r.log.openSegment(n)
	if dsdb.KindOf(err) != dsdb.KindUnavailable || len(r.log.segs) == 0 || len(r.report.Corrupt) > 0 {
		return seg, err
	}
	old := r.log.segs[len(r.log.segs)-1]
	if err := r.log.shrink(old, end); err != nil {
		return nil, err
	}
	return r.log.openSegment(n)
}

// carry applies the part of the last batch that a checkpoint repeats and
// returns the other records, but for marks.
func (r *recovery) carry(s *segment) (records []byte, n uint32) {
	if r.held.seq == 0 {
		return nil, 0
	}
	lead := 0
	body := r.body
	for lead < len(body) {
		rec, size, _ := parseRecord(body[lead:])
		if rec.typ != recState && rec.typ != recRemove {
			break
		}
		lead += size
	}
	p := place{seg: s, body: int64(r.held.self) + batchHeaderSize, batch: r.held.seq}
	r.log.table.applyBody(body[:lead], p)
	for off := lead; off < len(body); {
		rec, size, _ := parseRecord(body[off:])
		if rec.typ == recClean {
			r.report.Clean = r.report.Torn == nil
		}
		if rec.typ != recClean && rec.typ != recMarker {
			records = append(records, body[off:off+size]...)
			n++
		}
		off += size
	}
	return records, n
}

// reportSuspects marks and lists the groups that are not provably whole.
func (r *recovery) reportSuspects() {
	t := &r.log.table
	for _, id := range t.ids() {
		g := t.groups[id]
		g.suspect = g.suspect || !g.complete()
		if g.suspect {
			r.report.Suspect = append(r.report.Suspect, id)
		}
	}
	slices.Sort(r.report.Suspect)
}
