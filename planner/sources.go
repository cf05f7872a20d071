package planner

import (
	"sort"

	"github.com/dasudian/dsdb"
	"github.com/influxdata/influxql"
)

// nameSources fills in the database and policy of each source, and refuses
// what is no measurement. The result aliases nothing of sources.
func nameSources(sources influxql.Sources, c Catalog, o Options) ([]*influxql.Measurement, error) {
	var out []*influxql.Measurement
	for _, s := range sources {
		m, ok := s.(*influxql.Measurement)
		if !ok {
			return nil, unsupported("a subquery")
		}
		m = m.Clone()
		if err := nameMeasurement(m, c, o); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func nameMeasurement(m *influxql.Measurement, c Catalog, o Options) error {
	if m.Database == "" {
		m.Database = o.DefaultDB
	}
	if m.Database == "" {
		return invalid("database name required")
	}
	rp, err := c.DefaultPolicy(m.Database)
	if err != nil {
		return err
	}
	if m.RetentionPolicy == "" {
		m.RetentionPolicy = o.DefaultRP
	}
	if m.RetentionPolicy == "" {
		m.RetentionPolicy = rp
	}
	if m.RetentionPolicy == "" {
		return invalid("default retention policy not set for: %s", m.Database)
	}
	return nil
}

// expandRegexes replaces each source that is a regular expression by the
// measurements that it matches, and drops repeated ones.
func expandRegexes(ms []*influxql.Measurement, c Catalog) ([]*influxql.Measurement, error) {
	seen := make(map[sourceKey]bool)
	var out []*influxql.Measurement
	add := func(db, rp, name string) {
		if key := (sourceKey{db, rp, name}); !seen[key] {
			seen[key] = true
			out = append(out, &influxql.Measurement{Database: db, RetentionPolicy: rp, Name: name})
		}
	}
	for _, m := range ms {
		if m.Regex == nil {
			add(m.Database, m.RetentionPolicy, m.Name)
			continue
		}
		names, err := c.Measurements(m.Database, m.RetentionPolicy)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if m.Regex.Val.MatchString(name) {
				add(m.Database, m.RetentionPolicy, name)
			}
		}
	}
	return out, nil
}

// schema is what the sources of a statement hold: the influxql.FieldMapper for
// wildcards and types.
type schema struct {
	sources []*influxql.Measurement
	fields  map[sourceKey]map[string]dsdb.FieldType
	tags    map[sourceKey]map[string]struct{}
}

type sourceKey struct{ database, policy, measurement string }

func keyOf(m *influxql.Measurement) sourceKey {
	return sourceKey{m.Database, m.RetentionPolicy, m.Name}
}

// loadSchema asks the catalogue for the fields and tags that the sources have in r.
func loadSchema(ms []*influxql.Measurement, c Catalog, r dsdb.TimeRange) (*schema, error) {
	s := &schema{
		sources: ms,
		fields:  make(map[sourceKey]map[string]dsdb.FieldType),
		tags:    make(map[sourceKey]map[string]struct{}),
	}
	for _, m := range ms {
		fields, err := c.Fields(m.Database, m.RetentionPolicy, m.Name, r)
		if err != nil {
			return nil, err
		}
		keys, err := c.TagKeys(m.Database, m.RetentionPolicy, m.Name, r)
		if err != nil {
			return nil, err
		}
		tags := make(map[string]struct{}, len(keys))
		for _, k := range keys {
			tags[k] = struct{}{}
		}
		s.fields[keyOf(m)], s.tags[keyOf(m)] = fields, tags
	}
	return s, nil
}

// FieldDimensions implements influxql.FieldMapper.
func (s *schema) FieldDimensions(m *influxql.Measurement) (map[string]influxql.DataType, map[string]struct{}, error) {
	fields := make(map[string]influxql.DataType)
	for name, t := range s.fields[keyOf(m)] {
		fields[name] = toDataType[t]
	}
	return fields, s.tags[keyOf(m)], nil
}

// MapType implements influxql.TypeMapper: a field wins over a tag of the same name.
func (s *schema) MapType(m *influxql.Measurement, name string) influxql.DataType {
	if t, ok := s.fields[keyOf(m)][name]; ok {
		return toDataType[t]
	}
	if _, ok := s.tags[keyOf(m)][name]; ok {
		return influxql.Tag
	}
	return influxql.Unknown
}

// planSources returns the sources in output order (by name, that reversed if
// descending) with their shards; those of one measurement name become one Source.
func planSources(ms []*influxql.Measurement, c Catalog, r dsdb.TimeRange, descending bool) ([]Source, error) {
	at := make(map[string]int)
	var out []Source
	for _, m := range ms {
		shards, err := c.Shards(m.Database, m.RetentionPolicy, r)
		if err != nil {
			return nil, err
		}
		i, ok := at[m.Name]
		if !ok {
			i = len(out)
			at[m.Name] = i
			out = append(out, Source{Database: m.Database, Policy: m.RetentionPolicy, Measurement: m.Name})
		}
		out[i].Shards = append(out[i].Shards, shards...)
	}
	for _, s := range out {
		sortShards(s.Shards)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Measurement < out[j].Measurement != descending })
	return out, nil
}

func sortShards(shards []Shard) {
	sort.Slice(shards, func(i, j int) bool {
		a, b := shards[i], shards[j]
		if a.Range.Start != b.Range.Start {
			return a.Range.Start < b.Range.Start
		}
		return a.ID < b.ID
	})
}
