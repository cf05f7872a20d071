package shard

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
)

// applyDelete hides rows, and forgets the series that have none left.
func (s *Shard) applyDelete(at position, d Delete) error {
	all := d.DropSeries || d.Range.Start <= s.o.Range.Start && d.Range.End >= s.o.Range.End
	s.mu.Lock()
	view := s.index.View()
	if d.Measurements == nil {
		d.Measurements = view.Measurements()
	}
	matched := make(map[string][]dsdb.SeriesID, len(d.Measurements))
	for _, name := range d.Measurements {
		ids := view.Match(name, d.Where)
		if len(ids) == 0 {
			continue
		}
		if all {
			s.index.Drop(ids)
			continue
		}
		matched[name] = ids
		s.hideLocked(view.MeasurementID(name), tombstone{index: at.index, rng: d.Range, series: ids})
	}
	s.applied = at
	s.counters.deletes++
	src := s.sourceLocked()
	s.mu.Unlock()
	defer src.Close()
	for _, name := range d.Measurements {
		if err := s.dropEmpty(src, name, matched[name]); err != nil {
			return err
		}
	}
	return nil
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
	if s.frozen != nil || len(s.files) > 0 {
		s.tombstones = append(slices.Clip(s.tombstones), t)
	}
}

// memtablesLocked returns the memtables, the oldest first. s.mu is held.
func (s *Shard) memtablesLocked() []*memtable {
	if s.frozen != nil {
		return []*memtable{s.frozen.mem, s.active}
	}
	return []*memtable{s.active}
}

// dropEmpty forgets those of the series that have no row. Whether one has
// follows from the log alone, not from what was flushed or merged.
func (s *Shard) dropEmpty(src *Source, measurement string, ids []dsdb.SeriesID) error {
	if len(ids) == 0 {
		return nil
	}
	c, err := src.Scan(context.Background(), dsdb.Scan{Measurement: measurement, Series: ids, Range: dsdb.AllTime, NeedRows: 1})
	if err != nil {
		return err
	}
	defer c.Close()
	var empty []dsdb.SeriesID
	next := 0
	for {
		tile, err := c.Next()
		if err != nil {
			return err
		}
		for ; next < len(ids) && (tile == nil || ids[next] < tile.Series); next++ {
			empty = append(empty, ids[next])
		}
		if tile == nil {
			break
		}
		if next < len(ids) && ids[next] == tile.Series {
			next++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.Drop(empty)
	return nil
}
