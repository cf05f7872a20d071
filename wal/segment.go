package wal

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
)

const (
	segmentExt  = ".seg"
	tornExt     = ".torn"
	livePrefix  = "wal-"
	sparePrefix = "spare-"
)

// segment is one file of the log. All but the last are no longer written to.
type segment struct {
	seq     uint64
	path    string
	file    vfs.File
	size    int64  // bytes on disk
	written int64  // up to here all of them have been written since they were reserved
	end     int64  // offset behind the last batch
	live    int    // runs of entries of groups that lie here
	freedAt uint64 // the batch that took away the last of them
	kept    bool   // it shows damage, as do others behind it perhaps: see Noted
}

// release takes one run of entries away.
func (s *segment) release(batch uint64) {
	if s.live--; s.live == 0 {
		s.freedAt = batch
	}
}

// spare is a preallocated file that waits to become a segment.
type spare struct {
	path    string
	size    int64
	written int64 // as of a segment
}

func fileName(prefix string, n uint64, ext string) string {
	return fmt.Sprintf("%s%016x%s", prefix, n, ext)
}

// parseName returns the number in a file name of the given form.
func parseName(name, prefix, ext string) (n uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, ext); !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil
}

// Exists reports whether there is a log in dir, whole or not.
func Exists(fs vfs.FS, dir string) (bool, error) {
	names, err := fs.List(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(names, func(name string) bool {
		_, is := parseName(name, livePrefix, segmentExt)
		return is
	}), err
}

// Owner returns of which cluster and node the log in dir is, as the newest of its files
// says whose header is whole. The error wraps fs.ErrNotExist if none does.
func Owner(fs vfs.FS, dir string) (cluster, node [16]byte, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return cluster, node, fmt.Errorf("wal: owner: %w", err)
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		if _, is := parseName(name, livePrefix, segmentExt); !is {
			continue
		}
		h, err := headerOf(fs, path.Join(dir, name))
		if err == nil {
			return h.cluster, h.node, nil
		}
	}
	return cluster, node, fmt.Errorf("wal: owner: no file of a log in %s says whose it is: %w", dir, iofs.ErrNotExist)
}

// headerOf reads the header of a file of a log.
func headerOf(fs vfs.FS, name string) (h segmentHeader, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return h, err
	}
	defer f.Close()
	page := make([]byte, pageSize)
	if _, err := f.ReadAt(page, 0); err != nil {
		return h, err
	}
	return parseSegmentHeader(page)
}

// makeSpare creates a preallocated file under a name of its own. If space is
// short nothing is left behind and the error satisfies vfs.NoSpace.
func (l *Log) makeSpare(size int64) (spare, error) {
	s := spare{size: size}
	l.mu.Lock()
	l.nextSpare++
	s.path = path.Join(l.dir, fileName(sparePrefix, l.nextSpare, segmentExt))
	l.mu.Unlock()
	f, err := l.fs.Create(s.path)
	if err != nil {
		return s, err
	}
	err = f.Preallocate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = l.fs.Remove(s.path) // an undersized spare is removed at the next Open
	}
	return s, err
}

// PrepareSpare sees to it that the next segment can be opened without waiting
// for the file system to allocate it, and that two spares more are kept for when the
// disk is full: the ballast, for what is Vital, and one to Yield. The host calls it
// from a goroutine of its own, e.g. once a second; it may run beside Write.
func (l *Log) PrepareSpare() error { return l.prepare(min(3, l.o.MaxSpare)) }

// prepare makes spares until there are n.
func (l *Log) prepare(n int) error {
	for {
		l.mu.RLock()
		enough := l.whole() >= n || l.err != nil
		none := len(l.spares) == 0
		l.mu.RUnlock()
		if enough {
			return nil
		}
		s, err := l.makeSpare(l.o.SegmentSize)
		ok := err == nil
		if none && vfs.NoSpace(err) {
			s, ok = l.makeLesser(l.o.SegmentSize, 4*pageSize)
		}
		if ok {
			l.mu.Lock()
			l.spares = append(l.spares, s)
			l.mu.Unlock()
		}
		if err != nil {
			return fmt.Errorf("wal: spare segment: %w", err)
		}
	}
}

// How many spares must be left when one is taken.
const (
	leaveBallast = 2 // for points
	leaveRoom    = 1 // for what is Vital: the last is for files beside the log, see Yield
	leaveNone    = 0
)

// takeSpare removes a spare of at least size bytes from the pool, unless too few
// would be left: that of which most has been written before.
func (l *Log) takeSpare(size int64, leave int) (spare, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spares) <= min(leave, l.o.MaxSpare-1) {
		return spare{}, false
	}
	best := -1
	for i, s := range l.spares {
		if s.size >= size && (best < 0 || s.written > l.spares[best].written) {
			best = i
		}
	}
	if best < 0 {
		return spare{}, false
	}
	s := l.spares[best]
	l.spares = slices.Delete(slices.Clone(l.spares), best, best+1)
	return s, true
}

// obtainSpare returns a file of at least need bytes: from the pool, else a new
// one, else, if the disk is full and it is not for points, one that is kept for
// that, or whatever there is space for.
func (l *Log) obtainSpare(need int64, leave int) (spare, error) {
	size := max(l.o.SegmentSize, need)
	if s, ok := l.takeSpare(size, leaveBallast); ok {
		return s, nil
	}
	s, err := l.makeSpare(size)
	if err == nil || !vfs.NoSpace(err) {
		return s, err
	}
	if leave < leaveBallast {
		s, ok := l.takeSpare(need, leave)
		if !ok {
			s, ok = l.makeLesser(size, need)
		}
		if ok {
			l.w.reserve = true
			return s, nil
		}
	}
	return s, dsdb.Errorf(dsdb.KindUnavailable, "wal: no space for a new segment: %w", err)
}

// makeLesser makes a spare of less than size bytes, but at least need, if there is
// space for any.
func (l *Log) makeLesser(size, need int64) (s spare, ok bool) {
	for !ok && size > need {
		size = max(roundUp(size/4, pageSize), need)
		var err error
		if s, err = l.makeSpare(size); err != nil && !vfs.NoSpace(err) {
			return s, false
		}
		ok = err == nil
	}
	return s, ok
}

// whole counts the spares that are as large as a segment. mu is held.
func (l *Log) whole() (n int) {
	for _, s := range l.spares {
		if s.size >= l.o.SegmentSize {
			n++
		}
	}
	return n
}

// restock has points go on behind what was written into the ballast: not before
// there is another one.
func (l *Log) restock() error {
	err := l.prepare(min(leaveBallast, l.o.MaxSpare))
	if vfs.NoSpace(err) {
		return dsdb.Errorf(dsdb.KindUnavailable, "wal: no space but for what makes space: %w", err)
	}
	l.w.reserve = err != nil
	return err
}

// Yield gives the space of a spare back, for files that must be written on a full
// disk, and reports whether there was one. PrepareSpare makes it anew.
func (l *Log) Yield() (bool, error) {
	s, ok := l.takeSpare(0, leaveNone)
	if !ok {
		return false, nil
	}
	return true, l.fs.Remove(s.path)
}

// Yield is Log.Yield for a log in dir that is not open.
func Yield(fs vfs.FS, dir string) (bool, error) {
	names, err := fs.List(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if _, ok := parseName(name, sparePrefix, segmentExt); ok {
			return true, fs.Remove(path.Join(dir, name))
		}
	}
	return false, nil
}

// newSegment describes the segment to open and the batch it begins with.
type newSegment struct {
	header segmentHeader
	first  batchHeader // seq, records, flags
	body   []byte      // with room for the batch header in front
	room   int64       // bytes wanted behind the first batch
	leave  int         // spares that are not for it
}

// After a batch of at most smallBatch bytes come zeros up to writeAhead.
const (
	smallBatch = 16 << 10
	writeAhead = 128 << 10
)

var zeros [writeAhead]byte

// put writes a batch at the end of the segment. The first write to a block that
// was only reserved changes the file's metadata, which doubles what the next sync
// has to write: so that a series of small batches does not pay that each time,
// the first of them writes zeros where the others will lie.
func (s *segment) put(batch []byte) error {
	if _, err := s.file.WriteAt(batch, s.end); err != nil {
		return err
	}
	end := s.end + int64(len(batch))
	if end <= s.written {
		return nil
	}
	s.written = end
	if ahead := min(writeAhead, s.size-end); len(batch) <= smallBatch && ahead > 0 {
		if _, err := s.file.WriteAt(zeros[:ahead], end); err != nil {
			return err
		}
		s.written += ahead
	}
	return nil
}

// openSegment makes a segment that is complete before it has its name: header
// and first batch are durable, then the file is renamed, then the name is made
// durable. So a segment of the log always begins with a sound header and batch.
func (l *Log) openSegment(n newSegment) (*segment, error) {
	l.finish(&n.first, n.body, n.header.seq, pageSize)
	used := pageSize + int64(len(n.body))
	s, err := l.obtainSpare(used+roundUp(n.room, pageSize), n.leave)
	if err != nil {
		return nil, err
	}
	f, err := l.fs.OpenReadWrite(s.path)
	if err != nil {
		return nil, err
	}
	seg := &segment{seq: n.header.seq, file: f, size: s.size, written: max(s.written, used), end: used,
		path: path.Join(l.dir, fileName(livePrefix, n.header.seq, segmentExt))}
	if err := l.fill(seg, s, n); err != nil {
		f.Close()
		return nil, fmt.Errorf("wal: new segment %s: %w", seg.path, err)
	}
	return seg, nil
}

func (l *Log) fill(seg *segment, s spare, n newSegment) error {
	if _, err := seg.file.WriteAt(appendSegmentHeader(nil, n.header), 0); err != nil {
		return err
	}
	if _, err := seg.file.WriteAt(n.body, pageSize); err != nil {
		return err
	}
	if err := l.sync(seg.file); err != nil {
		return err
	}
	if err := l.fs.Rename(s.path, seg.path); err != nil {
		return err
	}
	if mutant.SkipDirFsync {
		return nil
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	l.count(n.first.records, pageSize+int64(len(n.body)))
	return nil
}

// Recycle frees the oldest segments that no group needs any more: up to
// Options.MaxSpare are kept to be written again, the rest is removed. The host
// calls it after truncations; it may run beside Write, but not beside itself.
func (l *Log) Recycle() error {
	if err := l.usable(); err != nil {
		return err
	}
	free := l.takeFree()
	if len(free) == 0 {
		return nil
	}
	var keep []spare
	for _, s := range free {
		err := s.file.Close()
		if err == nil {
			keep, err = l.retire(s, keep)
		}
		if err != nil {
			return l.fail(fmt.Errorf("wal: recycle %s: %w", s.path, err))
		}
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return l.fail(fmt.Errorf("wal: recycle: %w", err))
	}
	l.mu.Lock()
	l.spares = append(l.spares, keep...)
	l.mu.Unlock()
	return nil
}

// Noted says that the caller has noted, durably, what follows for him from the damage
// that Open reported: of groups that are not in the log. Until then no segment is
// freed, so that another Open reports it again.
func (l *Log) Noted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		s.kept = false
	}
}

// takeFree removes the oldest segments from the list as long as what freed
// them is durable.
func (l *Log) takeFree() []*segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.segs)-1 && l.segs[n].live == 0 && (!l.segs[n].kept || mutant.DamageForgotten) && (l.segs[n].freedAt <= l.lastBatch || mutant.RecycleEarly) {
		n++
	}
	free := l.segs[:n:n]
	l.segs = dropFront(l.segs, n)
	return free
}

// retire renames a segment to a spare or removes it.
func (l *Log) retire(s *segment, keep []spare) ([]spare, error) {
	l.mu.Lock()
	full := len(l.spares)+len(keep) >= l.o.MaxSpare || s.size != l.o.SegmentSize
	l.nextSpare++
	name := fileName(sparePrefix, l.nextSpare, segmentExt)
	l.mu.Unlock()
	if full {
		return keep, l.fs.Remove(s.path)
	}
	to := path.Join(l.dir, name)
	return append(keep, spare{to, s.size, s.written}), l.fs.Rename(s.path, to)
}
