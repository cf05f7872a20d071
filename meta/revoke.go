package meta

import (
	"cmp"
	"slices"
)

// Revocation says that the field types of a measurement are to be freed. Queries go
// by them until they are; a write has its fields registered again, which ends it.
type Revocation struct {
	Measurement string
	At          uint64 // index of the catalogue from where on it holds
}

// Revoked returns since which index of the catalogue the field types of a measurement
// are to be freed, 0 if they are not.
func (db *Database) Revoked(measurement string) uint64 {
	for i := range db.Revocations { // next to always none
		if db.Revocations[i].Measurement == measurement {
			return db.Revocations[i].At
		}
	}
	return 0
}

// holds reports whether a measurement has a field in any time group.
func (db *Database) holds(measurement string) bool {
	return slices.ContainsFunc(db.Policies, func(rp *RetentionPolicy) bool {
		return slices.ContainsFunc(rp.ShardGroups, func(g *ShardGroup) bool { return g.Fields(measurement) != nil })
	})
}

// RevokeFields announces that the field types of measurements are to be freed by
// DropMeasurement: a write that is prepared from here on does not count on them. Those
// that did are kept out by fences of the shards. It is no error if there is no such
// measurement or database.
type RevokeFields struct {
	Database     string
	Measurements []string
}

func (c *RevokeFields) op() string { return "RevokeFields" }

func (c *RevokeFields) apply(d *Data) error {
	old := d.Database(c.Database)
	if old == nil {
		return nil
	}
	db := *old
	db.Fence = d.Index + 1 // no version before has the announcement, and each from here on
	names := slices.Clone(c.Measurements)
	for _, r := range old.Revocations {
		names = append(names, r.Measurement)
	}
	slices.Sort(names)
	db.Revocations = nil
	for _, m := range slices.Compact(names) {
		at := old.Revoked(m)
		if slices.Contains(c.Measurements, m) {
			at = db.Fence
		}
		if db.holds(m) {
			db.Revocations = append(db.Revocations, Revocation{m, at})
		}
	}
	d.setDatabase(&db)
	return nil
}

// reinstate ends the revocation of measurements. The database is a copy that the
// caller made.
func (db *Database) reinstate(is func(measurement string) bool) {
	if slices.ContainsFunc(db.Revocations, func(r Revocation) bool { return is(r.Measurement) }) {
		db.Revocations = slices.DeleteFunc(slices.Clone(db.Revocations), func(r Revocation) bool { return is(r.Measurement) })
	}
}

// checkRevocations reports whether the revocations are in order.
func (db *Database) checkRevocations() bool {
	return ascending(db.Revocations, func(a, b Revocation) int { return cmp.Compare(a.Measurement, b.Measurement) }) &&
		!slices.ContainsFunc(db.Revocations, func(r Revocation) bool { return r.At == 0 || r.At > db.Fence })
}
