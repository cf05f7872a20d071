package shard

import (
	"fmt"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/mutant"
)

// Apply applies committed entries in the order of their indexes and returns
// one verdict per entry. What it does follows from the log alone. An error
// means that the shard cannot go on.
func (s *Shard) Apply(es []dsdb.Entry) ([]dsdb.Verdict, error) {
	s.rest.used.Store(true)
	s.rest.index.RLock()
	defer s.rest.index.RUnlock()
	s.writer = writers.Get().(*writer)
	defer func() {
		s.writer.free()
		s.writer = nil
	}()
	verdicts := make([]dsdb.Verdict, len(es))
	for i := range es {
		e := &es[i]
		v, err := s.apply(e)
		if err != nil {
			return nil, fmt.Errorf("shard %d: entry %d: %w", s.o.ID, e.Index, err)
		}
		verdicts[i] = v
	}
	return verdicts, nil
}

func (s *Shard) apply(e *dsdb.Entry) (v dsdb.Verdict, err error) {
	h := header{at: position{e.Index, e.Term}}
	body := e.Data
	if len(e.Data) > 0 {
		if h, body, err = cutHeader(h.at, e.Data); err != nil {
			return v, err
		}
	}
	if v, dup := s.window.Check(h.id); dup && !mutant.DedupeOff || len(e.Data) == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.applied = h.at
		return v, nil
	}
	if err := s.load(); err != nil {
		return v, err
	}
	switch h.kind {
	case entryWrite:
		if s.fenced(h) {
			return s.refuse(h), nil
		}
		if err := s.writer.batch.Decode(body); err != nil {
			return v, err
		}
		return s.applyWrite(h)
	case entryWrites, entryPrepared:
		return s.applyWrites(h, body)
	case entryDelete:
		d, err := decodeDelete(body)
		if err != nil {
			return v, err
		}
		return v, s.applyDelete(h, keptDelete{h.at.index, body, d})
	case entryHints:
		return s.applyHints(h, body)
	case entryFence:
		return v, s.applyFence(h, body)
	case entryChecksum:
		if len(body) > 0 {
			return v, dsdb.Errorf(dsdb.KindCorrupt, "checksum entry has %d bytes too many", len(body))
		}
		s.applyChecksum(h)
		return v, nil
	}
	return v, dsdb.Errorf(dsdb.KindUnavailable, "entry of kind %d, which this program does not know: %w", h.kind, dsdb.ErrNewer)
}

// finishLocked ends an entry that had an effect: only now may a flush count it
// as done. s.mu is held.
func (s *Shard) finishLocked(h header, v dsdb.Verdict) {
	s.applied = h.at
	s.window.Record(h.id, v)
}

// writers are the scratch memory of those who apply at the moment. They are few,
// shards are many: a shard with scratch memory of its own would keep room for its
// largest entry for as long as it is open.
var writers = sync.Pool{New: func() any { return new(writer) }}

// writer is the scratch memory of applyWrite: one entry is applied at a time.
type writer struct {
	uses   int // by Apply
	batch  column.WriteBatch
	fields []uint32         // per column of a table: its field
	types  []dsdb.FieldType // per column: the type its field is fixed to
	reject []bool           // per row; empty: none is rejected
	want   []bool           // per key: whether a row that stays has it
	ids    []dsdb.SeriesID  // per key
}

// keepScratch is how much scratch memory is kept for good, in bytes; checkScratch
// how often that is looked at, for it takes longer than to apply one point.
const (
	keepScratch  = 16 << 20
	checkScratch = 32
)

// free leaves the scratch memory to whoever applies next, unless large entries
// have made it costly to keep.
func (w *writer) free() {
	if w.uses++; w.uses%checkScratch == 0 && w.batch.Retained() > keepScratch {
		return
	}
	writers.Put(w)
}

func (s *Shard) applyWrite(h header) (v dsdb.Verdict, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err = s.writeLocked(&s.writer.batch, &v); err == nil {
		s.finishLocked(h, v)
	}
	return v, err
}

// applyWrites applies an entry of several writes: as a whole, for a flush counts
// an entry as done or not.
func (s *Shard) applyWrites(h header, body []byte) (all dsdb.Verdict, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := reader{body}
	for i := 0; len(r.rest) > 0; i++ {
		n := r.count()
		if r.rest == nil || n == 0 {
			return all, dsdb.Errorf(dsdb.KindCorrupt, "write %d of an entry of %d bytes is malformed", i, len(body))
		}
		one, src, err := cutHeader(h.at, r.rest[:n])
		if err == nil && one.kind != entryWrite {
			err = dsdb.Errorf(dsdb.KindCorrupt, "write %d of an entry is of kind %d", i, one.kind)
		}
		if err != nil {
			return all, err
		}
		r.rest = r.rest[n:]
		v, dup := s.window.Check(one.id)
		switch {
		case dup:
		case s.fenced(one):
			v = refused
			s.window.Record(one.id, v)
		default:
			if err := s.writer.batch.Decode(src); err != nil {
				return all, err
			}
			if err = s.writeLocked(&s.writer.batch, &v); err != nil {
				return all, err
			}
			s.window.Record(one.id, v)
		}
		if v.Rejected > 0 {
			if all.Rejected == 0 {
				all.Kind, all.Reason = v.Kind, v.Reason
			}
			all.Rejected += v.Rejected
			all.Value = appendRejected(all.Value, i, v)
		}
	}
	s.applied = h.at
	return all, nil
}

// writeLocked applies a batch and adds what it rejects to v. s.mu is held.
func (s *Shard) writeLocked(b *column.WriteBatch, v *dsdb.Verdict) error {
	before := v.Rejected
	for i := range b.Tables {
		t := &b.Tables[i]
		if err := checkTable(t); err != nil {
			return err
		}
		s.applyTable(t, v)
	}
	s.counters.rejected += uint64(v.Rejected - before)
	return nil
}

// checkTable reports a table that the other methods could not walk.
func checkTable(t *column.Table) error {
	keys := uint32(t.Keys.Len())
	for _, key := range t.Series {
		if key >= keys {
			return dsdb.Errorf(dsdb.KindCorrupt, "row of series %d of %d", key, keys)
		}
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		for j := range i {
			if t.Columns[j].Name == c.Name && t.Columns[j].Type == c.Type {
				return dsdb.Errorf(dsdb.KindCorrupt, "field %q is there twice", c.Name)
			}
		}
	}
	return nil
}

// applyTable appends the rows of one table and adds those it rejects to v.
func (s *Shard) applyTable(t *column.Table, v *dsdb.Verdict) {
	if t.Rows() == 0 {
		return
	}
	w := s.writer
	m := s.index.Measurement(t.Measurement)
	conflict := s.resolveFields(m, t)
	w.reject = w.reject[:0]
	var want []bool
	if conflict || !s.allInRange(t.Times) {
		s.rejectRows(t, v)
		want = w.wanted(t)
	}
	w.ids = s.index.Insert(w.ids[:0], m, &t.Keys, want)
	s.rejectKeys(t, want, v)
	if len(w.reject) > 0 {
		t = w.keep(t)
	}
	if t.Rows() == 0 {
		return
	}
	s.fixTypes(m, t)
	s.active.append(m, t, w.ids, w.fields)
	s.counters.rows += uint64(t.Rows())
}

// resolveFields looks the fields of the columns and their types up. It reports
// whether a column may contradict the type of its field.
func (s *Shard) resolveFields(m uint32, t *column.Table) (conflict bool) {
	w := s.writer
	w.fields, w.types = w.fields[:0], w.types[:0]
	for i := range t.Columns {
		c := &t.Columns[i]
		field := s.index.Field(c.Name)
		typ := s.index.FieldType(m, field)
		for _, other := range w.fields {
			conflict = conflict || other == field
		}
		conflict = conflict || typ != dsdb.NoType && typ != c.Type
		w.fields, w.types = append(w.fields, field), append(w.types, typ)
	}
	return conflict
}

func (s *Shard) allInRange(times []int64) bool {
	for _, t := range times {
		if !s.o.Range.Contains(t) {
			return false
		}
	}
	return true
}

// rejectRows marks the rows that lie outside of the shard or contradict the
// type of a field, which may be fixed by a row before. Rejected rows fix nothing.
func (s *Shard) rejectRows(t *column.Table, v *dsdb.Verdict) {
	w := s.writer
	w.reject = append(w.reject, make([]bool, t.Rows())...)
	for row := range t.Rows() {
		if !s.o.Range.Contains(t.Times[row]) {
			w.reject[row] = true
			addRejected(v, dsdb.KindInvalid, "point is outside of the time range of its shard")
			continue
		}
		for i := range t.Columns {
			if typ := w.fixedBy(t, row, i); typ != t.Columns[i].Type && t.Columns[i].Valid.Get(row) {
				w.reject[row] = true
				addRejected(v, dsdb.KindConflict, fmt.Sprintf(
					"field type conflict: input field \"%s\" on measurement \"%s\" is type %s, already exists as type %s",
					t.Columns[i].Name, t.Measurement, t.Columns[i].Type, typ))
				break
			}
		}
		if !w.reject[row] {
			w.fix(t, row)
		}
	}
}

// fixedBy returns the type that column i must have in a row: that of its
// field, else that of the first column of the row with that field.
func (w *writer) fixedBy(t *column.Table, row, i int) dsdb.FieldType {
	if w.types[i] != dsdb.NoType {
		return w.types[i]
	}
	for j := range i {
		if w.fields[j] == w.fields[i] && t.Columns[j].Valid.Get(row) {
			return t.Columns[j].Type
		}
	}
	return t.Columns[i].Type
}

// fix notes the types that a row fixes.
func (w *writer) fix(t *column.Table, row int) {
	for i := range t.Columns {
		if w.types[i] != dsdb.NoType || !t.Columns[i].Valid.Get(row) {
			continue
		}
		for j := range t.Columns {
			if w.fields[j] == w.fields[i] {
				w.types[j] = t.Columns[i].Type
			}
		}
	}
}

// wanted returns per key whether a row that is not rejected has it.
func (w *writer) wanted(t *column.Table) []bool {
	w.want = append(w.want[:0], make([]bool, t.Keys.Len())...)
	for row, key := range t.Series {
		if !w.reject[row] {
			w.want[key] = true
		}
	}
	return w.want
}

// rejectKeys marks the rows whose key the index did not take.
func (s *Shard) rejectKeys(t *column.Table, want []bool, v *dsdb.Verdict) {
	w := s.writer
	for key, id := range w.ids {
		if id != 0 || want != nil && !want[key] {
			continue
		}
		if len(w.reject) == 0 {
			w.reject = append(w.reject, make([]bool, t.Rows())...)
		}
		for row, k := range t.Series {
			if int(k) == key && !w.reject[row] {
				w.reject[row] = true
				addRejected(v, dsdb.KindInvalid, fmt.Sprintf("invalid series key %q", t.Keys.At(key)))
			}
		}
	}
}

func addRejected(v *dsdb.Verdict, kind dsdb.Kind, reason string) {
	if v.Rejected == 0 {
		v.Kind, v.Reason = kind, reason
	}
	v.Rejected++
}

// keep returns the rows of t that are not rejected. It leaves out columns that
// have no value in them, also from w.fields.
func (w *writer) keep(t *column.Table) *column.Table {
	k := &column.Table{Measurement: t.Measurement, Keys: t.Keys}
	for row := range t.Rows() {
		if !w.reject[row] {
			k.Times = append(k.Times, t.Times[row])
			k.Series = append(k.Series, t.Series[row])
		}
	}
	fields := w.fields[:0]
	for i := range t.Columns {
		if c := w.keepColumn(&t.Columns[i], len(k.Times)); hasValue(&c) {
			k.Columns = append(k.Columns, c)
			fields = append(fields, w.fields[i])
		}
	}
	w.fields = fields
	return k
}

func (w *writer) keepColumn(c *column.Column, rows int) column.Column {
	kc := column.Column{Name: c.Name, Type: c.Type, Bytes: c.Bytes, Valid: column.NewBitmap(rows)}
	for row, reject := range w.reject {
		if reject {
			continue
		}
		if c.Valid.Get(row) {
			kc.Valid.Set(len(kc.Bits))
		}
		kc.Bits = append(kc.Bits, c.Bits[row])
	}
	return kc
}

// fixTypes fixes the types of the fields that have none yet and got a value.
func (s *Shard) fixTypes(m uint32, t *column.Table) {
	for i := range t.Columns {
		c := &t.Columns[i]
		if hasValue(c) && s.index.FieldType(m, s.writer.fields[i]) == dsdb.NoType {
			s.index.FixType(m, s.writer.fields[i], c.Type)
		}
	}
}

func hasValue(c *column.Column) bool {
	if c.Valid == nil {
		return len(c.Bits) > 0
	}
	for i := range c.Bits {
		if c.Valid.Get(i) {
			return true
		}
	}
	return false
}
