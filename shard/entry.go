package shard

import (
	"encoding/binary"
	"regexp"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// The kinds of log entries: the first byte of an entry, with withID added if the
// id of the proposal comes next, and withPrepared if the index of a catalogue
// follows that. A kind is never given another meaning.
const (
	entryWrite    = 1
	entryDelete   = 2
	entryChecksum = 3
	entryWrites   = 4
	entryHints    = 5
	entryFence    = 6
	entryPrepared = 7 // entryWrites one of which has an index of the catalogue, which older programs take for damage

	withID       = 0x80
	withPrepared = 0x40
)

// maxExprDepth bounds the nesting of a condition in a log entry, well above that of
// any statement: no replica would get past an entry that is nested deeper.
const maxExprDepth = 1000

// AppendWrite appends the log entry that writes b, proposed as id. A shard
// applies one entry of each id; the zero id makes an entry that is always applied.
func AppendWrite(dst []byte, id dsdb.ProposalID, b *column.WriteBatch) []byte {
	return b.Append(appendHeader(dst, entryWrite, id))
}

// AppendPrepared appends the log entry of AppendWrite for a batch whose field types
// were found in the catalogue as of its index prepared. A shard refuses it below a
// fence: see AppendFence. 0 is before any; older programs know no other.
func AppendPrepared(dst []byte, id dsdb.ProposalID, prepared uint64, b *column.WriteBatch) []byte {
	return b.Append(appendPrepared(appendHeader(dst, entryWrite, id), len(dst), prepared))
}

// appendHeader appends the kind of an entry and the id it was proposed as.
func appendHeader(dst []byte, kind byte, id dsdb.ProposalID) []byte {
	if id == (dsdb.ProposalID{}) {
		return append(dst, kind)
	}
	dst = append(dst, kind|withID)
	for _, v := range []uint64{uint64(id.Node), id.Epoch, id.Seq} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

// appendPrepared adds an index of the catalogue, if it is not 0, to the header that
// begins at start.
func appendPrepared(dst []byte, start int, prepared uint64) []byte {
	if prepared == 0 {
		return dst
	}
	dst[start] |= withPrepared
	return binary.AppendUvarint(dst, prepared)
}

// header is what an entry says about itself.
type header struct {
	at       position
	kind     byte
	id       dsdb.ProposalID // zero: it has none
	prepared uint64          // index of the catalogue; 0: none is given
}

// cutHeader cuts the entry at a position, which is not empty, into its header and the rest.
func cutHeader(at position, src []byte) (h header, rest []byte, err error) {
	h = header{at: at, kind: src[0] &^ (withID | withPrepared)}
	r := reader{src[1:]}
	if src[0]&withID != 0 {
		h.id = dsdb.ProposalID{Node: dsdb.NodeID(r.uvarint()), Epoch: r.uvarint(), Seq: r.uvarint()}
		if r.rest == nil || h.id == (dsdb.ProposalID{}) {
			return h, nil, dsdb.Errorf(dsdb.KindCorrupt, "entry of %d bytes: malformed proposal id", len(src))
		}
	}
	if src[0]&withPrepared != 0 {
		if h.prepared = r.uvarint(); r.rest == nil || h.prepared == 0 {
			return h, nil, dsdb.Errorf(dsdb.KindCorrupt, "entry of %d bytes: malformed index of the catalogue", len(src))
		}
	}
	return h, r.rest, nil
}

// Check reports why no replica would get past an entry, nil if all do: it is to be
// asked before a deletion or a fence is proposed, for once in the log that would be
// there for good. The points of writes are not looked at.
func Check(entry []byte) error {
	h, body, err := cutHeader(position{}, entry)
	switch {
	case err != nil:
	case h.kind == entryDelete:
		_, err = decodeDelete(body)
	case h.kind == entryFence:
		_, err = decodeFence(body)
	}
	return err
}

// AppendWrites appends the log entry that does what some entries of AppendWrite
// do, one after the other, each under its own id. It has none itself. Verdicts
// takes its verdict apart.
func AppendWrites(dst []byte, entries [][]byte) []byte {
	kind := byte(entryWrites)
	for _, e := range entries {
		if e[0]&withPrepared != 0 {
			kind = entryPrepared
		}
	}
	dst = append(dst, kind)
	for _, e := range entries {
		dst = append(binary.AppendUvarint(dst, uint64(len(e))), e...)
	}
	return dst
}

// appendRejected appends the verdict on one write of several that rejected something.
func appendRejected(dst []byte, ordinal int, v dsdb.Verdict) []byte {
	dst = binary.AppendUvarint(dst, uint64(ordinal))
	dst = binary.AppendUvarint(append(dst, byte(v.Kind)), uint64(v.Rejected))
	return appendString(dst, v.Reason)
}

// Verdicts returns the verdict on each of the n writes of an entry of
// AppendWrites from the verdict on that. It reports KindCorrupt if it is of none such.
func Verdicts(v dsdb.Verdict, n int) ([]dsdb.Verdict, error) {
	vs := make([]dsdb.Verdict, n)
	for i := range vs {
		vs[i].Index = v.Index
	}
	for r := (reader{v.Value}); len(r.rest) > 0; {
		i := r.uvarint()
		if len(r.rest) == 0 || i >= uint64(n) {
			return nil, errVerdicts(v, n)
		}
		kind := dsdb.Kind(r.rest[0])
		r.rest = r.rest[1:]
		vs[i].Kind, vs[i].Rejected, vs[i].Reason = kind, int(r.uvarint()), r.string()
		if r.rest == nil {
			return nil, errVerdicts(v, n)
		}
	}
	return vs, nil
}

func errVerdicts(v dsdb.Verdict, n int) error {
	return dsdb.Errorf(dsdb.KindCorrupt, "%d bytes are not the verdict on %d writes", len(v.Value), n)
}

// AppendChecksum appends the log entry that has each replica compute a digest
// of what it holds at that entry: see Checksum. It changes nothing.
func AppendChecksum(dst []byte) []byte { return append(dst, entryChecksum) }

// Delete is a DELETE, DROP SERIES or DROP MEASUREMENT as it concerns one shard.
type Delete struct {
	Measurements []string       // nil: all
	Where        *dsdb.TagExpr  // nil: every series of them
	Range        dsdb.TimeRange // of the rows
	DropSeries   bool           // forget the series with all their rows, whatever Range says
}

// AppendDelete appends the log entry that deletes d, proposed as id. Regular
// expressions travel as their source.
func AppendDelete(dst []byte, id dsdb.ProposalID, d Delete) []byte {
	flags := byte(0)
	if d.DropSeries {
		flags |= 1
	}
	if d.Measurements != nil {
		flags |= 2
	}
	if d.Where != nil {
		flags |= 4
	}
	dst = append(appendHeader(dst, entryDelete, id), flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(d.Range.Start))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(d.Range.End))
	if d.Measurements != nil {
		dst = binary.AppendUvarint(dst, uint64(len(d.Measurements)))
		for _, m := range d.Measurements {
			dst = appendString(dst, m)
		}
	}
	if d.Where != nil {
		dst = appendExpr(dst, d.Where)
	}
	return dst
}

func appendExpr(dst []byte, e *dsdb.TagExpr) []byte {
	dst = append(dst, byte(e.Op))
	switch e.Op {
	case dsdb.TagAnd, dsdb.TagOr:
		dst = binary.AppendUvarint(dst, uint64(len(e.Args)))
		for _, arg := range e.Args {
			dst = appendExpr(dst, arg)
		}
		return dst
	case dsdb.TagMatch, dsdb.TagNotMatch:
		return appendString(appendString(dst, e.Key), e.Regex.String())
	}
	return appendString(appendString(dst, e.Key), e.Value)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// decodeDelete decodes what AppendDelete wrote after the header.
func decodeDelete(src []byte) (d Delete, err error) {
	if len(src) < 17 || src[0] > 7 {
		return d, errShort(src)
	}
	flags := src[0]
	d.DropSeries = flags&1 != 0
	d.Range.Start = int64(binary.LittleEndian.Uint64(src[1:]))
	d.Range.End = int64(binary.LittleEndian.Uint64(src[9:]))
	r := reader{src[17:]}
	if flags&2 != 0 {
		n := r.count()
		d.Measurements = make([]string, 0, n)
		for range n {
			d.Measurements = append(d.Measurements, r.string())
		}
	}
	if flags&4 != 0 {
		d.Where = r.expr(0)
		if d.Where == nil {
			return d, errShort(src)
		}
	}
	if r.rest == nil || len(r.rest) > 0 {
		return d, errShort(src)
	}
	return d, nil
}

func errShort(src []byte) error {
	return dsdb.Errorf(dsdb.KindCorrupt, "delete entry of %d bytes is malformed", len(src))
}

// reader takes values off the front of rest. After a malformed value rest is
// nil, and every further value is zero.
type reader struct{ rest []byte }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.rest = nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads the number of things of which each takes at least a byte.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.rest = nil
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	n := r.count()
	if r.rest == nil {
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// expr reads a condition; nil if it is malformed.
func (r *reader) expr(depth int) *dsdb.TagExpr {
	if len(r.rest) == 0 || depth > maxExprDepth {
		r.rest = nil
		return nil
	}
	e := &dsdb.TagExpr{Op: dsdb.TagOp(r.rest[0])}
	r.rest = r.rest[1:]
	switch e.Op {
	case dsdb.TagAnd, dsdb.TagOr:
		return r.exprArgs(e, depth)
	case dsdb.TagEqual, dsdb.TagNotEqual:
		e.Key, e.Value = r.string(), r.string()
	case dsdb.TagMatch, dsdb.TagNotMatch:
		e.Key = r.string()
		re, err := regexp.Compile(r.string())
		if err != nil {
			r.rest = nil
			return nil
		}
		e.Regex = re
	default:
		r.rest = nil
		return nil
	}
	return e
}

func (r *reader) exprArgs(e *dsdb.TagExpr, depth int) *dsdb.TagExpr {
	n := r.count()
	if n == 0 {
		r.rest = nil
		return nil
	}
	for range n {
		arg := r.expr(depth + 1)
		if arg == nil {
			return nil
		}
		e.Args = append(e.Args, arg)
	}
	return e
}
