package shard

import (
	"fmt"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// hosts returns one row of each of n series.
func hosts(n int) *column.WriteBatch {
	t := column.Table{Measurement: "cpu", Columns: []column.Column{{Name: "i", Type: dsdb.Integer}}}
	for i := range n {
		t.Keys.Append(fmt.Appendf(nil, "cpu,host=%06d", i))
		t.Series, t.Times = append(t.Series, uint32(i)), append(t.Times, 0)
		t.Columns[0].Bits = append(t.Columns[0].Bits, 0)
	}
	return &column.WriteBatch{Tables: []column.Table{t}}
}

// A shard that nothing has used since it was asked last keeps nothing in memory
// that its files hold, and is as it was for whoever comes next.
func TestAShardThatNothingUsesRests(t *testing.T) {
	const series = 5_000
	m := newMachine(t, 3)
	before := heapAlloc()
	read := func() {
		t.Helper()
		check(t, sameTimes(m.shard, false))
		check(t, sameTimes(m.shard, true))
	}
	rest := func(want bool) {
		t.Helper()
		if m.shard.Rest() {
			t.Error("it rests though it was used a moment ago")
		}
		if got := m.shard.Rest(); got != want {
			t.Errorf("rests: %v, want %v", got, want)
		}
	}
	m.apply(AppendWrite(nil, m.id(), hosts(series)))
	rest(false) // the rows are in memory only
	m.flush()
	read()
	held := heapAlloc() - before
	rest(true)
	if left := heapAlloc() - before; held < 40*series || left > held/3 {
		t.Errorf("%d bytes for %d series, %d at rest, the files in memory included", held, series, left)
	}
	if m.shard.Rest() {
		t.Error("it rests twice")
	}
	read()
	v := m.apply(AppendWrite(nil, m.id(), hosts(series)))
	if n := m.shard.Stats().Series; v.Rejected > 0 || n != series {
		t.Errorf("written again: %d rejected, %d series", v.Rejected, n)
	}
	m.flush()
	_, err := m.shard.Compact(true)
	check(t, err)
	rest(true)
	read()
	check(t, m.shard.Close())
	for range 2 {
		if m.shard.Rest() {
			t.Error("a closed shard rests")
		}
	}
}

// Who reads a shard goes on reading while it goes to rest.
func TestReadersOfARestingShardGoOn(t *testing.T) {
	m := newMachine(t, 4)
	m.apply(AppendWrite(nil, m.id(), hosts(100)))
	m.flush()
	src, err := m.shard.Source()
	check(t, err)
	c, err := src.Scan(t.Context(), dsdb.Scan{Measurement: "cpu", Fields: []string{"i"}, Range: dsdb.AllTime, Series: []dsdb.SeriesID{1, 50, 100}})
	check(t, err)
	m.shard.Rest()
	if !m.shard.Rest() {
		t.Error("it does not rest")
	}
	for range 3 {
		tile, err := c.Next()
		check(t, err)
		check(t, tile.Load(0))
		check(t, tile.LoadTimes())
	}
	check(t, c.Close())
	check(t, src.Close())
	check(t, m.shard.Close())
}

// A value that a reader loads after the shard went to rest is not remembered for
// another series than its own.
func TestRowsThatARestForgotStayForgotten(t *testing.T) {
	m := newMachine(t, 4)
	b := hosts(2)
	b.Tables[0].Columns[0].Bits = []uint64{1, 2}
	m.apply(AppendWrite(nil, m.id(), b))
	m.flush()
	newest := func(id dsdb.SeriesID, fields ...string) *column.Tile {
		t.Helper()
		src, err := m.shard.Source()
		check(t, err)
		t.Cleanup(func() { check(t, src.Close()) })
		c, err := src.Scan(t.Context(), dsdb.Scan{Measurement: "cpu", Fields: fields, Range: dsdb.AllTime, Series: []dsdb.SeriesID{id}, Descending: true, NeedRows: 1})
		check(t, err)
		tile, err := c.Next()
		check(t, err)
		return tile
	}
	slow := newest(1, "i")
	m.shard.Rest()
	m.shard.Rest()
	check(t, slow.Load(0))
	newest(2)
	tile := newest(2, "i")
	check(t, tile.Load(0))
	if got := tile.Cols[0].Ints[0]; got != 2 {
		t.Errorf("the newest value of the second series is %d", got)
	}
}
