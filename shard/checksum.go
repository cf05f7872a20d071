package shard

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math"
	"sync"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// checksum is the digest of what the shard holds that was computed last, and
// the one that is being computed, in a goroutine of its own.
type checksum struct {
	running sync.WaitGroup // added to with the shard's lock held, while it is not closed

	mu     sync.Mutex         // guards all below
	stop   context.CancelFunc // of the one in progress
	asked  uint64             // index of the entry that asked for the one in progress; 0: none is
	index  uint64             // of the entry that asked for the last one
	digest [16]byte
	ok     bool
}

// Checksum returns the digest that was computed last, of what the shard held
// right after the log entry index, which asked for it (AppendChecksum). Replicas
// of a shard have equal digests of the same index, whatever they flushed,
// merged and installed. ok is false if there is none since the shard was
// opened. It takes as long to compute as to read the whole shard.
func (s *Shard) Checksum() (index uint64, digest [16]byte, ok bool) {
	s.sum.mu.Lock()
	defer s.sum.mu.Unlock()
	return s.sum.index, s.sum.digest, s.sum.ok
}

// Checking returns the index of the entry whose digest is being computed, 0 if
// none is.
func (s *Shard) Checking() uint64 {
	s.sum.mu.Lock()
	defer s.sum.mu.Unlock()
	return s.sum.asked
}

// applyChecksum begins to compute a digest of what is applied, in place of one
// that is not ready yet.
func (s *Shard) applyChecksum(h header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishLocked(h, dsdb.Verdict{})
	if s.closed {
		return
	}
	ctx, stop := context.WithCancel(s.ctx)
	s.sum.mu.Lock()
	if s.sum.stop != nil {
		s.sum.stop()
	}
	s.sum.stop, s.sum.asked = stop, h.at.index
	s.sum.mu.Unlock()
	d := &digester{ctx: ctx, src: s.sourceLocked(), hash: sha256.New()}
	d.addState(s.window.Append(nil), s.deletes.fence)
	s.sum.running.Go(func() {
		defer stop()
		defer d.src.Close()
		err := s.CheckFiles(ctx)
		if err == nil {
			err = d.addRows()
		}
		s.finishChecksum(ctx, h.at.index, d, err)
	})
}

// finishChecksum keeps a digest, unless it was stopped or failed.
func (s *Shard) finishChecksum(ctx context.Context, index uint64, d *digester, err error) {
	s.sum.mu.Lock()
	defer s.sum.mu.Unlock()
	if s.sum.asked == index {
		s.sum.asked = 0
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.o.Logger.Error("checksum of a shard failed", "shard", uint64(s.o.ID), "index", index, "err", err)
	default:
		s.sum.index, s.sum.digest, s.sum.ok = index, d.sum(), true
	}
}

// digester computes a digest: the sum of hashes of the window of proposals, of the
// fence, of each field's type, of each series' key and of each series' values of each
// field by time. The order of series, and how rows lie in files, do not matter.
type digester struct {
	ctx    context.Context
	src    *Source
	tables []digestTable
	hash   hash.Hash
	buf    []byte
	lanes  [2]uint64
}

// digestTable is what a digest takes in of one measurement. Types are captured
// at once, for an index view has those of now.
type digestTable struct {
	name   string
	fields []string
	types  []dsdb.FieldType
}

// add adds the hash of what was written.
func (d *digester) add(h hash.Hash) {
	d.buf = h.Sum(d.buf[:0])
	for i := range d.lanes {
		d.lanes[i] += binary.LittleEndian.Uint64(d.buf[8*i:])
	}
	h.Reset()
}

func (d *digester) sum() (out [16]byte) {
	for i, lane := range d.lanes {
		binary.LittleEndian.PutUint64(out[8*i:], lane)
	}
	return out
}

// addState adds what is not rows. The shard's lock is held.
func (d *digester) addState(window []byte, fence uint64) {
	d.hash.Write(append([]byte{'w'}, window...))
	d.add(d.hash)
	if fence > 0 {
		d.hash.Write(binary.AppendUvarint([]byte{'f'}, fence))
		d.add(d.hash)
	}
	for _, m := range d.src.view.Measurements() {
		t := digestTable{name: m}
		t.fields, t.types = d.src.view.Fields(m)
		d.tables = append(d.tables, t)
		for i, f := range t.fields {
			d.hash.Write(append(appendString(appendString([]byte{'t'}, m), f), byte(t.types[i])))
			d.add(d.hash)
		}
	}
}

// addRows adds all series with their values.
func (d *digester) addRows() error {
	for i := range d.tables {
		if err := d.addTable(&d.tables[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *digester) addTable(t *digestTable) error {
	ids := d.src.view.Match(t.name, nil)
	for _, id := range ids {
		d.hash.Write(appendString([]byte{'s'}, string(d.src.view.Key(id))))
		d.add(d.hash)
	}
	c, err := d.src.Scan(d.ctx, dsdb.Scan{Measurement: t.name, Series: ids, Fields: t.fields, Range: dsdb.AllTime})
	if err != nil {
		return err
	}
	defer c.Close()
	columns := make([]digestColumn, len(t.fields))
	for i := range columns {
		columns[i].hash = sha256.New()
	}
	for id := dsdb.SeriesID(0); ; {
		tile, err := c.Next()
		if err != nil {
			return err
		}
		if tile == nil || tile.Series != id {
			for i := range columns {
				columns[i].addTo(d)
			}
		}
		if tile == nil {
			return nil
		}
		id = tile.Series
		if err := d.addTile(columns, t, tile); err != nil {
			return err
		}
	}
}

func (d *digester) addTile(columns []digestColumn, t *digestTable, tile *column.Tile) error {
	if err := tile.LoadTimes(); err != nil {
		return err
	}
	for i := range columns {
		if err := tile.Load(i); err != nil {
			return err
		}
		c, v := &columns[i], &tile.Cols[i]
		d.buf = appendValues(d.buf[:0], tile.Times, v)
		if len(d.buf) == 0 {
			continue
		}
		if !c.some {
			c.some = true
			head := appendString([]byte{'v', byte(v.Type)}, string(d.src.view.Key(tile.Series)))
			c.hash.Write(appendString(head, t.fields[i]))
		}
		c.hash.Write(d.buf)
	}
	return nil
}

// digestColumn hashes the values of one field of the series at hand.
type digestColumn struct {
	hash hash.Hash
	some bool // there is a value
}

// addTo adds the values to a digest, if there are any.
func (c *digestColumn) addTo(d *digester) {
	if c.some {
		d.add(c.hash)
	}
	c.some = false
}

// appendValues appends the values that are not null, each after its time.
func appendValues(dst []byte, times []int64, v *column.Vector) []byte {
	if v.Type == dsdb.NoType {
		return dst
	}
	for i, t := range times {
		if v.Null(i) {
			continue
		}
		dst = binary.LittleEndian.AppendUint64(dst, uint64(t))
		switch v.Type {
		case dsdb.Float:
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v.Floats[i]))
		case dsdb.String:
			dst = append(binary.AppendUvarint(dst, uint64(len(v.Str(i)))), v.Str(i)...)
		default:
			dst = binary.LittleEndian.AppendUint64(dst, uint64(v.Ints[i]))
		}
	}
	return dst
}
