package exec

import (
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/planner"
)

// listMeasurements answers SHOW MEASUREMENTS.
func (r *showRun) listMeasurements(ms []*shown) ([]showTable, error) {
	var names, databases, policies []string
	for _, m := range ms {
		ok, err := r.measurementMatches(m, r.p.Where)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		names = append(names, m.name)
		databases = append(databases, m.targets[0].Database)
		policies = append(policies, m.targets[0].Policy)
	}
	if len(names) == 0 {
		return nil, nil
	}
	t := showTable{name: "measurements"}
	t.addStrings("name", names)
	if r.p.Scoped {
		t.addStrings("database", databases)
		t.addStrings("retention policy", policies)
	}
	return []showTable{t}, nil
}

// measurementMatches evaluates WHERE for a measurement as InfluxDB does: a
// comparison holds if some series has the tag and satisfies it, a negative one
// (!=, !~) if some series has the tag and none that has it satisfies the opposite.
func (r *showRun) measurementMatches(m *shown, e *dsdb.TagExpr) (bool, error) {
	if e == nil {
		return true, nil
	}
	positive := *e
	negative := false
	switch e.Op {
	case dsdb.TagAnd, dsdb.TagOr:
		for _, a := range e.Args {
			ok, err := r.measurementMatches(m, a)
			if err != nil || ok == (e.Op == dsdb.TagOr) {
				return ok, err
			}
		}
		return e.Op == dsdb.TagAnd, nil
	case dsdb.TagNotEqual:
		positive.Op, negative = dsdb.TagEqual, true
	case dsdb.TagNotMatch:
		positive.Op, negative = dsdb.TagMatch, true
	}
	present := dsdb.TagExpr{Op: dsdb.TagNotEqual, Key: e.Key}
	both := dsdb.TagExpr{Op: dsdb.TagAnd, Args: []*dsdb.TagExpr{&present, &positive}}
	if found, err := r.someSeries(m, &both); found || err != nil {
		return found && !negative, err
	}
	if !negative {
		return false, nil
	}
	return r.someSeries(m, &present)
}

// someSeries reports whether some series of m satisfies e.
func (r *showRun) someSeries(m *shown, e *dsdb.TagExpr) (bool, error) {
	for _, src := range m.sources {
		set, err := src.Series(r.ctx, m.name, e, nil)
		if err != nil || len(set.IDs) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// listSeries answers SHOW SERIES: canonical keys, sorted, each once.
func (r *showRun) listSeries(ms []*shown) ([]showTable, error) {
	var keys []string
	for _, m := range ms {
		set, err := r.seriesKeys(m)
		if err != nil {
			return nil, err
		}
		for k := range set {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	sort.Strings(keys)
	var t showTable
	t.addStrings("key", keys)
	return []showTable{t}, nil
}

// seriesKeys returns the canonical keys of the series of m that match WHERE.
func (r *showRun) seriesKeys(m *shown) (map[string]struct{}, error) {
	keys := make(map[string]struct{})
	var buf []byte
	var tags dsdb.Tags
	for _, src := range m.sources {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		all, err := src.TagKeys(r.ctx, m.name)
		if err != nil {
			return nil, err
		}
		set, err := src.Series(r.ctx, m.name, r.p.Where, all)
		if err != nil {
			return nil, err
		}
		for i := range set.IDs {
			tags = tags[:0]
			for k, key := range set.Keys {
				if v := set.Value(i, k); v != "" {
					tags = append(tags, dsdb.Tag{Key: key, Value: v})
				}
			}
			buf = dsdb.AppendSeriesKey(buf[:0], m.name, tags)
			keys[string(buf)] = struct{}{}
		}
	}
	return keys, nil
}

// countSeries counts the distinct series of m that match WHERE.
func (r *showRun) countSeries(m *shown) (int, error) {
	if len(m.sources) == 1 {
		set, err := m.sources[0].Series(r.ctx, m.name, r.p.Where, nil)
		if err != nil {
			return 0, err
		}
		return len(set.IDs), nil
	}
	keys, err := r.seriesKeys(m)
	return len(keys), err
}

// total answers the cardinalities that are one number.
func (r *showRun) total(ms []*shown) ([]showTable, error) {
	kind := r.p.Kind
	if kind != planner.ShowMeasurementCardinality && (kind != planner.ShowSeriesCardinality || r.p.Count) {
		return nil, nil // WHERE is false: no measurement has anything
	}
	n := 0
	for _, m := range ms {
		if kind == planner.ShowMeasurementCardinality {
			ok, err := r.measurementMatches(m, r.p.Where)
			if err != nil {
				return nil, err
			}
			n += int(boolInt(ok))
			continue
		}
		c, err := r.countSeries(m)
		if err != nil {
			return nil, err
		}
		n += c
	}
	name := "cardinality estimation"
	if r.p.Count {
		name = "count"
	}
	var t showTable
	t.addInts(name, dsdb.Integer, []int64{int64(n)})
	return []showTable{t}, nil
}

// tagKeys returns the tag keys of the series of m that match WHERE, sorted.
func (r *showRun) tagKeys(m *shown) ([]string, error) {
	found := make(map[string]struct{})
	for _, src := range m.sources {
		all, err := src.TagKeys(r.ctx, m.name)
		if err != nil {
			return nil, err
		}
		keys := r.wanted(all)
		if r.p.Where == nil || len(keys) == 0 {
			for _, k := range keys {
				found[k] = struct{}{}
			}
			continue
		}
		set, err := src.Series(r.ctx, m.name, r.p.Where, keys)
		if err != nil {
			return nil, err
		}
		for k, key := range set.Keys {
			if usedCodes(set, k) > 0 {
				found[key] = struct{}{}
			}
		}
	}
	return sortedKeys(found), nil
}

// wanted returns the keys that WITH KEY lets through.
func (r *showRun) wanted(keys []string) []string {
	var out []string
	for _, k := range keys {
		if planner.MatchName(r.p.Keys, k) {
			out = append(out, k)
		}
	}
	return out
}

// usedCodes counts the series of the set that have key k.
func usedCodes(set *column.SeriesSet, k int) int {
	n := 0
	for _, code := range set.Code[k] {
		if code != 0 {
			n++
		}
	}
	return n
}

// tagValues returns the key and value pairs of the series of m that match
// WHERE and WITH KEY, sorted by key, then value.
func (r *showRun) tagValues(m *shown) (keys, values []string, err error) {
	byKey := make(map[string]map[string]struct{})
	for _, src := range m.sources {
		all, err := src.TagKeys(r.ctx, m.name)
		if err != nil {
			return nil, nil, err
		}
		wanted := r.wanted(all)
		if len(wanted) == 0 {
			continue
		}
		set, err := src.Series(r.ctx, m.name, r.p.Where, wanted)
		if err != nil {
			return nil, nil, err
		}
		for k, key := range set.Keys {
			if byKey[key] == nil {
				byKey[key] = make(map[string]struct{})
			}
			r.addValues(byKey[key], set, k)
		}
	}
	for _, key := range sortedKeys(byKey) {
		for _, v := range sortedKeys(byKey[key]) {
			keys = append(keys, key)
			values = append(values, v)
		}
	}
	return keys, values, nil
}

// addValues adds the values of key k that series of the set have and that the
// tests on the value let through.
func (r *showRun) addValues(dst map[string]struct{}, set *column.SeriesSet, k int) {
	used := make([]bool, len(set.Dict[k]))
	for _, code := range set.Code[k] {
		used[code] = true
	}
	for code, v := range set.Dict[k] {
		if code == 0 || !used[code] {
			continue
		}
		ok := true
		for _, test := range r.p.Values {
			ok = ok && test.MatchValue(v)
		}
		if ok {
			dst[v] = struct{}{}
		}
	}
}

// fieldKeys returns the fields of m, sorted, and their types. A field that has
// different types in different policies appears once with each.
func (r *showRun) fieldKeys(m *shown) (keys, types []string, err error) {
	found := make(map[[2]string]struct{})
	for _, t := range m.targets {
		fields, err := r.env.Fields(t.Database, t.Policy, m.name, r.p.Range)
		if err != nil {
			return nil, nil, err
		}
		for name, typ := range fields {
			found[[2]string{name, typ.String()}] = struct{}{}
		}
	}
	pairs := make([][2]string, 0, len(found))
	for p := range found {
		pairs = append(pairs, p)
	}
	sort.Slice(pairs, func(i, j int) bool {
		if pairs[i][0] != pairs[j][0] {
			return pairs[i][0] < pairs[j][0]
		}
		return pairs[i][1] < pairs[j][1]
	})
	for _, p := range pairs {
		keys = append(keys, p[0])
		types = append(types, p[1])
	}
	return keys, types, nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
