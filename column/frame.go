package column

import (
	"time"

	"github.com/dasudian/dsdb"
)

// Frame is a batch of result rows of one series, as a client sees it: a name,
// the tags it is grouped by, and columns of equal length. Partial means that
// the next frame continues the same series. A frame is valid until the next
// one is asked for.
type Frame struct {
	Name    string
	Tags    dsdb.Tags
	Columns []string
	Cols    []Vector
	Partial bool
	Zone    *time.Location // in which times are to be printed; nil: UTC
}

// Rows returns the number of rows.
func (f *Frame) Rows() int {
	if len(f.Cols) == 0 {
		return 0
	}
	return f.Cols[0].N
}
