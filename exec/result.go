package exec

import (
	"context"

	"github.com/dasudian/dsdb/column"
)

// Result is the answer to one statement, frame by frame: the frames of one
// series follow one another (all but its last are Partial), series are in
// output order. Next returns nil at the end; a frame is valid until the next
// call. Close releases everything, early or late, and is idempotent.
type Result interface {
	Next(ctx context.Context) (*column.Frame, error)
	Close() error
}
