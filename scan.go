package dsdb

import "regexp"

// TagOp is the operation of a TagExpr node.
type TagOp uint8

// The operations on tags. A series that lacks a key has the value "" for it
// (InfluxQL: host = ” finds the series without a host, host != 'a' finds them too).
const (
	TagAnd TagOp = iota
	TagOr
	TagEqual
	TagNotEqual
	TagMatch    // Value is matched by Regex
	TagNotMatch // Value is not matched by Regex
)

// TagExpr is a condition on the tags of a series: a tree of TagAnd and TagOr
// over comparisons of one key each. A nil *TagExpr is true for every series.
type TagExpr struct {
	Op    TagOp
	Args  []*TagExpr // of TagAnd, TagOr; at least one
	Key   string     // of comparisons
	Value string
	Regex *regexp.Regexp
}

// Match evaluates the condition on one tag set, slowly and obviously.
func (e *TagExpr) Match(tags Tags) bool {
	if e == nil {
		return true
	}
	switch e.Op {
	case TagAnd:
		for _, a := range e.Args {
			if !a.Match(tags) {
				return false
			}
		}
		return true
	case TagOr:
		for _, a := range e.Args {
			if a.Match(tags) {
				return true
			}
		}
		return false
	}
	return e.MatchValue(tags.Get(e.Key))
}

// MatchValue evaluates a comparison on the value of its key.
func (e *TagExpr) MatchValue(v string) bool {
	switch e.Op {
	case TagEqual:
		return v == e.Value
	case TagNotEqual:
		return v != e.Value
	case TagMatch:
		return e.Regex.MatchString(v)
	case TagNotMatch:
		return !e.Regex.MatchString(v)
	}
	panic("BUG: MatchValue on a TagExpr that is no comparison")
}

// Scan asks one shard for rows of some series of one measurement.
type Scan struct {
	Measurement string
	Series      []SeriesID // ascending; from a column.SeriesSet of the same shard
	Fields      []string   // the fields of each tile, in this order; a field the shard does not know is all null
	Range       TimeRange  // tiles that meet it are returned; rows outside may come along and are the reader's to trim
	Descending  bool       // tiles of one series from newest to oldest; rows within a tile always ascend
	NeedRows    int        // if > 0 the reader wants at most so many rows of each series and may stop early
}
