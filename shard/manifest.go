package shard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/dedupe"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
)

const (
	manifestName  = "MANIFEST"
	manifestTemp  = "MANIFEST.tmp"
	manifestMagic = "DSDBMAN" // and the version
	segmentSuffix = ".seg"
	indexSuffix   = ".idx"
	pinSuffix     = ".pin" // a manifest that a snapshot holds on to
)

// The versions of the manifest that can be read. Version 1 has no window, versions 1
// and 2 remember no deletes. Version 4, of a shard with a fence, is written if it
// has one, else version 3.
const (
	manifestV1 = 1
	manifestV2 = 2
	manifestV3 = 3
	manifestV4 = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// manifest names the files that hold a shard's state at an index of the log,
// and what of their rows later deletes hid. It is replaced, never changed.
type manifest struct {
	shard      dsdb.ShardID
	flushed    position
	next       uint64 // number of the next file
	series     uint64 // at flushed
	segments   []segmentMeta
	indexes    []fileMeta  // in the order in which they are loaded
	tombstones []tombstone // with indexes up to flushed
	window     *dedupe.Window
	deletes    deleteLog // up to flushed
}

// fileMeta is what the manifest knows of a file.
type fileMeta struct {
	number uint64
	size   int64
	crc    uint32 // CRC-32C of the file
}

// segmentMeta is what the manifest knows of a segment file. Segments are
// listed by index range; the ranges do not overlap.
type segmentMeta struct {
	fileMeta
	level              int
	minIndex, maxIndex uint64
	minTime, maxTime   int64 // of its rows, inclusive
	rows               uint64
}

func (f fileMeta) name(suffix string) string { return fmt.Sprintf("%08d%s", f.number, suffix) }

func (f fileMeta) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, f.number)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.size))
	return binary.LittleEndian.AppendUint32(dst, f.crc)
}

// append appends the manifest's file.
func (m *manifest) append(dst []byte) []byte {
	start, le := len(dst), binary.LittleEndian
	dst = append(append(dst, manifestMagic...), m.deletes.version())
	for _, v := range []uint64{uint64(m.shard), m.flushed.index, m.flushed.term, m.next, m.series} {
		dst = le.AppendUint64(dst, v)
	}
	dst = le.AppendUint32(dst, uint32(len(m.segments)))
	for i := range m.segments {
		s := &m.segments[i]
		dst = s.fileMeta.append(dst)
		for _, v := range []uint64{uint64(s.level), s.minIndex, s.maxIndex, uint64(s.minTime), uint64(s.maxTime), s.rows} {
			dst = le.AppendUint64(dst, v)
		}
	}
	dst = le.AppendUint32(dst, uint32(len(m.indexes)))
	for _, f := range m.indexes {
		dst = f.append(dst)
	}
	dst = le.AppendUint32(dst, uint32(len(m.tombstones)))
	for i := range m.tombstones {
		t := &m.tombstones[i]
		dst = le.AppendUint64(dst, t.index)
		dst = le.AppendUint64(dst, uint64(t.rng.Start))
		dst = le.AppendUint64(dst, uint64(t.rng.End))
		dst = le.AppendUint32(dst, uint32(len(t.series)))
		for _, id := range t.series {
			dst = le.AppendUint32(dst, uint32(id))
		}
	}
	at := len(dst)
	dst = m.window.Append(append(dst, 0, 0, 0, 0))
	le.PutUint32(dst[at:], uint32(len(dst)-at-4))
	dst = m.deletes.append(dst)
	return append(dst[:start], seal(dst[start:])...)
}

// seal appends the checksum of a file.
func seal(file []byte) []byte {
	return binary.LittleEndian.AppendUint32(file, crc32.Checksum(file, castagnoli))
}

// decodeManifest decodes what append wrote. It reports KindCorrupt with the
// offset where the bytes are wrong, and KindInvalid for a newer format.
func decodeManifest(src []byte) (*manifest, error) {
	const head = len(manifestMagic) + 1
	if len(src) < head+4 || string(src[:head-1]) != manifestMagic || src[head-1] < manifestV1 {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "offset 0: no manifest")
	}
	end := len(src) - 4
	if got, want := crc32.Checksum(src[:end], castagnoli), binary.LittleEndian.Uint32(src[end:]); got != want {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "offset %d: checksum is %08x, not %08x", end, want, got)
	}
	if v := src[head-1]; v > manifestV4 {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "manifest of format %d, this program reads up to %d: %w", v, manifestV4, dsdb.ErrNewer)
	}
	r := &fixedReader{src: src[:end], at: head}
	m := &manifest{shard: dsdb.ShardID(r.u64()), window: &dedupe.Window{}}
	m.flushed = position{r.u64(), r.u64()}
	m.next, m.series = r.u64(), r.u64()
	for range r.count(68) {
		m.segments = append(m.segments, r.segment())
	}
	for range r.count(20) {
		m.indexes = append(m.indexes, r.file())
	}
	for range r.count(28) {
		t := tombstone{index: r.u64(), rng: dsdb.TimeRange{Start: int64(r.u64()), End: int64(r.u64())}}
		for range r.count(4) {
			t.series = append(t.series, dsdb.SeriesID(r.u32()))
		}
		m.tombstones = append(m.tombstones, t)
	}
	if src[head-1] >= manifestV2 {
		r.window(m.window)
	}
	if src[head-1] >= manifestV3 {
		r.deletes(&m.deletes)
	}
	if src[head-1] >= manifestV4 {
		m.deletes.fence = r.u64()
		r.bad = r.bad || m.deletes.fence == 0
	}
	if r.bad || r.at != end || !m.ordered() {
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "offset %d: malformed manifest", r.at)
	}
	return m, nil
}

// ordered reports whether the segments' index ranges ascend up to flushed.
func (m *manifest) ordered() bool {
	last := uint64(0)
	for i := range m.segments {
		s := &m.segments[i]
		if s.minIndex <= last || s.maxIndex < s.minIndex {
			return false
		}
		last = s.maxIndex
	}
	if n := len(m.deletes.kept); n > 0 && m.deletes.kept[n-1].index > m.flushed.index {
		return false
	}
	return last <= m.flushed.index
}

// fixedReader reads numbers of fixed width. Beyond the end bad is set and
// every value is zero.
type fixedReader struct {
	src []byte
	at  int
	bad bool
}

func (r *fixedReader) u64() uint64 {
	if r.bad || len(r.src)-r.at < 8 {
		r.bad = true
		return 0
	}
	r.at += 8
	return binary.LittleEndian.Uint64(r.src[r.at-8:])
}

func (r *fixedReader) u32() uint32 {
	if r.bad || len(r.src)-r.at < 4 {
		r.bad = true
		return 0
	}
	r.at += 4
	return binary.LittleEndian.Uint32(r.src[r.at-4:])
}

// count reads the number of things that take at least size bytes each.
func (r *fixedReader) count(size int) int {
	n := int(r.u32())
	if n > (len(r.src)-r.at)/size {
		r.bad = true
		return 0
	}
	return n
}

// take reads a length and as many bytes.
func (r *fixedReader) take() []byte {
	n := r.count(1)
	r.at += n
	return r.src[r.at-n : r.at]
}

// window reads a window and the length before it.
func (r *fixedReader) window(w *dedupe.Window) {
	if b := r.take(); !r.bad && w.Load(b) != nil {
		r.bad = true
	}
}

func (r *fixedReader) file() fileMeta {
	return fileMeta{number: r.u64(), size: int64(r.u64()), crc: r.u32()}
}

func (r *fixedReader) segment() segmentMeta {
	s := segmentMeta{fileMeta: r.file(), level: int(r.u64()), minIndex: r.u64(), maxIndex: r.u64()}
	s.minTime, s.maxTime, s.rows = int64(r.u64()), int64(r.u64()), r.u64()
	return s
}

// readManifest reads a manifest file; an error that wraps fs.ErrNotExist means there is none.
func readManifest(fs vfs.FS, name string) (*manifest, error) {
	src, err := vfs.ReadFile(fs, name)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// prepareManifest makes the names of the files that m names durable, and
// writes m beside the manifest in force.
func prepareManifest(fs vfs.FS, dir string, m *manifest) error {
	if err := fs.SyncDir(dir); err != nil {
		return err
	}
	return vfs.WriteFile(fs, path.Join(dir, manifestTemp), m.append(nil))
}

// commitManifest puts the prepared manifest in force, durably. If it fails
// either manifest may be in force after a crash: the files of both must stay.
func commitManifest(fs vfs.FS, dir string) error {
	if mutant.ManifestNameUnsynced {
		return fs.Rename(path.Join(dir, manifestTemp), path.Join(dir, manifestName))
	}
	return vfs.Replace(fs, path.Join(dir, manifestTemp), path.Join(dir, manifestName))
}
