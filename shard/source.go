package shard

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/series"
)

// Source is the shard as it was when the Source was taken: what is applied
// later does not appear. It pins the files it reads until Close. Safe for
// concurrent use until then.
type Source struct {
	s          *Shard
	view       *series.View
	files      []*file       // the oldest first
	tombstones []tombstone   // that may concern them
	generation uint64        // of files and tombstones
	mem        [][]tableSnap // per memtable, the oldest first: its tables by measurement id - 1

	once sync.Once
}

// Source returns a snapshot of the shard for a query. It reads the index if
// nothing has needed it yet, and reports what is wrong with its files, and
// KindNotLeader if the shard is closed: whoever looked for it before that is not to
// take what is left for all there is, and may ask another replica.
func (s *Shard) Source() (*Source, error) {
	s.rest.used.Store(true)
	for {
		if src, err := s.source(); src != nil || err != nil {
			return src, err
		}
		if err := s.load(); err != nil {
			return nil, err
		}
	}
}

// source returns a snapshot, nil if the index is to be loaded first: nothing has
// needed it yet, a snapshot of another replica was installed, or the shard rests.
func (s *Shard) source() (*Source, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed && !mutant.ClosedShardRead:
		return nil, dsdb.Errorf(dsdb.KindNotLeader, "shard %d is closed", s.o.ID)
	case s.index == nil:
		return nil, nil
	}
	return s.sourceLocked(), nil
}

// sourceLocked returns a snapshot; s.mu is held.
func (s *Shard) sourceLocked() *Source {
	src := &Source{s: s, view: s.index.View(), files: s.files, tombstones: s.tombstones, generation: s.generation}
	for _, f := range src.files {
		f.acquire()
	}
	if s.frozen != nil {
		src.mem = append(src.mem, s.frozen.mem.snap())
	}
	src.mem = append(src.mem, s.active.snap())
	return src
}

// snap returns the tables as they are now. The shard's lock is held.
func (m *memtable) snap() []tableSnap {
	snaps := make([]tableSnap, len(m.tables))
	for i, t := range m.tables {
		if t != nil {
			snaps[i] = tableSnap{mem: m, table: t, rows: t.rows, deletes: t.deletes}
		}
	}
	return snaps
}

// Series returns the series of a measurement that match where, with the
// values of the tag keys asked for.
func (src *Source) Series(ctx context.Context, measurement string, where *dsdb.TagExpr, keys []string) (*column.SeriesSet, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return src.view.Series(measurement, where, keys), nil
}

// Measurements returns the names of those that have a series, sorted.
func (src *Source) Measurements(ctx context.Context) ([]string, error) {
	return src.view.Measurements(), ctx.Err()
}

// TagKeys returns the tag keys that series of a measurement have, sorted.
func (src *Source) TagKeys(ctx context.Context, measurement string) ([]string, error) {
	return src.view.TagKeys(measurement), ctx.Err()
}

// Fields returns the fields of a measurement, sorted by name, and their types.
func (src *Source) Fields(measurement string) ([]string, []dsdb.FieldType) {
	return src.view.Fields(measurement)
}

// Scan returns a cursor over rows. It reads ahead no further than the tile at
// hand, and decodes only what is loaded.
func (src *Source) Scan(ctx context.Context, scan dsdb.Scan) (column.Cursor, error) {
	c := newCursor(ctx, scan, len(scan.Fields))
	m := src.view.MeasurementID(scan.Measurement)
	if m == 0 || len(scan.Series) == 0 {
		c.scan.Series = nil
		return c, nil
	}
	fields := make([]uint32, len(scan.Fields))
	for i, name := range scan.Fields {
		fields[i] = src.view.FieldID(name)
	}
	c.last = src.lastScan(scan, m, fields)
	for _, f := range src.files {
		if f.maxTime < scan.Range.Start || f.minTime >= scan.Range.End {
			continue
		}
		if _, err := f.open(); err != nil {
			return nil, err
		}
		c.sources = append(c.sources, newFileScan(f, m, fields, concerning(src.tombstones, f)))
	}
	if mutant.LWWByArrival {
		slices.SortFunc(c.sources, func(a, b source) int {
			return cmp.Compare(a.(*fileScan).file.number, b.(*fileScan).file.number)
		})
	}
	src.s.mu.RLock()
	defer src.s.mu.RUnlock()
	for _, snaps := range src.mem {
		if int(m) <= len(snaps) && snaps[m-1].rows > 0 {
			c.sources = append(c.sources, snaps[m-1].capture(fields, scan.Series))
		}
	}
	return c, nil
}

// lastScan returns what answers a scan for the newest row of each series from
// memory, nil if this is not one.
func (src *Source) lastScan(scan dsdb.Scan, m uint32, fields []uint32) *lastScan {
	if !scan.Descending || scan.NeedRows != 1 || len(src.files) == 0 {
		return nil
	}
	l := &lastScan{rows: &src.s.last, generation: src.generation, measurement: m, fields: fields, until: math.MinInt64}
	for _, f := range src.files {
		l.until = max(l.until, f.maxTime)
	}
	return l
}

// concerning returns the tombstones that hide rows of a file.
func concerning(tombstones []tombstone, f *file) (out []*tombstone) {
	for i := range tombstones {
		if t := &tombstones[i]; t.index > f.maxIndex && f.minTime < t.rng.End && f.maxTime >= t.rng.Start {
			out = append(out, t)
		}
	}
	return out
}

// Close releases what the Source pins; its cursors are of no use then. It is idempotent.
func (src *Source) Close() error {
	src.once.Do(func() {
		for _, f := range src.files {
			f.release()
		}
	})
	return nil
}
