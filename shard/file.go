package shard

import (
	"path"
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/segment"
)

// file is a segment file in use: by the shard while its manifest names it, and
// by sources and snapshots. The last user closes it, and removes it if the
// manifest no longer names it.
type file struct {
	segmentMeta
	fs       vfs.FS
	path     string
	shard    *Shard
	refs     atomic.Int32
	obsolete atomic.Bool
	apart    bool // it is not merged with others: a series is too long; guarded by Shard.mu

	mu     sync.Mutex // guards reader
	reader *segment.Reader
}

// newFile returns a segment file of the shard with one user.
func (s *Shard) newFile(meta segmentMeta) *file {
	f := &file{segmentMeta: meta, fs: s.o.FS, path: path.Join(s.o.Dir, meta.name(segmentSuffix)), shard: s}
	f.refs.Store(1)
	return f
}

func (f *file) acquire() { f.refs.Add(1) }

func (f *file) release() {
	if f.refs.Add(-1) > 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reader != nil {
		f.reader.Close()
	}
	if f.obsolete.Load() {
		f.fs.Remove(f.path) // if it fails, the next Open removes it
	}
}

// open returns the reader of the file, which it opens at first touch.
func (f *file) open() (*segment.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reader != nil {
		return f.reader, nil
	}
	vf, err := f.fs.Open(f.path)
	if err != nil {
		return nil, f.note(err)
	}
	f.reader, err = segment.Open(vf)
	if err != nil {
		f.reader = nil
		return nil, f.note(err)
	}
	return f.reader, nil
}

// note has the shard remember err if it is about damage, unless the file is no
// longer the shard's, and returns it.
func (f *file) note(err error) error {
	if err == nil || f.obsolete.Load() {
		return err
	}
	return f.shard.note(err)
}

// fileScan is what a cursor reads of one file. It is the run of the series at hand.
type fileScan struct {
	file        *file
	reader      *segment.Reader
	measurement uint32
	fields      []uint32     // per field of the scan; 0: none has it
	hidden      []*tombstone // those that concern the file
	chunk       segment.Chunk
	columns     []segment.FieldChunk // per field of the scan, if looked up
	state       []columnState
}

// columnState says what columns[i] is.
type columnState uint8

const (
	columnUnknown columnState = iota
	columnAbsent
	columnThere
)

// newFileScan scans a file that is open.
func newFileScan(f *file, measurement uint32, fields []uint32, hidden []*tombstone) *fileScan {
	return &fileScan{
		file: f, reader: f.reader, measurement: measurement, fields: fields, hidden: hidden,
		columns: make([]segment.FieldChunk, len(fields)), state: make([]columnState, len(fields)),
	}
}

func (s *fileScan) newest() int64 { return s.reader.MaxTime() }

// guard runs what reads the file.
func (s *fileScan) guard(fn func() error) error { return s.file.note(s.reader.Guard(fn)) }

// appendBlocks appends the tiles of the i-th series of the cursor's scan.
func (s *fileScan) appendBlocks(dst []block, c *cursor, i, rank int) ([]block, error) {
	id, rng := c.scan.Series[i], c.scan.Range
	err := s.guard(func() error {
		if !s.reader.Chunk(s.measurement, id, &s.chunk) {
			return nil
		}
		if err := s.chunk.Err(); err != nil {
			return err
		}
		clear(s.state)
		for tile := range s.chunk.Tiles() {
			t := s.chunk.Tile(tile)
			if t.Last < rng.Start || t.First >= rng.End {
				continue
			}
			b := block{run: s, rank: rank, at: tile, rows: t.Rows, first: t.First, last: t.Last}
			if s.hide(&b, id) {
				dst = append(dst, b)
			}
		}
		return nil
	})
	return dst, err
}

// hide notes the tombstones that hide rows of a block; false if one hides all.
func (s *fileScan) hide(b *block, id dsdb.SeriesID) bool {
	for _, t := range s.hidden {
		if !t.hides(id, b.first, b.last) {
			continue
		}
		if t.rng.Contains(b.first) && t.rng.Contains(b.last) {
			return false
		}
		b.hidden = append(b.hidden, t)
	}
	return true
}

func (s *fileScan) appendTimes(dst []int64, b *block) (times []int64, err error) {
	err = s.guard(func() (err error) {
		times, err = s.chunk.Times(b.at, dst)
		return err
	})
	return times, err
}

func (s *fileScan) load(dst *column.Vector, b *block, field int) error {
	return s.guard(func() error {
		f, ok := s.column(field)
		if !ok {
			resetVector(dst, dsdb.NoType, b.rows)
			return nil
		}
		return f.Decode(b.at, dst)
	})
}

func (s *fileScan) stats(dst []column.Stats, b *block) {
	err := s.guard(func() error {
		for i := range dst {
			if f, ok := s.column(i); ok {
				dst[i] = f.Stats(b.at)
			} else {
				dst[i] = column.Stats{Known: true}
			}
		}
		return nil
	})
	if err != nil {
		clear(dst) // whoever loads the tile meets the error
	}
}

// column returns the field of the series at hand.
func (s *fileScan) column(i int) (segment.FieldChunk, bool) {
	if s.state[i] == columnUnknown {
		f, ok := segment.FieldChunk{}, false
		if s.fields[i] != 0 {
			f, ok = s.chunk.Field(s.fields[i])
		}
		s.columns[i], s.state[i] = f, columnAbsent
		if ok {
			s.state[i] = columnThere
		}
	}
	return s.columns[i], s.state[i] == columnThere
}
