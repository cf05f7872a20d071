package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
)

// digest returns the checksum that the last entry asked for.
func (m *machine) digest(index uint64) [16]byte {
	m.t.Helper()
	m.shard.sum.running.Wait()
	at, digest, ok := m.shard.Checksum()
	if !ok || at != index {
		m.t.Fatalf("checksum of index %d, %v, want one of %d", at, ok, index)
	}
	return digest
}

// Replicas that apply the same log have equal digests, whatever each of them
// flushed, merged, replayed after a crash and installed, and the digest is that
// of the entry that asked for it, whatever was applied since.
func TestReplicasHaveEqualDigests(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		script := newMachine(t, seed)
		replicas := []*machine{newMachine(t, seed+100), newMachine(t, seed+200), newMachine(t, seed+300)}
		for round := range 10 {
			for range 1 + script.r.IntN(10) {
				script.step()
			}
			script.apply(AppendChecksum(nil))
			index := uint64(len(script.log))
			for range script.r.IntN(3) {
				script.write(randomPoints(script.r, &script.clock))
			}
			want := script.digest(index)
			for i, m := range replicas {
				m.catchUp(script, index)
				if got := m.digest(index); got != want {
					t.Fatalf("seed %d, round %d, replica %d: digest %x, want %x", seed, round, i, got, want)
				}
			}
		}
		for _, m := range append(replicas, script) {
			check(t, m.shard.Close())
		}
	}
}

// catchUp applies the log of another machine up to an index, and flushes,
// merges and moves as it likes in between.
func (m *machine) catchUp(o *machine, index uint64) {
	m.t.Helper()
	for m.log = o.log[:len(m.log)]; uint64(len(m.log)) < index; {
		m.log, m.said = o.log[:len(m.log)+1], o.said[:len(m.log)+1]
		_, err := m.shard.Apply(m.log[len(m.log)-1:])
		check(m.t, err)
		if uint64(len(m.log)) == index {
			return
		}
		switch m.r.IntN(8) {
		case 0:
			m.flush()
		case 1:
			_, err := m.shard.Compact(m.r.IntN(2) == 0)
			check(m.t, err)
		case 2:
			m.moveToOther()
		case 3:
			check(m.t, m.shard.Close())
			m.fs = m.fs.(*vfs.Mem).CrashClone(50, m.r.Uint64())
			m.open()
		}
	}
}

// Each of these changes of the content changes the digest; those that only
// change the way to the same content do not.
func TestDigestIsOfTheContent(t *testing.T) {
	p := func(host string, at int64, fields ...field) []point {
		return []point{{"cpu", dsdb.Tags{{Key: "host", Value: host}}, at, fields}}
	}
	i := func(name, v string) field { return field{name, dsdb.Integer, v} }
	write := func(points ...[]point) []byte {
		return AppendWrite(nil, dsdb.ProposalID{}, batchOf(slices.Concat(points...)))
	}
	del := func(from, to int64) []byte {
		return AppendDelete(nil, dsdb.ProposalID{}, Delete{Range: dsdb.TimeRange{Start: from, End: to}})
	}
	base := [][]byte{write(p("a", 1, i("x", "1i")), p("a", 2, i("x", "2i")), p("b", 1, i("y", "3i")))}
	digest := func(entries [][]byte) string {
		m := newMachine(t, 1)
		for _, e := range entries {
			m.apply(e)
		}
		m.apply(AppendChecksum(nil))
		sum := m.digest(uint64(len(m.log)))
		check(t, m.shard.Close())
		return fmt.Sprintf("%x", sum)
	}
	want := digest(base)
	same := map[string][][]byte{
		"other order":                   {write(p("b", 1, i("y", "3i"))), write(p("a", 2, i("x", "2i"))), write(p("a", 1, i("x", "1i")))},
		"overwritten":                   {write(p("a", 1, i("x", "9i"))), write(p("b", 1, i("y", "9i"))), base[0]},
		"written twice":                 {base[0], base[0]},
		"deleted and written again":     {base[0], del(0, 10), base[0]},
		"one more, deleted":             {base[0], write(p("a", 5, i("x", "1i"))), del(5, 6)},
		"a series more, deleted":        {base[0], write(p("c", 5, i("x", "1i"))), del(5, 6)},
		"an entry that is not accepted": {base[0], write(p("a", 7, field{"x", dsdb.Float, "1"}))},
	}
	for name, entries := range same {
		if got := digest(entries); got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
	}
	other := map[string][][]byte{
		"nothing":              nil,
		"another value":        {base[0], write(p("a", 2, i("x", "3i")))},
		"another time":         {base[0], del(2, 3), write(p("a", 3, i("x", "2i")))},
		"another field":        {base[0], write(p("a", 2, i("y", "2i")))},
		"another series":       {base[0], write(p("c", 1, i("y", "3i")))},
		"values change places": {write(p("a", 1, i("x", "2i")), p("a", 2, i("x", "1i")), p("b", 1, i("y", "3i")))},
		"hosts change places":  {write(p("b", 1, i("x", "1i")), p("b", 2, i("x", "2i")), p("a", 1, i("y", "3i")))},
		"another type":         {write(p("a", 1, i("x", "1i")), p("a", 2, i("x", "2i")), p("b", 1, field{"y", dsdb.Unsigned, "3u"}))},
		"a row less":           {base[0], del(2, 3)},
		"a proposal that was seen": {AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 1},
			batchOf(slices.Concat(p("a", 1, i("x", "1i")), p("a", 2, i("x", "2i")), p("b", 1, i("y", "3i")))))},
	}
	seen := map[string]string{want: "base"}
	for name, entries := range other {
		got := digest(entries)
		if before, ok := seen[got]; ok {
			t.Errorf("%s: digest %s is that of %s", name, got, before)
		}
		seen[got] = name
	}
}

// While a digest is computed, and its reads hang, entries are applied, flushed
// and read; in the end it is the digest of the entry that asked for it.
func TestChecksumDoesNotBlock(t *testing.T) {
	m := newMachine(t, 1)
	mem, hang, hangs := m.fs.(*vfs.Mem), make(chan struct{}), make(chan struct{}, 1000)
	var armed atomic.Bool
	m.write(randomPoints(m.r, &m.clock))
	m.flush()
	check(t, m.shard.Close())
	m.fs = vfs.Faulty(mem, func(op, path string) error {
		if armed.Load() && op == vfs.OpOpen && strings.HasSuffix(path, segmentSuffix) {
			hangs <- struct{}{}
			<-hang
		}
		return nil
	})
	m.open()
	m.apply(AppendChecksum(nil))
	want := m.digest(2)
	m.flush()
	check(t, m.shard.Close())
	armed.Store(true)
	m.open()
	m.apply(AppendChecksum(nil))
	<-hangs
	m.write(randomPoints(m.r, &m.clock))
	m.flush()
	if _, _, ok := m.shard.Checksum(); ok {
		t.Error("there is a checksum, though nothing was read")
	}
	close(hang)
	if got := m.digest(3); got != want {
		t.Errorf("digest %x, want %x", got, want)
	}
	check(t, m.shard.Close())
}

// A checksum that is being computed ends with the shard, and gives way to a
// later one and to a snapshot that is installed.
func TestChecksumStops(t *testing.T) {
	m := newMachine(t, 3)
	for range 40 {
		m.write(randomPoints(m.r, &m.clock))
		m.apply(AppendChecksum(nil))
		if m.r.IntN(10) == 0 {
			m.flush()
			m.moveToOther()
		}
	}
	if index := uint64(len(m.log)); m.digest(index) == [16]byte{} {
		t.Error("the digest is zero")
	}
	m.apply(AppendChecksum(nil))
	check(t, m.shard.Close())
	if _, err := m.shard.Apply([]dsdb.Entry{{Index: uint64(len(m.log)) + 1, Data: AppendChecksum(nil)}}); err != nil {
		t.Error(err)
	}
}

func BenchmarkChecksum(b *testing.B) {
	m := newMachine(b, 1)
	m.r = rand.New(rand.NewPCG(1, 1))
	for range 200 {
		m.write(manyPoints(m.r, &m.clock))
	}
	rows := m.shard.Stats().RowsApplied
	m.flush()
	b.ReportAllocs()
	b.SetBytes(int64(rows) * 16)
	for b.Loop() {
		m.apply(AppendChecksum(nil))
		m.shard.sum.running.Wait()
	}
}
