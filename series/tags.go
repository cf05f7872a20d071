package series

import (
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// tagIndex holds the tags of the series of one measurement column by column:
// per tag key a dictionary of its values and, per ordinal of a series, a code
// into it. It is brought up to date by the query that needs it.
type tagIndex struct {
	mu    sync.RWMutex // guards all below
	built int          // ordinals whose tags are in
	keys  []*tagKey    // in order of first appearance
}

// tagKey is one column. Code 0 is "", no such tag; ordinals beyond codes have it too.
type tagKey struct {
	name   string
	values []string // code → value; only ever appended to
	code   map[string]uint32
	codes  []uint32 // ordinal → code

	// Postings of the ordinals below posted: those of code c, ascending, are
	// ordinals[starts[c]:starts[c+1]]. The ordinals from posted on are read from codes.
	posted   int
	starts   []uint32
	ordinals []uint32
}

// noValues is the dictionary of a key that no series has.
var noValues = []string{""}

// lock makes sure that the tags of ids, the first series of the measurement,
// are in and locks the index for reading.
func (t *tagIndex) lock(v *View, ids []dsdb.SeriesID) (unlock func()) {
	t.mu.RLock()
	if t.built < len(ids) {
		t.mu.RUnlock()
		t.mu.Lock()
		t.extend(v, ids)
		t.mu.Unlock()
		t.mu.RLock()
	}
	return t.mu.RUnlock
}

// extend takes the keys of the series from ordinal built on apart.
func (t *tagIndex) extend(v *View, ids []dsdb.SeriesID) {
	for ; t.built < len(ids); t.built++ {
		_, rest := cut(v.Key(ids[t.built]), ',')
		for position := 0; rest != nil; position++ {
			var tag []byte
			tag, rest = cut(rest, ',')
			name, value := cut(tag, '=')
			t.keyAt(name, position).set(t.built, value)
		}
	}
	for _, k := range t.keys {
		if tail := len(k.codes) - k.posted; tail > 1024 && tail > k.posted/4 {
			k.post()
		}
	}
}

// keyAt returns the column of an escaped tag key, which is probably the position-th.
func (t *tagIndex) keyAt(escaped []byte, position int) *tagKey {
	if position < len(t.keys) && t.keys[position].name == string(escaped) {
		return t.keys[position]
	}
	name := text(escaped, ",= ")
	if k := t.find(name); k != nil {
		return k
	}
	k := &tagKey{name: name, values: []string{""}, code: map[string]uint32{}}
	t.keys = append(t.keys, k)
	return k
}

// find returns the column of a tag key, nil if no series has it.
func (t *tagIndex) find(name string) *tagKey {
	for _, k := range t.keys {
		if k.name == name {
			return k
		}
	}
	return nil
}

// set notes the value of the series at ordinal, which is not below any set
// before; of two values the first counts.
func (k *tagKey) set(ordinal int, escaped []byte) {
	if len(k.codes) > ordinal {
		return
	}
	value := text(escaped, ",= ")
	code, ok := k.code[value]
	if !ok {
		code = uint32(len(k.values))
		k.values = append(k.values, value)
		k.code[value] = code
	}
	for len(k.codes) < ordinal {
		k.codes = append(k.codes, 0)
	}
	k.codes = append(k.codes, code)
}

// post sorts the ordinals by code, by counting.
func (k *tagKey) post() {
	k.posted = len(k.codes)
	k.starts = make([]uint32, len(k.values)+1)
	for _, code := range k.codes {
		k.starts[code]++
	}
	sum := uint32(0)
	for c, n := range k.starts {
		k.starts[c] = sum
		sum += n
	}
	k.ordinals = make([]uint32, len(k.codes))
	for ord, code := range k.codes {
		k.ordinals[k.starts[code]] = uint32(ord)
		k.starts[code]++
	}
	copy(k.starts[1:], k.starts) // each start had moved on to the next
	k.starts[0] = 0
}

// gather returns the dictionary of a key and the codes of some ordinals.
func (t *tagIndex) gather(key string, ordinals []uint32) (dict []string, codes []uint32) {
	codes = make([]uint32, len(ordinals))
	k := t.find(key)
	if k == nil {
		return noValues, codes
	}
	for i, ord := range ordinals {
		if int(ord) < len(k.codes) {
			codes[i] = k.codes[ord]
		}
	}
	return k.values[:len(k.values):len(k.values)], codes
}

// match returns the ordinals below n whose tags satisfy where. Conditions are
// evaluated once per distinct value, then ordinals are found by code.
func (t *tagIndex) match(where *dsdb.TagExpr, n int) column.Bitmap {
	if where == nil {
		return all(n)
	}
	switch where.Op {
	case dsdb.TagAnd:
		out := t.match(where.Args[0], n)
		for _, arg := range where.Args[1:] {
			for i, word := range t.match(arg, n) {
				out[i] &= word
			}
		}
		return out
	case dsdb.TagOr:
		out := t.match(where.Args[0], n)
		for _, arg := range where.Args[1:] {
			for i, word := range t.match(arg, n) {
				out[i] |= word
			}
		}
		return out
	}
	k := t.find(where.Key)
	if k == nil {
		if where.MatchValue("") {
			return all(n)
		}
		return column.NewBitmap(n)
	}
	return k.match(where, n)
}

// match returns the ordinals below n whose value satisfies a comparison. It
// looks for the values that the comparison is false for if that are fewer.
func (k *tagKey) match(where *dsdb.TagExpr, n int) column.Bitmap {
	empty := where.MatchValue("")
	odd := k.codesWhere(where, !empty) // the codes that do not do as "" does
	out := column.NewBitmap(n)
	for _, code := range odd {
		if int(code)+1 < len(k.starts) {
			for _, ord := range k.ordinals[k.starts[code]:k.starts[code+1]] {
				if int(ord) < n {
					out.Set(int(ord))
				}
			}
		}
	}
	k.matchTail(out, odd, n)
	if empty {
		for i, word := range all(n) {
			out[i] = word &^ out[i]
		}
	}
	return out
}

// matchTail marks the ordinals below n that have no postings yet and one of the codes.
func (k *tagKey) matchTail(out column.Bitmap, codes []uint32, n int) {
	n = min(n, len(k.codes))
	if k.posted >= n || len(codes) == 0 {
		return
	}
	wanted := make([]bool, len(k.values))
	for _, code := range codes {
		wanted[code] = true
	}
	for ord := k.posted; ord < n; ord++ {
		if wanted[k.codes[ord]] {
			out.Set(ord)
		}
	}
}

// codesWhere returns the codes of the values, but for "", for which a comparison is as wanted.
func (k *tagKey) codesWhere(where *dsdb.TagExpr, want bool) []uint32 {
	equal := where.Op == dsdb.TagEqual || where.Op == dsdb.TagNotEqual
	if equal && where.Value != "" {
		if code, ok := k.code[where.Value]; ok {
			return []uint32{code}
		}
		return nil
	}
	var codes []uint32
	for code := 1; code < len(k.values); code++ {
		if where.MatchValue(k.values[code]) == want {
			codes = append(codes, uint32(code))
		}
	}
	return codes
}

// all returns a bitmap with the first n bits set.
func all(n int) column.Bitmap {
	b := column.NewBitmap(n)
	for i := range b {
		b[i] = ^uint64(0)
	}
	if n&63 != 0 {
		b[len(b)-1] = 1<<(uint(n)&63) - 1
	}
	return b
}
