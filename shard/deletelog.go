package shard

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/mutant"
)

// Bounds of what a shard remembers of its deletes.
const (
	maxDeletes     = 1000
	maxDeleteBytes = 256 << 10 // of their entries
)

// deleteLog is the deletes that a shard remembers for the sake of hints: a
// tombstone hides series by the ids that they had, and goes when files merge,
// but a hint may come weeks later, of a series that was forgotten meanwhile.
type deleteLog struct {
	floor uint64       // not all up to this index are remembered
	kept  []keptDelete // by index; replaced, never changed
	bytes int          // of their bodies
	fence uint64       // writes that were prepared by a catalogue before it are refused; 0: none are
}

// keptDelete is a delete as it was decided.
type keptDelete struct {
	index uint64
	body  []byte // of its entry
	Delete
}

// add remembers one more delete, in place of an equal one: what that hides,
// this hides too. If they become too many, the oldest are forgotten.
func (l *deleteLog) add(k keptDelete) {
	kept := make([]keptDelete, 0, len(l.kept)+1)
	for _, old := range l.kept {
		if !bytes.Equal(old.body, k.body) {
			kept = append(kept, old)
		}
	}
	l.kept, l.bytes = append(kept, k), 0
	for i := range l.kept {
		l.bytes += len(l.kept[i].body)
	}
	for len(l.kept) > maxDeletes || l.bytes > maxDeleteBytes {
		l.floor = l.kept[0].index
		l.bytes -= len(l.kept[0].body)
		l.kept = l.kept[1:]
	}
}

// append appends the deletes as a manifest has them.
func (l *deleteLog) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, l.floor)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(l.kept)))
	for _, k := range l.kept {
		dst = binary.LittleEndian.AppendUint64(dst, k.index)
		dst = append(binary.LittleEndian.AppendUint32(dst, uint32(len(k.body))), k.body...)
	}
	if l.fence > 0 {
		dst = binary.LittleEndian.AppendUint64(dst, l.fence)
	}
	return dst
}

// version is that of a manifest with these deletes: older programs read one of a
// shard without a fence.
func (l *deleteLog) version() byte {
	if l.fence == 0 {
		return manifestV3
	}
	return manifestV4
}

// deletes reads what deleteLog.append wrote into l, which is empty.
func (r *fixedReader) deletes(l *deleteLog) {
	l.floor = r.u64()
	last := l.floor
	for range r.count(12) {
		k := keptDelete{index: r.u64(), body: slices.Clone(r.take())}
		var err error
		if k.Delete, err = decodeDelete(k.body); err != nil || k.index <= last {
			r.bad = true
			return
		}
		last = k.index
		l.kept, l.bytes = append(l.kept, k), l.bytes+len(k.body)
	}
}

// hide returns the rows of a table that a delete after index since concerns, nil
// if none does.
func (l *deleteLog) hide(t *column.Table, since uint64) (hidden column.Bitmap) {
	at, _ := slices.BinarySearchFunc(l.kept, since+1, func(k keptDelete, index uint64) int {
		if k.index < index {
			return -1
		}
		return 1
	})
	later := slices.DeleteFunc(slices.Clone(l.kept[at:]), func(k keptDelete) bool {
		return k.Measurements != nil && !slices.Contains(k.Measurements, t.Measurement)
	})
	if len(later) == 0 || mutant.HintResurrects {
		return nil
	}
	tags := make([]dsdb.Tags, t.Keys.Len())
	for i := range tags {
		_, tags[i], _ = dsdb.ParseSeriesKey(t.Keys.At(i)) // rows of a malformed one are rejected
	}
	hidden = column.NewBitmap(t.Rows())
	for _, k := range later {
		matches := make([]bool, len(tags))
		for i := range tags {
			matches[i] = k.Where.Match(tags[i])
		}
		for row, key := range t.Series {
			if matches[key] && (k.DropSeries || k.Range.Contains(t.Times[row])) {
				hidden.Set(row)
			}
		}
	}
	return hidden
}
