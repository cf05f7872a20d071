package exec

import (
	"cmp"
	"slices"

	"github.com/dasudian/dsdb"
)

// fragment is what a batch of groups asks of one shard: what is computed where
// the shard lies. Its morsels are cut by the same rule everywhere, and their
// results are brought together before those of the next shard, so that an
// answer does not depend on where shards lie.
type fragment struct {
	shard   int
	remote  *Remote  // nil: the shard lies on this node
	members []member // in table order until morsels are cut
	group   int      // of all of them: [group, group+groups)
	groups  int
	rng     dsdb.TimeRange
	win     int // windows that rng meets: [win, win+wins)
	wins    int
}

// member is a series of a fragment.
type member struct {
	series int32 // index into the table
	place  int32 // its group; of a request for rows its place in the request
}

// morsel is a piece of work: some series of one shard.
type morsel struct {
	fragment int // which one it belongs to
	shard    int
	series   []member // ascending by id
	rng      dsdb.TimeRange
	group    int // of all series: [group, group+groups)
	groups   int
	win      int // windows that rng meets: [win, win+wins)
	wins     int
}

// byShard returns the series of groups [from, to) of each shard, in table order.
func (t *seriesTable) byShard(shards, from, to int) [][]member {
	n := make([]int, shards)
	for j := t.groups[from]; j < t.groups[to]; j++ {
		n[t.shard[j]]++
	}
	out := make([][]member, shards)
	for i := range out {
		out[i] = make([]member, 0, n[i])
	}
	for g := from; g < to; g++ {
		for j := t.groups[g]; j < t.groups[g+1]; j++ {
			s := t.shard[j]
			out[s] = append(out[s], member{int32(j), int32(g)})
		}
	}
	return out
}

// sortByID sorts members of one shard by id, as a scan wants them.
func (t *seriesTable) sortByID(ms []member) {
	slices.SortFunc(ms, func(x, y member) int { return cmp.Compare(t.id[x.series], t.id[y.series]) })
}

// fragments are what groups [from, to) in windows [lo, hi) ask of the shards.
func (a *aggregateOperator) fragments(from, to, lo, hi int) []fragment {
	var out []fragment
	for i, members := range a.table.byShard(len(a.shards), from, to) {
		if f, ok := a.fragment(i, members, lo, hi); ok {
			out = append(out, f)
		}
	}
	return out
}

// fragment is what some series and windows [lo, hi) ask of a shard, false if that is nothing.
func (a *aggregateOperator) fragment(shard int, members []member, lo, hi int) (fragment, bool) {
	r := a.shards[shard].rng.Intersect(dsdb.TimeRange{Start: a.win.start(lo), End: a.win.start(hi)})
	if r.Empty() || len(members) == 0 {
		return fragment{}, false
	}
	f := fragment{shard: shard, remote: a.shards[shard].remote, members: members, rng: r, win: max(a.win.at(r.Start), lo)}
	f.wins = min(a.win.at(r.End-1)+1, hi) - f.win
	f.group = int(members[0].place)
	f.groups = int(members[len(members)-1].place) + 1 - f.group
	return f, true
}

// cut makes the morsels of fragments. Series of a single group are taken in
// the order of their ids, so that a morsel reads a contiguous part of the shard;
// series of several groups in the order of the groups, so that a morsel's cells
// are few.
func (t *seriesTable) cut(fs []fragment) []morsel {
	var out []morsel
	for i := range fs {
		f := &fs[i]
		mine := f.members
		if f.remote != nil {
			mine = slices.Clone(mine) // the request has them in table order
		}
		if f.groups == 1 {
			t.sortByID(mine)
		}
		for len(mine) > 0 {
			n := min(len(mine), morselSeries)
			m := morsel{fragment: i, shard: f.shard, series: mine[:n:n], rng: f.rng, win: f.win, wins: f.wins}
			m.group = int(mine[0].place)
			m.groups = int(mine[n-1].place) + 1 - m.group
			if f.groups > 1 {
				t.sortByID(m.series)
			}
			out = append(out, m)
			mine = mine[n:]
		}
	}
	return out
}
