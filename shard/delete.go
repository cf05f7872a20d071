package shard

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/series"
)

// match is the series of one measurement that a delete concerns.
type match struct {
	measurement string
	ids         []dsdb.SeriesID
}

// applyDelete hides rows, and forgets the series that have none left.
func (s *Shard) applyDelete(h header, d keptDelete) error {
	s.mu.Lock()
	matches := matchSeries(s.index.View(), d.Delete)
	if d.DropSeries || d.Range.Start <= s.o.Range.Start && d.Range.End >= s.o.Range.End {
		defer s.mu.Unlock()
		for _, m := range matches {
			s.index.Drop(m.ids)
		}
		s.finishDeleteLocked(h, d)
		return nil
	}
	for _, m := range matches {
		s.hideLocked(s.index.Measurement(m.measurement), tombstone{index: h.at.index, rng: d.Range, series: m.ids})
	}
	src := s.sourceLocked()
	s.mu.Unlock()
	defer src.Close()
	var empty []dsdb.SeriesID
	for _, m := range matches {
		var err error
		if empty, err = src.appendEmpty(empty, m); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.Drop(empty)
	s.finishDeleteLocked(h, d)
	return nil
}

// finishDeleteLocked ends a delete. s.mu is held.
func (s *Shard) finishDeleteLocked(h header, d keptDelete) {
	s.finishLocked(h, dsdb.Verdict{})
	d.body = slices.Clone(d.body)
	s.deletes.add(d)
	s.counters.deletes++
	s.dropTombstonesLocked()
}

// matchSeries returns the series that d concerns.
func matchSeries(view *series.View, d Delete) (out []match) {
	names := d.Measurements
	if names == nil {
		names = view.Measurements()
	}
	for _, name := range names {
		if ids := view.Match(name, d.Where); len(ids) > 0 {
			out = append(out, match{name, ids})
		}
	}
	return out
}

// hideLocked hides rows of series of one measurement. s.mu is held.
func (s *Shard) hideLocked(measurement uint32, t tombstone) {
	for _, m := range s.memtablesLocked() {
		if int(measurement) > len(m.tables) || m.tables[measurement-1] == nil {
			continue
		}
		mt := m.tables[measurement-1]
		mt.deletes = append(mt.deletes, memDelete{rows: mt.rows, tomb: &t})
	}
	s.tombstones = append(slices.Clip(s.tombstones), t)
	s.generation++
}

// memtablesLocked returns the memtables, the oldest first. s.mu is held.
func (s *Shard) memtablesLocked() []*memtable {
	if s.frozen != nil {
		return []*memtable{s.frozen.mem, s.active}
	}
	return []*memtable{s.active}
}

// appendEmpty appends those of the series that have no row. Whether one has
// follows from the log alone, not from what was flushed or merged.
func (src *Source) appendEmpty(dst []dsdb.SeriesID, m match) ([]dsdb.SeriesID, error) {
	ids := m.ids
	c, err := src.Scan(context.Background(), dsdb.Scan{Measurement: m.measurement, Series: ids, Range: dsdb.AllTime, NeedRows: 1})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for {
		tile, err := c.Next()
		if err != nil {
			return nil, err
		}
		for len(ids) > 0 && (tile == nil || ids[0] < tile.Series) {
			dst, ids = append(dst, ids[0]), ids[1:]
		}
		if tile == nil {
			return dst, nil
		}
		if len(ids) > 0 && ids[0] == tile.Series {
			ids = ids[1:]
		}
	}
}
