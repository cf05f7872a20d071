package exec

import (
	"context"
	"slices"
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// seriesTable is the series of all shards of one source in output order: by
// group, then by the rules of mergeOrder. Series that the condition excludes by
// their tags alone are not in it. With ORDER BY time DESC the order is reversed.
type seriesTable struct {
	shard  []uint16        // per series: index into the source's open shards
	id     []dsdb.SeriesID // its id there
	place  []uint32        // its place among those that its shard has listed; nil if all shards lie on this node
	cond   []uint32        // per series: index into conds
	conds  []*condition    // distinct conditions that remain when tags are known; nil: none
	keys   []string        // the tag keys of code
	dict   [][]string      // per key: its values over all shards, ascending
	code   [][]uint32      // per key, per series: index into dict
	groups []int           // group g is the series [groups[g], groups[g+1])
	dims   []int           // per dimension: index into keys
}

func (t *seriesTable) numGroups() int { return len(t.groups) - 1 }

// value returns the value of key k of series i.
func (t *seriesTable) value(i, k int) string { return t.dict[k][t.code[k][i]] }

// tags returns the values of the dimensions of a group; a tag that its series lack is "".
func (t *seriesTable) tags(q *query, g int) dsdb.Tags {
	if len(q.p.Dims) == 0 {
		return nil
	}
	tags := make(dsdb.Tags, len(q.p.Dims))
	for d, k := range t.dims {
		tags[d] = dsdb.Tag{Key: q.p.Dims[d], Value: t.value(t.groups[g], k)}
	}
	return tags
}

// listSeries asks every shard for its series, drops those whose tags make the
// condition false, sorts them into groups and applies SLIMIT and SOFFSET.
func (s *sourceRun) listSeries(ctx context.Context) (*seriesTable, error) {
	q := s.q
	keys, err := s.tagKeys(ctx)
	if err != nil {
		return nil, err
	}
	sets := make([]*column.SeriesSet, len(s.shards))
	if err := s.remoteSeries(ctx, keys, sets); err != nil {
		return nil, err
	}
	for i := range s.shards {
		if s.shards[i].remote != nil {
			continue
		}
		if sets[i], err = s.shards[i].src.Series(ctx, s.name, q.p.Tags, keys); err != nil {
			return nil, err
		}
	}
	t := newSeriesTable(keys, sets)
	if countLocal(s.shards) < len(s.shards) {
		t.numberPlaces(sets)
	}
	for _, d := range q.p.Dims {
		t.dims = append(t.dims, slices.Index(t.keys, d))
	}
	order := t.bindConditions(q)
	by := q.mergeOrder(t)
	for i, k := range slices.Backward(by) {
		if !slices.Contains(by[:i], k) {
			order = t.sortByKey(order, k)
		}
	}
	t.reorder(order)
	t.cutGroups()
	t.limitGroups(q.p)
	if q.p.Descending {
		t.reverse()
	}
	return t, nil
}

// newSeriesTable makes a table of the series of some shards, shard by shard.
func newSeriesTable(keys []string, sets []*column.SeriesSet) *seriesTable {
	t := &seriesTable{keys: keys}
	for i, set := range sets {
		for j := range set.IDs {
			t.shard = append(t.shard, uint16(i))
			t.id = append(t.id, set.IDs[j])
		}
	}
	t.mergeDictionaries(sets)
	return t
}

// numberPlaces notes the place of each series among those of its shard.
func (t *seriesTable) numberPlaces(sets []*column.SeriesSet) {
	t.place = make([]uint32, 0, len(t.id))
	for _, set := range sets {
		for j := range set.IDs {
			t.place = append(t.place, uint32(j))
		}
	}
}

// tagKeys returns the keys whose values the query needs: the dimensions, the
// tags that expressions name and, where rows of several series are merged by
// time, every key, to have an order for rows of one time.
func (s *sourceRun) tagKeys(ctx context.Context) ([]string, error) {
	q := s.q
	keys := slices.Clone(q.p.Dims)
	for _, r := range q.p.Refs {
		if r.Tag {
			keys = append(keys, r.Name)
		}
	}
	if len(q.p.Calls) == 0 {
		sources := make([]Source, len(s.shards))
		for i := range sources {
			sources[i] = s.shards[i].src
		}
		all, err := TagKeys(ctx, sources, s.name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, all...)
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// mergeOrder returns the keys by which series are sorted, the most significant
// first: the dimensions; the selected tags in the order of their names as far
// as no field stands between them (InfluxDB 1.8, sortedMergeHeap: rows of one
// time are ordered by their leading string values); then every key.
func (q *query) mergeOrder(t *seriesTable) []int {
	order := slices.Clone(t.dims)
	if len(q.p.Calls) == 0 {
		refs := selectedRefs(q.p)
		sort.Slice(refs, func(i, j int) bool { return q.p.Refs[refs[i]].Name < q.p.Refs[refs[j]].Name })
		for _, r := range refs {
			if !q.p.Refs[r].Tag {
				break
			}
			order = append(order, slices.Index(t.keys, q.p.Refs[r].Name))
		}
		for k := range t.keys {
			order = append(order, k)
		}
	}
	return order
}

// mergeDictionaries brings the codes of all shards to one sorted dictionary per
// key, of the values that occur: a shard's own may hold many more.
func (t *seriesTable) mergeDictionaries(sets []*column.SeriesSet) {
	t.dict = make([][]string, len(t.keys))
	t.code = make([][]uint32, len(t.keys))
	for k := range t.keys {
		var all []string
		used := make([][]uint32, len(sets))
		for i, set := range sets {
			used[i] = distinctCodes(set.Code[k], len(set.Dict[k]))
			for _, c := range used[i] {
				all = append(all, set.Dict[k][c])
			}
		}
		slices.Sort(all)
		all = slices.Compact(all)
		t.dict[k] = all
		t.code[k] = make([]uint32, 0, len(t.id))
		for i, set := range sets {
			t.code[k] = appendRanks(t.code[k], set, k, used[i], all)
		}
	}
}

// sparse reports whether a dictionary of n values is so large beside the number
// of series that work in proportion to it is to be avoided.
func sparse(n, series int) bool { return n > 4*series+64 }

// distinctCodes returns the distinct codes, ascending; they are below n.
func distinctCodes(codes []uint32, n int) []uint32 {
	if sparse(n, len(codes)) {
		used := slices.Clone(codes)
		slices.Sort(used)
		return slices.Compact(used)
	}
	seen := make([]bool, n)
	for _, c := range codes {
		seen[c] = true
	}
	var used []uint32
	for c, s := range seen {
		if s {
			used = append(used, uint32(c))
		}
	}
	return used
}

// appendRanks appends, for each series of a set, the rank of its value of key k
// in the sorted dictionary all.
func appendRanks(dst []uint32, set *column.SeriesSet, k int, used []uint32, all []string) []uint32 {
	ranks := make([]uint32, len(used))
	for i, c := range used {
		r, _ := slices.BinarySearch(all, set.Dict[k][c])
		ranks[i] = uint32(r)
	}
	if sparse(len(set.Dict[k]), len(set.Code[k])) {
		for _, c := range set.Code[k] {
			i, _ := slices.BinarySearch(used, c)
			dst = append(dst, ranks[i])
		}
		return dst
	}
	byCode := make([]uint32, len(set.Dict[k]))
	for i, c := range used {
		byCode[c] = ranks[i]
	}
	for _, c := range set.Code[k] {
		dst = append(dst, byCode[c])
	}
	return dst
}

// bindConditions evaluates the condition on the tags of every series. It
// returns the series for which it is not false and sets cond.
func (t *seriesTable) bindConditions(q *query) []uint32 {
	order := make([]uint32, 0, len(t.id))
	t.cond = make([]uint32, len(t.id))
	b := newBinder(q, t)
	for i := range t.id {
		c, keep := b.bind(i)
		if keep {
			t.cond[i] = c
			order = append(order, uint32(i))
		}
	}
	t.conds = b.conds
	return order
}

// sortByKey sorts order by the values of key k; it is stable.
func (t *seriesTable) sortByKey(order []uint32, k int) []uint32 {
	starts := make([]uint32, len(t.dict[k])+1)
	code := t.code[k]
	for _, i := range order {
		starts[code[i]+1]++
	}
	for c := 1; c < len(starts); c++ {
		starts[c] += starts[c-1]
	}
	out := make([]uint32, len(order))
	for _, i := range order {
		out[starts[code[i]]] = i
		starts[code[i]]++
	}
	return out
}

func (t *seriesTable) reorder(order []uint32) {
	t.shard = permuted(t.shard, order)
	t.id = permuted(t.id, order)
	t.cond = permuted(t.cond, order)
	if t.place != nil {
		t.place = permuted(t.place, order)
	}
	for k := range t.code {
		t.code[k] = permuted(t.code[k], order)
	}
}

func permuted[T any](v []T, order []uint32) []T {
	out := make([]T, len(order))
	for i, j := range order {
		out[i] = v[j]
	}
	return out
}

// cutGroups finds the runs of series that agree in all dimensions.
func (t *seriesTable) cutGroups() {
	t.groups = t.groups[:0]
	for i := range t.id {
		if i == 0 || t.differ(i-1, i) {
			t.groups = append(t.groups, i)
		}
	}
	t.groups = append(t.groups, len(t.id))
}

func (t *seriesTable) differ(i, j int) bool {
	for _, k := range t.dims {
		if t.code[k][i] != t.code[k][j] {
			return true
		}
	}
	return false
}

// limitGroups applies SLIMIT and SOFFSET, which count groups whether or not
// they have rows in the time range, as InfluxDB does.
func (t *seriesTable) limitGroups(p *planner.Select) {
	lo := min(p.SOffset, t.numGroups())
	hi := t.numGroups()
	if p.SLimit > 0 {
		hi = min(hi, lo+p.SLimit)
	}
	from, to := t.groups[lo], t.groups[hi]
	t.shard, t.id, t.cond = t.shard[from:to], t.id[from:to], t.cond[from:to]
	if t.place != nil {
		t.place = t.place[from:to]
	}
	for k := range t.code {
		t.code[k] = t.code[k][from:to]
	}
	t.cutGroups()
}

func (t *seriesTable) reverse() {
	slices.Reverse(t.shard)
	slices.Reverse(t.id)
	slices.Reverse(t.cond)
	slices.Reverse(t.place)
	for k := range t.code {
		slices.Reverse(t.code[k])
	}
	t.cutGroups()
}

// selectedRefs returns the refs that the output columns name, ascending.
func selectedRefs(p *planner.Select) []int {
	seen := make([]bool, len(p.Refs))
	for _, c := range p.Columns {
		markRefs(c.Expr, seen)
	}
	var refs []int
	for i, s := range seen {
		if s {
			refs = append(refs, i)
		}
	}
	return refs
}

func markRefs(e *planner.Expr, seen []bool) {
	if e == nil {
		return
	}
	if e.Op == planner.OpRef {
		seen[e.Index] = true
	}
	markRefs(e.Left, seen)
	markRefs(e.Right, seen)
}

// tagOf returns the value of a tag of series i, "" if it has none.
func (t *seriesTable) tagOf(i int, key string) string {
	if k := slices.Index(t.keys, key); k >= 0 {
		return t.value(i, k)
	}
	return ""
}
