package exec

import (
	"context"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// Source is the data of one shard as operators see it. A Source is a snapshot:
// what is written after it was opened does not appear. Safe for concurrent use
// until Close.
type Source interface {
	// Series returns the series of a measurement that match where, with the values
	// of the tag keys asked for; keys nil means none. An unknown measurement has none.
	Series(ctx context.Context, measurement string, where *dsdb.TagExpr, keys []string) (*column.SeriesSet, error)
	// Scan returns a cursor over rows. Cursors of one Source are independent of
	// each other and may run on different goroutines.
	Scan(ctx context.Context, s dsdb.Scan) (column.Cursor, error)
	// Measurements returns the names of those that have a series, sorted.
	Measurements(ctx context.Context) ([]string, error)
	// TagKeys returns the tag keys that series of a measurement have, sorted.
	TagKeys(ctx context.Context, measurement string) ([]string, error)
	Close() error
}

// Open opens the Source of a shard. It reports KindNotFound if the shard was dropped.
type Open func(ctx context.Context, id dsdb.ShardID) (Source, error)
