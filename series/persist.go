package series

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// The frame of an index file; FORMAT.md describes it.
const (
	fileMagic   = "DSDBIDX\x01"
	fileTrailer = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// State is what an Index held at some moment, kept to be written later.
type State struct {
	keys          arena
	owner         []uint32
	deleted       column.Bitmap
	names, fields arena
	types         [][]FieldType // by measurement id - 1
	at            []uint64      // when they changed
	changes       uint64
	live          int
}

// State returns what the index holds now. It costs a little per measurement
// and nothing per series.
func (x *Index) State() *State {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s := &State{keys: x.keys.arena, owner: x.owner, deleted: x.deleted, names: x.names.arena, fields: x.fields.arena, changes: x.changes, live: x.live}
	for _, m := range x.measurements {
		s.types = append(s.types, m.types)
		s.at = append(s.at, m.at)
	}
	return s
}

// Has reports whether a series existed and was not deleted.
func (s *State) Has(id dsdb.SeriesID) bool {
	return id > 0 && int(id) <= len(s.owner) && s.owner[id-1] != 0 && !isDeleted(s.deleted, id)
}

// Len returns the number of series that existed and were not deleted.
func (s *State) Len() int { return s.live }

// Same reports whether nothing was added, typed or dropped between old and s.
func (s *State) Same(old *State) bool {
	return len(s.owner) == len(old.owner) && s.fields.len() == old.fields.len() && s.names.len() == old.names.len() &&
		s.changes == old.changes && len(s.dropped(old)) == 0
}

// dropped returns the series that were dropped between old and s.
func (s *State) dropped(old *State) (ids []uint32) {
	for w, word := range s.deleted {
		if w < len(old.deleted) && word == old.deleted[w] {
			continue
		}
		for bit := range 64 {
			id := dsdb.SeriesID(w<<6 + bit)
			if isDeleted(s.deleted, id) && !isDeleted(old.deleted, id) && int(id) <= len(old.owner) {
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids
}

// AppendFile appends an index file that holds what s has beyond old, an
// earlier state of the same index; new(State) stands for the empty index.
func (s *State) AppendFile(dst []byte, old *State) []byte {
	start := len(dst)
	dst = append(dst, fileMagic...)
	dst = appendNames(dst, &s.names, old.names.len())
	dst = appendNames(dst, &s.fields, old.fields.len())
	dst = appendIDs(dst, s.dropped(old))
	dst = s.appendSeries(dst, old)
	dst = s.appendTypes(dst, old)
	return append(dst[:start], seal(dst[start:])...)
}

// seal appends the checksum of a file.
func seal(file []byte) []byte {
	return binary.LittleEndian.AppendUint32(file, crc32.Checksum(file, castagnoli))
}

// appendNames appends the names after the first n.
func appendNames(dst []byte, names *arena, n int) []byte {
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(names.len()-n))
	for i := n; i < names.len(); i++ {
		name := names.at(uint32(i) + 1)
		dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
	}
	return dst
}

// appendIDs appends ascending ids as differences.
func appendIDs(dst []byte, ids []uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	last := uint32(0)
	for _, id := range ids {
		dst = binary.AppendUvarint(dst, uint64(id-last))
		last = id
	}
	return dst
}

// appendSeries appends the series after those of old that are not deleted.
func (s *State) appendSeries(dst []byte, old *State) []byte {
	live := 0
	for i := len(old.owner); i < len(s.owner); i++ {
		if s.owner[i] != 0 && !isDeleted(s.deleted, dsdb.SeriesID(i+1)) {
			live++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(old.owner)))
	dst = binary.AppendUvarint(dst, uint64(len(s.owner)))
	dst = binary.AppendUvarint(dst, uint64(live))
	last := len(old.owner)
	var before []byte
	for i := len(old.owner); i < len(s.owner); i++ {
		if s.owner[i] == 0 || isDeleted(s.deleted, dsdb.SeriesID(i+1)) {
			continue
		}
		key := s.keys.at(uint32(i) + 1)
		shared := sharedPrefix(before, key)
		dst = binary.AppendUvarint(dst, uint64(i+1-last))
		dst = binary.AppendUvarint(dst, uint64(s.owner[i]))
		dst = binary.AppendUvarint(dst, uint64(shared))
		dst = binary.AppendUvarint(dst, uint64(len(key)-shared))
		dst = append(dst, key[shared:]...)
		last, before = i+1, key
	}
	return dst
}

func sharedPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// appendTypes appends the types of the measurements whose types changed after old.
func (s *State) appendTypes(dst []byte, old *State) []byte {
	count := len(dst)
	n := uint64(0)
	var body []byte
	for i, types := range s.types {
		if s.at[i] <= old.changes && i < len(old.types) {
			continue
		}
		n++
		body = binary.AppendUvarint(body, uint64(i)+1)
		body = binary.AppendUvarint(body, uint64(len(types)))
		for _, t := range types {
			body = append(binary.AppendUvarint(body, uint64(t.Field)), byte(t.Type))
		}
	}
	return append(binary.AppendUvarint(dst[:count], n), body...)
}

// Load adds an index file to an index that holds what the files before it
// held. It reports KindCorrupt with the offset where the file is wrong, and
// KindInvalid for a newer format; the index is of no use then.
func (x *Index) Load(file []byte) error {
	const name = len(fileMagic) - 1 // the version follows
	if len(file) < len(fileMagic)+fileTrailer || !bytes.Equal(file[:name], []byte(fileMagic[:name])) {
		return dsdb.Errorf(dsdb.KindCorrupt, "offset 0: no index file")
	}
	end := len(file) - fileTrailer
	if got, want := crc32.Checksum(file[:end], castagnoli), binary.LittleEndian.Uint32(file[end:]); got != want {
		return dsdb.Errorf(dsdb.KindCorrupt, "offset %d: checksum is %08x, not %08x", end, want, got)
	}
	switch v, newest := file[name], fileMagic[name]; {
	case v > newest:
		return dsdb.Errorf(dsdb.KindInvalid, "index file of format %d, this program reads up to %d: %w", v, newest, dsdb.ErrNewer)
	case v < newest:
		return dsdb.Errorf(dsdb.KindCorrupt, "offset %d: index file of format %d", name, v)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := &fileReader{file: file[:end], at: len(fileMagic)}
	x.loadNames(r)
	x.loadFields(r)
	x.loadDropped(r)
	x.loadSeries(r)
	x.loadTypes(r)
	if r.bad || r.at != end {
		return dsdb.Errorf(dsdb.KindCorrupt, "offset %d: malformed index file", r.at)
	}
	return nil
}

func (x *Index) loadNames(r *fileReader) {
	if r.number() != x.names.len() {
		r.bad = true
	}
	for range r.count() {
		name := r.take(r.count())
		if r.bad || x.names.find(name) != 0 {
			r.bad = true
			return
		}
		x.measurement(string(name))
	}
}

func (x *Index) loadFields(r *fileReader) {
	if r.number() != x.fields.len() {
		r.bad = true
	}
	for range r.count() {
		name := r.take(r.count())
		if r.bad || x.fields.find(name) != 0 {
			r.bad = true
			return
		}
		x.fields.insert(name)
	}
}

func (x *Index) loadDropped(r *fileReader) {
	id := 0
	var ids []dsdb.SeriesID
	for range r.count() {
		id += r.number()
		if r.bad || id == 0 || id > len(x.owner) {
			r.bad = true
			return
		}
		ids = append(ids, dsdb.SeriesID(id))
	}
	x.drop(ids)
}

func (x *Index) loadSeries(r *fileReader) {
	if r.number() != len(x.owner) {
		r.bad = true
	}
	last, n := r.number(), r.count()
	if last < len(x.owner) || last > len(x.owner)+maxGap+n {
		r.bad = true
	}
	var key []byte
	for range n {
		gap, owner, shared := r.number(), r.number(), r.number()
		suffix := r.take(r.count())
		if r.bad || gap == 0 || gap > last-len(x.owner) || owner == 0 || owner > len(x.measurements) || shared > len(key) {
			r.bad = true
			return
		}
		key = append(key[:shared], suffix...)
		x.skipTo(len(x.owner) + gap - 1)
		hash := x.keys.hash(key)
		if x.keys.findHash(key, hash) != 0 {
			r.bad = true
			return
		}
		id := dsdb.SeriesID(x.keys.addHash(key, hash))
		x.adopt(x.measurements[owner-1], uint32(owner), id)
	}
	if !r.bad {
		x.skipTo(last)
	}
}

// maxGap bounds the series ids that one file may leave out, against files that
// are not what we wrote.
const maxGap = 1 << 28

// skipTo gives ids up to last to no series.
func (x *Index) skipTo(last int) {
	n := last - len(x.owner)
	x.keys.arena.skip(n)
	x.owner = append(x.owner, make([]uint32, n)...)
}

func (x *Index) loadTypes(r *fileReader) {
	for range r.count() {
		m, n := r.number(), r.count()
		if r.bad || m == 0 || m > len(x.measurements) {
			r.bad = true
			return
		}
		types := make([]FieldType, 0, n)
		for range n {
			field, typ := r.number(), r.take(1)
			if r.bad || field == 0 || field > x.fields.len() || typ[0] == 0 || dsdb.FieldType(typ[0]) > dsdb.String {
				r.bad = true
				return
			}
			types = append(types, FieldType{uint32(field), dsdb.FieldType(typ[0])})
		}
		x.setTypes(x.measurements[m-1], types)
	}
}

// fileReader reads a file from front to back. Once something is malformed bad
// is set and every further value is zero.
type fileReader struct {
	file []byte
	at   int
	bad  bool
}

// number reads an unsigned number below 2^32.
func (r *fileReader) number() int {
	v, n := binary.Uvarint(r.file[r.at:])
	if r.bad || n <= 0 || v >= 1<<32 {
		r.bad = true
		return 0
	}
	r.at += n
	return int(v)
}

// count reads the number of things of which each takes at least a byte of the file.
func (r *fileReader) count() int {
	n := r.number()
	if n > len(r.file)-r.at {
		r.bad = true
		return 0
	}
	return n
}

// take reads n bytes; they alias the file.
func (r *fileReader) take(n int) []byte {
	if r.bad || n > len(r.file)-r.at {
		r.bad = true
		return nil
	}
	r.at += n
	return r.file[r.at-n : r.at]
}
