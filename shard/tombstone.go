package shard

import (
	"slices"

	"github.com/dasudian/dsdb"
)

// tombstone is a delete of some rows of some series. It hides the rows that
// entries below its index wrote. (A delete of all rows of a series needs none:
// the index forgets the series, and its id never comes back.)
type tombstone struct {
	index  uint64
	rng    dsdb.TimeRange
	series []dsdb.SeriesID // ascending
}

// hides reports whether the tombstone concerns rows of a series in [first, last].
func (t *tombstone) hides(id dsdb.SeriesID, first, last int64) bool {
	if last < t.rng.Start || first >= t.rng.End {
		return false
	}
	_, found := slices.BinarySearch(t.series, id)
	return found
}
