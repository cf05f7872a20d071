// Package series is the index of one shard: canonical series key ↔ series id,
// the dictionaries of measurements and fields with the fields' types, and the
// tags of the series, by which a query finds them.
//
// Ids of series, measurements and fields start at 1, are given in order of
// first appearance and never given again, so that replicas which apply the
// same log agree. A key goes through a hash table to an id when it is written;
// tags are only taken apart by the first query that asks for them. A query
// works on a View, which does not move while the index grows.
//
// The package does no I/O: what must survive is encoded into the files that
// FORMAT.md describes, and the shard writes and names them. It knows no query
// language; conditions arrive as dsdb.TagExpr.
package series

import (
	"bytes"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// Index is the index of one shard. One goroutine changes it; any number may
// take and use a View meanwhile.
type Index struct {
	mu           sync.RWMutex // guards all below
	keys         table        // series id ↔ canonical key
	owner        []uint32     // series id-1 → measurement id, 0: no such series
	deleted      column.Bitmap
	live         int   // series that are not deleted
	names        table // measurement id ↔ name
	measurements []*measurement
	fields       table  // field id ↔ name
	changes      uint64 // of types
}

// measurement is what the index knows of one measurement. The position of a
// series in ids is its ordinal, by which the tag index counts.
type measurement struct {
	name  string
	ids   []dsdb.SeriesID // ascending; with deleted ones
	live  int             // ids that are not deleted
	types []FieldType     // in order of first appearance; replaced, never changed
	at    uint64          // the index's changes when types were replaced
	tags  tagIndex
}

// FieldType is the type of one field of a measurement.
type FieldType struct {
	Field uint32
	Type  dsdb.FieldType
}

// New returns an empty index.
func New() *Index {
	return &Index{keys: newTable(), names: newTable(), fields: newTable()}
}

// Measurement returns the id of a measurement and makes it if it is new.
func (x *Index) Measurement(name string) uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.measurement(name)
}

func (x *Index) measurement(name string) uint32 {
	id, fresh := x.names.insert([]byte(name))
	if fresh {
		x.measurements = append(x.measurements, &measurement{name: name})
	}
	return id
}

// Field returns the id of a field name and makes it if it is new.
func (x *Index) Field(name string) uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	id, _ := x.fields.insert([]byte(name))
	return id
}

// FieldType returns the type that a field of a measurement was fixed to, NoType if none was.
func (x *Index) FieldType(measurement, field uint32) dsdb.FieldType {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, t := range x.measurements[measurement-1].types {
		if t.Field == field {
			return t.Type
		}
	}
	return dsdb.NoType
}

// FixType fixes the type of a field of a measurement that has none yet.
func (x *Index) FixType(measurement, field uint32, typ dsdb.FieldType) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.measurements[measurement-1]
	x.setTypes(m, append(m.types[:len(m.types):len(m.types)], FieldType{field, typ}))
}

func (x *Index) setTypes(m *measurement, types []FieldType) {
	x.changes++
	m.types, m.at = types, x.changes
}

// Insert appends to dst the ids of the series of a measurement with the given
// canonical keys, and makes those that are new. want[i] false leaves key i out:
// its id is 0. A nil want means all. The id of a key that cannot be one of the
// measurement's is 0 too.
func (x *Index) Insert(dst []dsdb.SeriesID, measurement uint32, keys *column.Keys, want []bool) []dsdb.SeriesID {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.measurements[measurement-1]
	guess := dsdb.SeriesID(0)
	for i := range keys.Len() {
		if want != nil && !want[i] {
			dst = append(dst, 0)
			continue
		}
		key := keys.At(i)
		// Writers send their series in the same order again and again, so the next
		// one is mostly the one that was made next.
		if id := guess + 1; guess != 0 && int(id) <= x.keys.len() && x.owner[id-1] == measurement && x.alive(id) && bytes.Equal(x.keys.arena.at(uint32(id)), key) {
			dst, guess = append(dst, id), id
			continue
		}
		guess = x.insert(m, measurement, key)
		dst = append(dst, guess)
	}
	return dst
}

func (x *Index) insert(m *measurement, mid uint32, key []byte) dsdb.SeriesID {
	hash := x.keys.hash(key)
	if id := x.keys.findHash(key, hash); id != 0 {
		if x.owner[id-1] != mid {
			return 0
		}
		return dsdb.SeriesID(id)
	}
	if !validKey(key, m.name) {
		return 0
	}
	id := dsdb.SeriesID(x.keys.addHash(key, hash))
	x.adopt(m, mid, id)
	return id
}

// Find appends to dst the ids of the series of a measurement with the given
// canonical keys, 0 for those that there are not.
func (x *Index) Find(dst []dsdb.SeriesID, measurement string, keys *column.Keys) []dsdb.SeriesID {
	x.mu.RLock()
	defer x.mu.RUnlock()
	m := x.names.find([]byte(measurement))
	for i := range keys.Len() {
		id := x.keys.find(keys.At(i))
		if id != 0 && x.owner[id-1] != m {
			id = 0
		}
		dst = append(dst, dsdb.SeriesID(id))
	}
	return dst
}

// adopt makes the newest key a series of a measurement.
func (x *Index) adopt(m *measurement, mid uint32, id dsdb.SeriesID) {
	x.owner = append(x.owner, mid)
	m.ids = append(m.ids, id)
	m.live++
	x.live++
}

// alive reports whether a series of the index is not deleted.
func (x *Index) alive(id dsdb.SeriesID) bool {
	return x.owner[id-1] != 0 && !isDeleted(x.deleted, id)
}

// isDeleted reports whether id is in a set that may be shorter than the index.
func isDeleted(deleted column.Bitmap, id dsdb.SeriesID) bool {
	return int(id>>6) < len(deleted) && deleted.Get(int(id))
}

// Drop forgets series: their keys get new ids if they are written again. When
// a measurement loses its last series the types of its fields are free again.
// Views that were taken before keep them.
func (x *Index) Drop(ids []dsdb.SeriesID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(ids)
	for _, id := range ids {
		if m := x.owner[id-1]; m != 0 && x.measurements[m-1].live == 0 {
			x.setTypes(x.measurements[m-1], nil)
		}
	}
}

// drop forgets series and leaves the types alone.
func (x *Index) drop(ids []dsdb.SeriesID) {
	if len(ids) == 0 {
		return
	}
	deleted := column.NewBitmap(x.keys.len() + 1)
	copy(deleted, x.deleted)
	for _, id := range ids {
		if x.owner[id-1] == 0 || deleted.Get(int(id)) {
			continue
		}
		deleted.Set(int(id))
		x.keys.remove(uint32(id))
		x.live--
		x.measurements[x.owner[id-1]-1].live--
	}
	x.deleted = deleted
}

// Stats are figures about an index.
type Stats struct {
	Series       int    // that are not deleted
	LastID       uint32 // the highest series id given so far
	Measurements int    // that ever had a series
	KeyBytes     int64  // of the arena of keys
}

// Stats returns figures about the index.
func (x *Index) Stats() Stats {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return Stats{Series: x.live, LastID: uint32(x.keys.len()), Measurements: len(x.measurements), KeyBytes: x.keys.arena.size}
}

// validKey reports whether key has the structure of the canonical key of a
// series of the measurement.
func validKey(key []byte, measurement string) bool {
	m, rest := cut(key, ',')
	if !equalUnescaped(m, measurement) {
		return false
	}
	for rest != nil {
		var tag []byte
		tag, rest = cut(rest, ',')
		if k, v := cut(tag, '='); len(k) == 0 || len(v) == 0 {
			return false
		}
	}
	return true
}
