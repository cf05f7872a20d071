package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
)

// Reader reads one segment through a mapping of its file. It is safe for
// concurrent use; after Close nothing that came from it may be used.
//
// A mapping can fault when the file is truncated or its disk fails: run what
// reads from a Reader under Guard.
type Reader struct {
	name    string
	file    vfs.File
	data    []byte
	unmap   func() error
	header  Header
	pages   pageMap
	info    Info
	groups  []group // ascending by measurement
	tables  map[uint32]*lazyTable
	batches int // record batches
}

// group is the blocks of one measurement.
type group struct {
	id     uint32
	blocks []block // ascending by series
}

// block is some consecutive series of one measurement.
type block struct {
	sids       []byte // their ids, 4 bytes each, ascending
	tmin, tmax int64
	columns    []blockColumn // ascending by field; the first is the times
}

// blockColumn is the chunks of one column of a block.
type blockColumn struct {
	field    uint32
	kind     uint8
	values   uint64
	off, len int64 // in the file
}

func (b *block) count() int       { return len(b.sids) / 4 }
func (b *block) sid(i int) uint32 { return binary.LittleEndian.Uint32(b.sids[4*i:]) }
func (b *block) first() uint32    { return b.sid(0) }

// pageMap knows the checksum of each page and which pages were found to be right.
type pageMap struct {
	sums     []byte // 4 bytes each
	covered  int64
	verified []atomic.Uint64
}

// Open maps f, which it owns from now on, also if it fails, and verifies its
// footer and metadata. It reports KindCorrupt, with name and offset, if they
// are not what was written, and KindInvalid if a newer version wrote them.
func Open(f vfs.File) (*Reader, error) {
	data, unmap, err := f.Map()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("segment %s: %w", f.Name(), err)
	}
	r := &Reader{name: f.Name(), file: f, data: data, unmap: unmap, tables: map[uint32]*lazyTable{}}
	if err := r.Guard(r.load); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close releases the mapping and closes the file. It is idempotent.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.unmap()
	if cerr := r.file.Close(); err == nil {
		err = cerr
	}
	r.file, r.data = nil, nil
	return err
}

// Guard runs fn and returns its error. A memory fault in fn, as a failing disk
// under a mapped file makes, becomes an error too.
func Guard(fn func() error) error { return (&Reader{}).Guard(fn) }

// Guard is like the function Guard; its error names the file and the offset if
// the fault lies in this one.
func (r *Reader) Guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		fault, ok := p.(interface{ Addr() uintptr })
		if !ok {
			panic(p)
		}
		off := fault.Addr() - uintptr(unsafe.Pointer(unsafe.SliceData(r.data)))
		if off < uintptr(len(r.data)) {
			err = r.corrupt(int64(off), "the file cannot be read")
			return
		}
		err = dsdb.Errorf(dsdb.KindCorrupt, "segment: reading a mapped file failed at address %#x", fault.Addr())
	}()
	return fn()
}

// corrupt reports that the bytes at an offset are not what was written.
func (r *Reader) corrupt(off int64, format string, args ...any) error {
	return dsdb.Errorf(dsdb.KindCorrupt, "segment %s: at offset %d: %s", r.name, off, fmt.Sprintf(format, args...))
}

const arrowMagic = "ARROW1"

// load reads seal, footer and records into r.
func (r *Reader) load() error {
	footer, err := r.loadSeal()
	if err != nil {
		return err
	}
	root := fbRoot(footer)
	if err := r.loadHeader(root.table(1)); err != nil {
		return err
	}
	pos, n := root.vector(3, 24)
	rows := &rowSet{r: r}
	for i := range n {
		off := fbInt64(footer, pos+24*i)
		meta := fbUint32(footer, pos+24*i+8)
		body := fbInt64(footer, pos+24*i+16)
		if err := r.loadRecord(rows, off, int64(meta), body); err != nil {
			return err
		}
	}
	return rows.index()
}

// loadSeal verifies the seal and the footer, and returns the FlatBuffer of the latter.
func (r *Reader) loadSeal() ([]byte, error) {
	size := int64(len(r.data))
	if size < trailerSize+10 || string(r.data[size-6:]) != arrowMagic {
		return nil, r.corrupt(max(size-6, 0), "not a segment: no %s at the end", arrowMagic)
	}
	tail := size - 10
	flat := int64(binary.LittleEndian.Uint32(r.data[tail:]))
	end := tail - flat // of the trailer
	if end < trailerSize {
		return nil, r.corrupt(tail, "footer of %d bytes", flat)
	}
	t := r.data[end-trailerSize : end]
	if string(t[trailerSize-8:]) != sealMagic {
		return nil, r.corrupt(end-8, "no seal")
	}
	if v := binary.LittleEndian.Uint32(t[28:]); v > Version {
		return nil, dsdb.Errorf(dsdb.KindInvalid, "segment %s: written in format %d, this program reads up to %d: %w", r.name, v, Version, dsdb.ErrNewer)
	}
	covered := binary.LittleEndian.Uint64(t)
	if covered > uint64(end-trailerSize) {
		return nil, r.corrupt(end-trailerSize, "seal covers %d bytes", covered)
	}
	pages := (int64(covered) + pageSize - 1) / pageSize
	if int64(covered)+4*pages != end-trailerSize {
		return nil, r.corrupt(end-trailerSize, "seal of %d pages", pages)
	}
	if crc32.Checksum(r.data[covered:end-16], castagnoli) != binary.LittleEndian.Uint32(t[24:]) {
		return nil, r.corrupt(int64(covered), "checksum of the seal")
	}
	footer := r.data[end:]
	if uint32(len(footer)) != binary.LittleEndian.Uint32(t[8:]) ||
		crc32.Checksum(footer, castagnoli) != binary.LittleEndian.Uint32(t[12:]) {
		return nil, r.corrupt(end, "checksum of the footer")
	}
	r.pages = pageMap{
		sums: r.data[covered : int64(covered)+4*pages], covered: int64(covered),
		verified: make([]atomic.Uint64, (pages+63)/64),
	}
	return footer[:flat], nil
}

// loadHeader reads the metadata of the schema.
func (r *Reader) loadHeader(schema fbTable) error {
	values := map[string]uint64{}
	pos, n := schema.vector(2, 4)
	for i := range n {
		p := pos + 4*i
		kv := fbTable{schema.b, p + fbUint32(schema.b, p)}
		v, err := strconv.ParseInt(kv.str(1), 10, 64)
		u, uerr := strconv.ParseUint(kv.str(1), 10, 64)
		if err != nil && uerr != nil {
			continue
		}
		if uerr != nil {
			u = uint64(v)
		}
		values[kv.str(0)] = u
	}
	if v := values[metaFormat]; v != Version {
		return r.corrupt(int64(len(r.data)), "schema of format %d", v)
	}
	r.header = Header{
		Shard: dsdb.ShardID(values[metaShard]), Level: int(values[metaLevel]), Seq: values[metaSeq],
		MinIndex: values[metaMinIndex], MaxIndex: values[metaMaxIndex],
	}
	return nil
}

// touch verifies the pages that hold [off, off+n), once each until Doubt.
func (r *Reader) touch(off, n int64) error {
	if off < 0 || n < 0 || off > r.pages.covered-n {
		return r.corrupt(off, "%d bytes reach past the data", n)
	}
	if n == 0 {
		return nil
	}
	for p := off / pageSize; p <= (off+n-1)/pageSize; p++ {
		if r.pages.verified[p>>6].Load()>>(uint(p)&63)&1 == 0 {
			if err := r.verifyPage(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Reader) verifyPage(p int64) error {
	start := p * pageSize
	end := min(start+pageSize, r.pages.covered)
	if crc32.Checksum(r.data[start:end], castagnoli) != binary.LittleEndian.Uint32(r.pages.sums[4*p:]) && !mutant.PageChecksumSkipped {
		return r.corrupt(start, "checksum of the page")
	}
	r.pages.verified[p>>6].Or(1 << (uint(p) & 63))
	return nil
}

// Doubt has every page verified again at its next use: what a disk holds may change
// under a file that is open for long.
func (r *Reader) Doubt() {
	for i := range r.pages.verified {
		r.pages.verified[i].Store(0)
	}
}

// bytes returns verified bytes of the file. Their capacity reaches a few bytes
// on for wide loads; what lies there is not verified and must not matter.
func (r *Reader) bytes(off, n int64) ([]byte, error) {
	if err := r.touch(off, n); err != nil {
		return nil, err
	}
	return r.data[off : off+n : min(off+n+8, int64(len(r.data)))], nil
}

// Verify checks every checksum of the file, whether or not it was checked before.
func (r *Reader) Verify() error {
	return r.Guard(func() error {
		if _, err := (&Reader{name: r.name, data: r.data}).loadSeal(); err != nil {
			return err
		}
		for p := range int64(len(r.pages.sums) / 4) {
			if err := r.verifyPage(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// Header returns what the writer was given.
func (r *Reader) Header() Header { return r.header }

// MinTime returns the least time of a row, 0 if there is none.
func (r *Reader) MinTime() int64 { return r.info.MinTime }

// MaxTime returns the greatest time of a row, 0 if there is none.
func (r *Reader) MaxTime() int64 { return r.info.MaxTime }

// Size returns the bytes of the file.
func (r *Reader) Size() int64 { return r.info.Size }

// Rows returns the number of rows.
func (r *Reader) Rows() uint64 { return r.info.Rows }

// Values returns the number of field values that are not null.
func (r *Reader) Values() uint64 { return r.info.Values }

// Measurements returns the measurements that have rows, ascending.
func (r *Reader) Measurements() []uint32 {
	ids := make([]uint32, len(r.groups))
	for i := range r.groups {
		ids[i] = r.groups[i].id
	}
	return ids
}

// Series appends the series of a measurement that have rows, ascending.
func (r *Reader) Series(measurement uint32, dst []dsdb.SeriesID) []dsdb.SeriesID {
	g := r.group(measurement)
	if g == nil {
		return dst
	}
	for i := range g.blocks {
		for j := range g.blocks[i].count() {
			dst = append(dst, dsdb.SeriesID(g.blocks[i].sid(j)))
		}
	}
	return dst
}

// Fields appends the fields of a measurement that have values, ascending.
func (r *Reader) Fields(measurement uint32, dst []uint32) []uint32 {
	g := r.group(measurement)
	if g == nil {
		return dst
	}
	start := len(dst)
	for i := range g.blocks {
		for _, c := range g.blocks[i].columns[1:] {
			if at, ok := slices.BinarySearch(dst[start:], c.field); !ok {
				dst = slices.Insert(dst, start+at, c.field)
			}
		}
	}
	return dst
}

func (r *Reader) group(measurement uint32) *group {
	i := sort.Search(len(r.groups), func(i int) bool { return r.groups[i].id >= measurement })
	if i == len(r.groups) || r.groups[i].id != measurement {
		return nil
	}
	return &r.groups[i]
}

// find returns the block of a series and the series' place in it.
func (g *group) find(sid uint32) (*block, int) {
	i := sort.Search(len(g.blocks), func(i int) bool { return g.blocks[i].first() > sid }) - 1
	if i < 0 {
		return nil, 0
	}
	b := &g.blocks[i]
	j, ok := b.search(sid)
	if !ok {
		return nil, 0
	}
	return b, j
}

func (b *block) search(sid uint32) (int, bool) {
	lo, hi := 0, b.count()
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); b.sid(mid) < sid {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < b.count() && b.sid(lo) == sid
}

// noTimes are the bounds of no row at all.
var noTimes = Info{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
