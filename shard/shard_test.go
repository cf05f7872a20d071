package shard

import (
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"path"
	"reflect"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// machine is a shard, the log that feeds it, and a twin.
type machine struct {
	t       testing.TB
	r       *rand.Rand
	fs      vfs.FS
	shard   *Shard
	twin    *twin
	log     []dsdb.Entry
	said    []dsdb.Verdict // on the entries of log
	clock   int64
	dir     string
	replica int // number of the last other one
	merge   int // Options.MergeBytes
}

var testRange = dsdb.TimeRange{Start: 0, End: 100000}

func newMachine(t testing.TB, seed uint64) *machine {
	m := &machine{t: t, r: rand.New(rand.NewPCG(seed, 7)), fs: vfs.NewMem(seed), twin: newTwin(testRange), dir: "/data/7"}
	m.open()
	return m
}

func (m *machine) options() Options {
	return Options{FS: m.fs, Dir: m.dir, ID: 7, Range: testRange, Logger: slog.New(slog.DiscardHandler), MergeBytes: m.merge}
}

// open opens the shard and applies the log from its flushed index on.
func (m *machine) open() {
	m.t.Helper()
	s, err := Open(m.options())
	check(m.t, err)
	m.shard = s
	m.replay()
}

// replay applies the log from the shard's flushed index on; the verdicts are
// what they were.
func (m *machine) replay() {
	m.t.Helper()
	flushed := m.shard.FlushedIndex()
	for i, e := range m.log {
		if e.Index > flushed {
			v, err := m.shard.Apply([]dsdb.Entry{e})
			check(m.t, err)
			if !reflect.DeepEqual(v[0], m.said[i]) {
				m.t.Fatalf("entry %d: %+v, the first time it was %+v", e.Index, v[0], m.said[i])
			}
		}
	}
}

// id returns the id of a new proposal, of one of two coordinators.
func (m *machine) id() dsdb.ProposalID {
	n := uint64(len(m.log))
	return dsdb.ProposalID{Node: dsdb.NodeID(1 + n%2), Epoch: 1, Seq: 1 + n}
}

// again puts a proposal of the last ones into the log a second time, as a retry
// does: nothing happens, and the verdict is that of the first.
func (m *machine) again() {
	m.t.Helper()
	i := len(m.log) - 1 - m.r.IntN(min(len(m.log), 20))
	e := m.log[i]
	if v := m.apply(e.Data); !reflect.DeepEqual(v, m.said[i]) {
		m.t.Fatalf("entry %d again: %+v, the first time it was %+v", e.Index, v, m.said[i])
	}
}

func (m *machine) apply(data []byte) dsdb.Verdict {
	m.t.Helper()
	e := dsdb.Entry{Index: uint64(len(m.log)) + 1, Term: 1, Data: data}
	m.log = append(m.log, e)
	v, err := m.shard.Apply([]dsdb.Entry{e})
	check(m.t, err)
	m.said = append(m.said, v[0])
	return v[0]
}

func (m *machine) write(points []point) {
	m.t.Helper()
	v := m.apply(AppendWrite(nil, m.id(), batchOf(points)))
	if want := m.twin.write(points); v.Rejected != want {
		m.t.Fatalf("rejected %d rows (%s), want %d", v.Rejected, v.Reason, want)
	}
}

func (m *machine) delete(d Delete) {
	m.t.Helper()
	m.apply(AppendDelete(nil, m.id(), d))
	m.twin.delete(uint64(len(m.log)), d)
}

// hint delivers points, some of which are there, made a while ago.
func (m *machine) hint() {
	m.t.Helper()
	var hints []hint
	var encoded [][]byte
	for range 1 + m.r.IntN(3) {
		late := m.clock - m.r.Int64N(m.clock+1)
		h := hint{uint64(len(m.log) - m.r.IntN(min(len(m.log), 30)+1)), randomPoints(m.r, &late)}
		hints = append(hints, h)
		encoded = append(encoded, AppendHint(nil, h.since, batchOf(h.points)))
	}
	v := m.apply(AppendHints(nil, m.id(), 0, encoded))
	rejected, superseded, deleted := m.twin.deliver(hints)
	gotSuperseded, gotDeleted, err := Delivered(v)
	check(m.t, err)
	if v.Rejected != rejected || gotSuperseded != superseded || gotDeleted != deleted {
		m.t.Fatalf("hints: %d rejected, %d superseded, %d deleted, want %d, %d, %d", v.Rejected, gotSuperseded, gotDeleted, rejected, superseded, deleted)
	}
}

// step does one random thing.
func (m *machine) step() {
	m.t.Helper()
	switch n := m.r.IntN(100); {
	case n < 50:
		m.write(randomPoints(m.r, &m.clock))
	case n < 56:
		m.hint()
	case n < 65:
		m.delete(randomDelete(m.r))
	case n < 68:
		m.apply(nil)
	case n < 73 && len(m.log) > 0:
		m.again()
	case n < 85:
		m.flush()
	case n < 92:
		_, err := m.shard.Compact(m.r.IntN(3) == 0)
		check(m.t, err)
	case n < 95:
		m.moveToOther()
	case n < 97:
		m.shard.Rest()
		m.shard.Rest()
	default:
		check(m.t, m.shard.Close())
		m.open()
	}
}

func (m *machine) flush() {
	m.t.Helper()
	before := m.shard.FlushedIndex()
	rose, err := m.shard.Flush()
	check(m.t, err)
	if after := m.shard.FlushedIndex(); rose != (after > before) || after != uint64(len(m.log)) {
		m.t.Fatalf("flushed index %d, then %d of %d; reported %v", before, after, len(m.log), rose)
	}
}

// moveToOther sends a snapshot to a replica that has something else, as raft
// does to one that lags, and goes on with that one.
func (m *machine) moveToOther() {
	m.t.Helper()
	snap, release, err := m.shard.Snapshot()
	check(m.t, err)
	m.flush() // must not disturb the snapshot
	_, err = m.shard.Compact(true)
	check(m.t, err)
	o := m.options()
	m.replica++
	o.Dir = fmt.Sprintf("/data/replica%d", m.replica)
	other, err := Open(o)
	check(m.t, err)
	points := randomPoints(m.r, &m.clock)
	_, err = other.Apply([]dsdb.Entry{{Index: 1, Data: AppendWrite(nil, dsdb.ProposalID{}, batchOf(points))}})
	check(m.t, err)
	_, err = other.Flush()
	check(m.t, err)
	incoming := path.Join(o.Dir, "incoming-1")
	check(m.t, m.fs.MkdirAll(incoming))
	for _, f := range snap.Files {
		b, err := vfs.ReadFile(m.fs, path.Join(m.dir, f.Name))
		check(m.t, err)
		if int64(len(b)) != f.Size || crc32.Checksum(b, castagnoli) != f.CRC {
			m.t.Fatalf("%s has %d bytes, not %d, or another sum", f.Name, len(b), f.Size)
		}
		check(m.t, vfs.WriteFile(m.fs, path.Join(incoming, f.Name), b))
	}
	release()
	check(m.t, m.shard.Close())
	m.dir, m.shard = o.Dir, other
	check(m.t, other.Install(snap, incoming))
	check(m.t, m.fs.RemoveAll(incoming))
	m.replay()
}

// Whatever is written, deleted, flushed, merged and opened again: the shard
// holds what the obvious shard holds.
func TestShardAgainstTwin(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		m := newMachine(t, seed)
		if seed%2 == 1 { // some series are too long to be merged
			check(t, m.shard.Close())
			m.merge = 2000
			m.open()
		}
		for i := range 80 {
			m.step()
			if i%5 == 0 {
				compare(t, m.r, m.shard, m.twin)
			}
		}
		compare(t, m.r, m.shard, m.twin)
		check(t, m.shard.Close())
	}
}
