package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/shard"
)

// The points of a run: a few series, each with a few times in each time group,
// each with two fields. A cell is one field of one such point; every write puts
// a value of its own there, and 0 stands for none.
const (
	seriesCount = 3
	slotCount   = 2
	measurement = "m"
)

var fields = [...]string{"v", "w"}

// cell names one value of one database.
type cell struct {
	db                        string
	hour, series, slot, field int
}

func (c cell) time() int64 { return hour(c.hour) + int64(c.slot)*int64(time.Second) }

func (c cell) compare(o cell) int {
	a := []int{c.hour, c.series, c.slot, c.field}
	b := []int{o.hour, o.series, o.slot, o.field}
	if c.db != o.db {
		return map[bool]int{true: -1, false: 1}[c.db < o.db]
	}
	return slices.Compare(a, b)
}

func host(series int) string { return fmt.Sprintf("h%d", series) }

func seriesKey(series int) []byte {
	return dsdb.AppendSeriesKey(nil, measurement, dsdb.Tags{{Key: "host", Value: host(series)}})
}

// point is a row to be written. A value of 0 is none.
type point struct {
	hour, series, slot int
	values             [len(fields)]uint64
}

func (p point) time() int64 { return cell{hour: p.hour, slot: p.slot}.time() }

// cells are those that the point has a value for.
func (p point) cells(db string) (cs []cell) {
	for f, v := range p.values {
		if v != 0 {
			cs = append(cs, cell{db, p.hour, p.series, p.slot, f})
		}
	}
	return cs
}

// batch makes the columns of some points.
func batch(ps []point) *column.WriteBatch {
	t := column.Table{Measurement: measurement, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	for _, name := range fields {
		t.Columns = append(t.Columns, column.Column{Name: name, Type: dsdb.Float, Valid: column.NewBitmap(len(ps))})
	}
	known := map[int]uint32{}
	for row, p := range ps {
		if _, ok := known[p.series]; !ok {
			known[p.series] = uint32(t.Keys.Len())
			t.Keys.Append(seriesKey(p.series))
		}
		t.Series = append(t.Series, known[p.series])
		t.Times = append(t.Times, p.time())
		t.MinTime, t.MaxTime = min(t.MinTime, p.time()), max(t.MaxTime, p.time())
		for f, v := range p.values {
			t.Columns[f].Bits = append(t.Columns[f].Bits, math.Float64bits(float64(v)))
			if v != 0 {
				t.Columns[f].Valid.Set(row)
			} else {
				t.Columns[f].Bits[row] = 0
			}
		}
	}
	return &column.WriteBatch{Tables: []column.Table{t}}
}

// part is what one shard gets of a write.
type part struct {
	shard  dsdb.ShardID
	points []point
	at     uint64 // index of the entry that had the effect, 0: not known
}

// write stores points through a member as the server does: it sees to the time
// groups and the fields, and then proposes each shard its part. done is told the
// outcome of each part; without parts the points were certainly not stored.
func (m *member) write(db string, ps []point, done func(p part, v dsdb.Verdict, err error), failed func(error)) {
	m.ensure(db, ps, 3, func(rp *meta.RetentionPolicy, err error) {
		if err != nil {
			failed(err)
			return
		}
		var parts []part
		for _, p := range ps {
			g := rp.GroupFor(p.time())
			id := g.Shards[g.Partition(seriesKey(p.series))].ID
			at := slices.IndexFunc(parts, func(p part) bool { return p.shard == id })
			if at < 0 {
				at, parts = len(parts), append(parts, part{shard: id})
			}
			parts[at].points = append(parts[at].points, p)
		}
		for _, p := range parts {
			b := batch(p.points)
			m.proposing(p.shard.Group(), func(id dsdb.ProposalID) []byte { return shard.AppendWrite(nil, id, b) }, func(v dsdb.Verdict, tries int, err error) {
				p.at = v.Index
				if tries > 1 {
					p.at = 0
				}
				done(p, v, err)
			})
		}
	})
}

// ensure has the time groups and the fields of points created that are not in
// the catalogue, by at most so many commands, and returns the policy.
func (m *member) ensure(db string, ps []point, commands int, done func(*meta.RetentionPolicy, error)) {
	rp, err := m.catalogue.View().Policy(db, "")
	if err != nil {
		m.current(dsdb.MetaGroup, func(err error) {
			if err == nil {
				rp, err = m.catalogue.View().Policy(db, "")
			}
			if err != nil {
				done(nil, err)
				return
			}
			m.ensure(db, ps, commands, done)
		})
		return
	}
	var times []int64
	var sets []meta.NewFields
	for _, p := range ps {
		switch g := rp.GroupFor(p.time()); {
		case g == nil:
			times = append(times, p.time())
		case len(g.Fields(measurement)) < len(fields):
			set := meta.NewFields{Measurement: measurement, Times: []int64{p.time()}}
			for _, name := range fields {
				set.Fields = append(set.Fields, meta.Field{Name: name, Type: dsdb.Float})
			}
			sets = append(sets, set)
		}
	}
	var c meta.Command
	switch {
	case len(times) > 0:
		m.store.count("commands for new time groups")
		c = &meta.EnsureShardGroups{Database: db, Policy: rp.Name, Times: times, Now: hour(m.store.hours()), Avoid: m.unreachable(), Witness: rp.ReplicaN == 2}
	case len(sets) > 0:
		c = &meta.RegisterFields{Database: db, Policy: rp.Name, Sets: sets}
	default:
		done(rp, nil)
		return
	}
	if commands == 0 {
		done(nil, dsdb.Errorf(dsdb.KindUnavailable, "the catalogue does not take in what the points need"))
		return
	}
	m.command(c, func(_ dsdb.Verdict, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		m.ensure(db, ps, commands-1, done)
	})
}

// unreachable lists the data nodes that this one cannot talk to.
func (m *member) unreachable() (ids []dsdb.NodeID) {
	for _, n := range m.store.Nodes {
		cut := m.store.network.cut[[2]int{m.node.Index, n.Index}] || m.store.network.cut[[2]int{n.Index, m.node.Index}]
		if n != m.node && (cut || !n.Up()) {
			ids = append(ids, n.DataID)
		}
	}
	return ids
}

// read finds the value of a cell, linearizably: the catalogue and then the
// shard are read as of now, here or on another node that holds a replica.
func (m *member) read(c cell, done func(uint64, error)) {
	m.current(dsdb.MetaGroup, func(err error) {
		if err != nil {
			done(0, err)
			return
		}
		rp, err := m.catalogue.View().Policy(c.db, "")
		if err != nil {
			done(0, err)
			return
		}
		g := rp.GroupFor(c.time())
		if g == nil {
			done(0, nil) // nothing was ever written there
			return
		}
		sh := g.Shards[g.Partition(seriesKey(c.series))]
		at := m.node
		if own := m.shards[sh.ID]; own == nil || own.Shard == nil || own.Damage() != nil {
			whole := slices.DeleteFunc(slices.Clone(sh.Replicas), func(r meta.Replica) bool { return r.Witness })
			at = m.store.node(whole[m.store.Rand.IntN(len(whole))].Node)
			m.store.count("reads of other nodes")
		}
		var value uint64
		m.call(at, func(at *member, reply func(error)) {
			at.current(sh.ID.Group(), func(err error) {
				if err == nil {
					value, err = at.scan(sh.ID, c)
				}
				reply(err)
			})
		}, opTimeout, func(err error) { done(value, err) })
	})
}

// scan reads one cell of a shard that is open here.
func (m *member) scan(id dsdb.ShardID, c cell) (value uint64, err error) {
	r := m.shards[id]
	if r == nil || r.busy || r.Shard == nil {
		return 0, errDropped
	}
	if err := r.Damage(); err != nil { // it goes on in its group, but answers nothing
		return 0, err
	}
	err = each(r.Shard, func(series string, at int64, values [len(fields)]uint64) {
		if series == host(c.series) && at == c.time() {
			value = values[c.field]
		}
	})
	return value, err
}

// each calls f for each row of a shard, in the order of series and time.
func each(sh *shard.Shard, f func(host string, at int64, values [len(fields)]uint64)) error {
	src, err := sh.Source()
	if err != nil {
		return err
	}
	defer src.Close()
	ctx := context.Background()
	set, err := src.Series(ctx, measurement, nil, []string{"host"})
	if err != nil {
		return err
	}
	hosts := map[dsdb.SeriesID]string{}
	for i, id := range set.IDs {
		hosts[id] = set.Value(i, 0)
	}
	cur, err := src.Scan(ctx, dsdb.Scan{Measurement: measurement, Series: set.IDs, Fields: fields[:], Range: dsdb.AllTime})
	if err != nil {
		return err
	}
	defer cur.Close()
	for {
		t, err := cur.Next()
		if t == nil || err != nil {
			return err
		}
		if err := t.LoadTimes(); err != nil {
			return err
		}
		for i := range fields {
			if err := t.Load(i); err != nil {
				return err
			}
		}
		for row := range t.Rows {
			var values [len(fields)]uint64
			for i := range fields {
				if v := &t.Cols[i]; v.Type == dsdb.Float && !v.Null(row) {
					values[i] = uint64(v.Floats[row])
				}
			}
			f(hosts[t.Series], t.Times[row], values)
		}
	}
}

// dump is all that a shard holds, as bytes that are equal if that is.
func dump(sh *shard.Shard) (b []byte, err error) {
	var rows []string
	err = each(sh, func(host string, at int64, values [len(fields)]uint64) {
		rows = append(rows, fmt.Sprintf("%s %d %v", host, at, values))
	})
	slices.Sort(rows)
	for _, r := range rows {
		b = binary.AppendUvarint(b, uint64(len(r)))
		b = append(b, r...)
	}
	return b, err
}

// remove deletes the points of one series, those of one time or, with drop,
// the series with all its times, from the shards that the catalogue has now.
// done is told how many of the shards have, may have and have certainly not done so.
func (m *member) remove(db string, series int, r dsdb.TimeRange, drop bool, done func(did, may, not int)) {
	m.current(dsdb.MetaGroup, func(err error) {
		if err != nil {
			done(0, 0, 1)
			return
		}
		view := m.catalogue.View()
		rp, err := view.Policy(db, "")
		if err != nil {
			done(0, 0, 1)
			return
		}
		del := shard.Delete{Measurements: []string{measurement}, Where: &dsdb.TagExpr{Op: dsdb.TagEqual, Key: "host", Value: host(series)}, Range: r, DropSeries: drop}
		var shards []dsdb.ShardID
		for _, g := range rp.GroupsIn(r) {
			for _, sh := range g.Shards {
				shards = append(shards, sh.ID)
			}
		}
		did, may, not, left := 0, 0, 0, len(shards)
		if left == 0 {
			done(0, 0, 0)
		}
		for _, id := range shards {
			m.propose(id.Group(), func(p dsdb.ProposalID) []byte { return shard.AppendDelete(nil, p, del) }, func(_ dsdb.Verdict, err error) {
				switch {
				case err == nil:
					did++
				case didNotHappen(err):
					not++
				default:
					may++
				}
				if left--; left == 0 {
					done(did, may, not)
				}
			})
		}
	})
}

// didNotHappen reports whether an error says so of what was to be done.
func didNotHappen(err error) bool {
	k := dsdb.KindOf(err)
	return k == dsdb.KindUnavailable || k == dsdb.KindNotLeader || k == dsdb.KindInvalid || k == dsdb.KindConflict || k == dsdb.KindNotFound
}
