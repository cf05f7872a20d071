package shard

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// machine is a shard, the log that feeds it, and a twin.
type machine struct {
	t     testing.TB
	r     *rand.Rand
	fs    vfs.FS
	shard *Shard
	twin  *twin
	log   []dsdb.Entry
	clock int64
}

var testRange = dsdb.TimeRange{Start: 0, End: 10000}

func newMachine(t testing.TB, seed uint64) *machine {
	m := &machine{t: t, r: rand.New(rand.NewPCG(seed, 7)), fs: vfs.NewMem(seed), twin: newTwin(testRange)}
	m.open()
	return m
}

func (m *machine) options() Options {
	return Options{FS: m.fs, Dir: "/data/7", ID: 7, Range: testRange, Logger: slog.New(slog.DiscardHandler)}
}

// open opens the shard and applies the log from its flushed index on.
func (m *machine) open() {
	m.t.Helper()
	s, err := Open(m.options())
	check(m.t, err)
	m.shard = s
	for _, e := range m.log {
		if e.Index > s.FlushedIndex() {
			_, err := s.Apply([]dsdb.Entry{e})
			check(m.t, err)
		}
	}
}

func (m *machine) apply(data []byte) dsdb.Verdict {
	m.t.Helper()
	e := dsdb.Entry{Index: uint64(len(m.log)) + 1, Term: 1, Data: data}
	m.log = append(m.log, e)
	v, err := m.shard.Apply([]dsdb.Entry{e})
	check(m.t, err)
	return v[0]
}

func (m *machine) write(points []point) {
	m.t.Helper()
	v := m.apply(AppendWrite(nil, batchOf(points)))
	if want := m.twin.write(points); v.Rejected != want {
		m.t.Fatalf("rejected %d rows (%s), want %d", v.Rejected, v.Reason, want)
	}
}

func (m *machine) delete(d Delete) {
	m.t.Helper()
	m.apply(AppendDelete(nil, d))
	m.twin.delete(d)
}

// step does one random thing.
func (m *machine) step() {
	m.t.Helper()
	switch n := m.r.IntN(100); {
	case n < 80:
		m.write(randomPoints(m.r, &m.clock))
	case n < 90:
		m.delete(randomDelete(m.r))
	case n < 93:
		m.apply(nil)
	default:
		check(m.t, m.shard.Close())
		m.open()
	}
}

// Whatever is written, deleted, flushed, merged and opened again: the shard
// holds what the obvious shard holds.
func TestShardAgainstTwin(t *testing.T) {
	for seed := range uint64(30) {
		m := newMachine(t, seed)
		for i := range 100 {
			m.step()
			if i%5 == 0 {
				compare(t, m.r, m.shard, m.twin)
			}
		}
		compare(t, m.r, m.shard, m.twin)
		check(t, m.shard.Close())
	}
}
