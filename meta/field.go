package meta

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/dasudian/dsdb"
)

// Field is a field of a measurement and its type.
type Field struct {
	Name string
	Type dsdb.FieldType
}

// FieldSet holds the fields of one measurement in one time group, by name.
type FieldSet []Field

// Type returns the type of a field, NoType if the set does not have it.
func (s FieldSet) Type(name string) dsdb.FieldType {
	if i, found := s.find(name); found {
		return s[i].Type
	}
	return dsdb.NoType
}

func (s FieldSet) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s, name, func(f Field, name string) int { return strings.Compare(f.Name, name) })
}

// with returns the set with the fields added that it lacks; it returns s
// itself if there are none. A field that s has keeps its type, and of two
// fields of one name the first wins.
func (s FieldSet) with(fields []Field) FieldSet {
	out := s
	for _, f := range fields {
		i, found := out.find(f.Name)
		if found {
			continue
		}
		if len(out) == len(s) {
			out = slices.Clone(s)
		}
		out = slices.Insert(out, i, f)
	}
	return out
}

// schema holds the fields of all measurements of a time group. Groups with
// equal histories share one.
type schema struct {
	names []string // of measurements, sorted
	sets  []FieldSet
}

func (s *schema) fields(measurement string) FieldSet {
	if s == nil {
		return nil
	}
	if i, found := slices.BinarySearch(s.names, measurement); found {
		return s.sets[i]
	}
	return nil
}

// with returns the schema with some measurements replaced or added, s itself
// if changed is empty. An empty set removes the measurement.
func (s *schema) with(changed map[string]FieldSet) *schema {
	if len(changed) == 0 {
		return s
	}
	all := make(map[string]FieldSet, len(changed))
	if s != nil {
		for i, name := range s.names {
			all[name] = s.sets[i]
		}
	}
	maps.Copy(all, changed)
	next := &schema{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if set := all[name]; len(set) > 0 {
			next.names = append(next.names, name)
			next.sets = append(next.sets, set)
		}
	}
	return next
}

// Fields returns the fields that a measurement has in the group, nil if none.
// The set is the catalogue's own.
func (g *ShardGroup) Fields(measurement string) FieldSet { return g.schema.fields(measurement) }

// Measurements returns the measurements with a field in the group, sorted. The
// slice is the catalogue's own.
func (g *ShardGroup) Measurements() []string {
	if g.schema == nil {
		return nil
	}
	return g.schema.names
}

// Measurements returns the measurements with a field in any of the groups, sorted.
func Measurements(groups []*ShardGroup) []string {
	seen := make(map[*schema]bool)
	names := make(map[string]bool)
	for _, g := range groups {
		if g.schema == nil || seen[g.schema] {
			continue
		}
		seen[g.schema] = true
		for _, name := range g.schema.names {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// RegisterFields fixes the types of fields. A field that has a type already
// keeps it, also if another is asked for: read the catalogue for the outcome. Types
// of the measurements that were revoked are so no more.
type RegisterFields struct {
	Database string      `json:"db"`
	Policy   string      `json:"rp"`
	Sets     []NewFields `json:"sets"`
}

// NewFields are fields of one measurement in one or more time groups. A time
// stands for the group that holds it; one that no group holds is ignored.
type NewFields struct {
	Measurement string
	Times       []int64
	Fields      []Field
}

func (c *RegisterFields) op() string { return "RegisterFields" }

func (c *RegisterFields) apply(d *Data) error {
	for _, set := range c.Sets {
		for _, f := range set.Fields {
			if set.Measurement == "" || f.Name == "" || f.Type < dsdb.Float || f.Type > dsdb.String {
				return dsdb.Errorf(dsdb.KindInvalid, "field %q of measurement %q of type %v", f.Name, set.Measurement, f.Type)
			}
		}
	}
	rp, err := d.editPolicy(c.Database, c.Policy)
	if err != nil {
		return err
	}
	perGroup := make(map[*ShardGroup][]int) // ordinals of Sets
	for i, set := range c.Sets {
		for _, t := range set.Times {
			if g := rp.GroupFor(t); g != nil {
				if o := perGroup[g]; len(o) == 0 || o[len(o)-1] != i {
					perGroup[g] = append(o, i)
				}
			}
		}
	}
	rp.ShardGroups = slices.Clone(rp.ShardGroups)
	reg := registration{sets: c.Sets, done: make(map[schemaChange]*schema)}
	for i, g := range rp.ShardGroups {
		if sets := perGroup[g]; sets != nil {
			rp.ShardGroups[i] = g.withSchema(reg.schema(g.schema, sets))
		}
	}
	d.Database(c.Database).reinstate(func(m string) bool { // a copy that editPolicy made
		return slices.ContainsFunc(c.Sets, func(set NewFields) bool { return set.Measurement == m })
	})
	return nil
}

// withSchema returns the group with that schema, g itself if it has it.
func (g *ShardGroup) withSchema(s *schema) *ShardGroup {
	if g.schema == s {
		return g
	}
	next := *g
	next.schema = s
	return &next
}

// registration adds fields to schemas. Equal schemas stay shared.
type registration struct {
	sets []NewFields
	done map[schemaChange]*schema
}

// schemaChange is a schema and the sets that are added to it.
type schemaChange struct {
	old  *schema
	sets string // their ordinals as varints
}

// schema returns old with the sets of those ordinals added.
func (r *registration) schema(old *schema, ordinals []int) *schema {
	var list []byte
	for _, i := range ordinals {
		list = binary.AppendUvarint(list, uint64(i))
	}
	key := schemaChange{old, string(list)}
	if s, found := r.done[key]; found {
		return s
	}
	changed := make(map[string]FieldSet)
	for _, i := range ordinals {
		set := r.sets[i]
		have, found := changed[set.Measurement]
		if !found {
			have = old.fields(set.Measurement)
		}
		if next := have.with(set.Fields); len(next) != len(have) {
			changed[set.Measurement] = next
		}
	}
	s := old.with(changed)
	r.done[key] = s
	return s
}

// DropMeasurement forgets the field types of a measurement in every time group
// of a database, if they are revoked since that index. It is no error if there is no
// such measurement or database, or somebody has registered fields since.
type DropMeasurement struct {
	Database    string
	Measurement string
	Since       uint64 // 0: at once, as older programs want it
}

func (c *DropMeasurement) op() string { return "DropMeasurement" }

func (c *DropMeasurement) apply(d *Data) error {
	db := d.Database(c.Database)
	if db == nil || c.Since != 0 && db.Revoked(c.Measurement) != c.Since {
		return nil
	}
	done := make(map[*schema]*schema)
	for _, old := range db.Policies {
		rp, err := d.editPolicy(c.Database, old.Name)
		if err != nil {
			return err
		}
		rp.ShardGroups = slices.Clone(rp.ShardGroups)
		for i, g := range rp.ShardGroups {
			if g.Fields(c.Measurement) == nil {
				continue
			}
			if done[g.schema] == nil {
				done[g.schema] = g.schema.with(map[string]FieldSet{c.Measurement: nil})
			}
			rp.ShardGroups[i] = g.withSchema(done[g.schema])
		}
	}
	if len(db.Policies) > 0 {
		d.Database(c.Database).reinstate(func(m string) bool { return m == c.Measurement })
	}
	return nil
}
