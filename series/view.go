package series

import (
	"math/bits"
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// View is the index as it was when the view was taken. Safe for concurrent use.
type View struct {
	x       *Index
	last    dsdb.SeriesID // the highest id that existed
	keys    arena
	deleted column.Bitmap
}

// View returns the index as it is now.
func (x *Index) View() *View {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return &View{x: x, last: dsdb.SeriesID(x.keys.len()), keys: x.keys.arena, deleted: x.deleted}
}

// Key returns the canonical key of a series of the view; it must not be changed.
func (v *View) Key(id dsdb.SeriesID) []byte { return v.keys.at(uint32(id)) }

// Has reports whether a series exists in the view and is not deleted.
func (v *View) Has(id dsdb.SeriesID) bool {
	return id > 0 && id <= v.last && v.keys.pos[id-1] != noString && !isDeleted(v.deleted, id)
}

// MeasurementID returns the id of a measurement, 0 if there is none of that name.
func (v *View) MeasurementID(name string) uint32 {
	v.x.mu.RLock()
	defer v.x.mu.RUnlock()
	return v.x.names.find([]byte(name))
}

// FieldID returns the id of a field name, 0 if no measurement ever had it.
func (v *View) FieldID(name string) uint32 {
	v.x.mu.RLock()
	defer v.x.mu.RUnlock()
	return v.x.fields.find([]byte(name))
}

// measurement returns a measurement and its series as of the view, deleted
// ones included; nil if there is none of that name.
func (v *View) measurement(name string) (*measurement, []dsdb.SeriesID) {
	v.x.mu.RLock()
	defer v.x.mu.RUnlock()
	id := v.x.names.find([]byte(name))
	if id == 0 {
		return nil, nil
	}
	m := v.x.measurements[id-1]
	return m, v.cutIDs(m.ids)
}

// cutIDs cuts off the ids that are younger than the view.
func (v *View) cutIDs(ids []dsdb.SeriesID) []dsdb.SeriesID {
	if n := len(ids); n == 0 || ids[n-1] <= v.last {
		return ids
	}
	return ids[:sort.Search(len(ids), func(i int) bool { return ids[i] > v.last })]
}

// Measurements returns the names of the measurements that have a series, sorted.
func (v *View) Measurements() []string {
	v.x.mu.RLock()
	measurements := v.x.measurements
	lists := make([][]dsdb.SeriesID, len(measurements))
	for i, m := range measurements {
		lists[i] = v.cutIDs(m.ids)
	}
	v.x.mu.RUnlock()
	var names []string
	for i, ids := range lists {
		for _, id := range ids {
			if !isDeleted(v.deleted, id) {
				names = append(names, measurements[i].name)
				break
			}
		}
	}
	sort.Strings(names)
	return names
}

// Fields returns the fields of a measurement and their types, sorted by name.
func (v *View) Fields(measurement string) (names []string, types []dsdb.FieldType) {
	v.x.mu.RLock()
	defer v.x.mu.RUnlock()
	id := v.x.names.find([]byte(measurement))
	if id == 0 {
		return nil, nil
	}
	fields := append([]FieldType(nil), v.x.measurements[id-1].types...)
	name := func(i int) string { return string(v.x.fields.arena.at(fields[i].Field)) }
	sort.Slice(fields, func(i, j int) bool { return name(i) < name(j) })
	for i, f := range fields {
		names = append(names, name(i))
		types = append(types, f.Type)
	}
	return names, types
}

// Match returns the series of a measurement whose tags satisfy where, ascending.
func (v *View) Match(measurement string, where *dsdb.TagExpr) []dsdb.SeriesID {
	return v.Series(measurement, where, nil).IDs
}

// Series returns the series of a measurement whose tags satisfy where, and the
// values of the tag keys asked for. The set's dictionaries alias the index and
// must not be changed.
func (v *View) Series(measurement string, where *dsdb.TagExpr, keys []string) *column.SeriesSet {
	set := &column.SeriesSet{Keys: keys, Dict: make([][]string, len(keys)), Code: make([][]uint32, len(keys))}
	m, ids := v.measurement(measurement)
	if where == nil && len(keys) == 0 || len(ids) == 0 {
		for _, id := range ids {
			if !isDeleted(v.deleted, id) {
				set.IDs = append(set.IDs, id)
			}
		}
		for k := range keys {
			set.Dict[k] = noValues
		}
		return set
	}
	unlock := m.tags.lock(v, ids)
	defer unlock()
	var ordinals []uint32
	set.IDs, ordinals = v.selectIDs(ids, m.tags.match(where, len(ids)))
	for k, key := range keys {
		set.Dict[k], set.Code[k] = m.tags.gather(key, ordinals)
	}
	return set
}

// selectIDs returns the ids of the marked ordinals that are not deleted, and their ordinals.
func (v *View) selectIDs(ids []dsdb.SeriesID, marked column.Bitmap) (out []dsdb.SeriesID, ordinals []uint32) {
	n := 0
	for _, word := range marked {
		n += bits.OnesCount64(word)
	}
	out, ordinals = make([]dsdb.SeriesID, 0, n), make([]uint32, 0, n)
	for w, word := range marked {
		for ; word != 0; word &= word - 1 {
			ord := w<<6 + bits.TrailingZeros64(word)
			if !isDeleted(v.deleted, ids[ord]) {
				out, ordinals = append(out, ids[ord]), append(ordinals, uint32(ord))
			}
		}
	}
	return out, ordinals
}

// TagKeys returns the tag keys that series of a measurement have, sorted.
func (v *View) TagKeys(measurement string) []string {
	m, ids := v.measurement(measurement)
	if len(ids) == 0 {
		return nil
	}
	unlock := m.tags.lock(v, ids)
	defer unlock()
	var names []string
	for _, key := range m.tags.keys {
		for ord, code := range key.codes[:min(len(key.codes), len(ids))] {
			if code != 0 && !isDeleted(v.deleted, ids[ord]) {
				names = append(names, key.name)
				break
			}
		}
	}
	sort.Strings(names)
	return names
}
