package exec

import (
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
	"github.com/dasudian/dsdb/planner"
)

// Messages. What is sent begins with a byte that says whether more pieces of the
// same message follow. A request goes on with version, kind and number; it is
// answered by items and then by counters or an error, each a message. A stop
// carries the number of the request that it ends early.

// exchangeVersion is that of requests and answers.
const exchangeVersion = 1

// maxPiece is the length of a piece at most, maxMessage that of a message.
const (
	maxPiece   = 8 << 20
	maxMessage = 1 << 30
)

type requestKind byte

const (
	openRequest requestKind = 1 + iota
	measurementsRequest
	tagKeysRequest
	seriesRequest
	listRequest      // the series of a source; what follows concerns it
	aggregateRequest // partials
	rowsRequest      // row buffers
	stopRequest
	endRequest
)

type answerKind byte

const (
	itemAnswer answerKind = 1 + iota
	doneAnswer
	errorAnswer
)

// requestHead begins a request.
func requestHead(kind requestKind, id uint64) []byte {
	return wire.AppendUint([]byte{0, exchangeVersion, byte(kind)}, id)
}

// send sends a message, whose first byte is kept free for send.
func send(c Conn, b []byte) error {
	for len(b) > maxPiece {
		b[0] = 1
		if err := c.Send(b[:maxPiece]); err != nil {
			return err
		}
		b = b[maxPiece-1:] // its first byte has been sent
	}
	b[0] = 0
	return c.Send(b)
}

// receive returns the next message without the byte that belongs to send.
func receive(c Conn) ([]byte, error) {
	var all []byte
	for {
		b, err := c.Recv()
		if err != nil {
			return nil, err
		}
		if len(b) == 0 || b[0] > 1 || len(all)+len(b) > maxMessage {
			return nil, dsdb.Errorf(dsdb.KindInvalid, "message malformed: piece of %d bytes after %d", len(b), len(all))
		}
		if b[0] == 0 && all == nil {
			return b[1:], nil
		}
		all = append(all, b[1:]...)
		if b[0] == 0 {
			return all, nil
		}
	}
}

// append appends what another node reports of its part of a query.
func (c *Counters) append(dst []byte) []byte {
	for _, n := range []int64{c.Tiles, c.TilesSkipped, c.TilesByStats, c.TilesDecoded, c.Rows, c.Bytes, c.MorselsRun} {
		dst = wire.AppendUint(dst, uint64(n))
	}
	return dst
}

func (c *Counters) decode(r *wire.Reader) {
	for _, n := range []*int64{&c.Tiles, &c.TilesSkipped, &c.TilesByStats, &c.TilesDecoded, &c.Rows, &c.Bytes, &c.MorselsRun} {
		*n = int64(r.Uint(math.MaxInt64))
	}
}

func appendShards(dst []byte, ids []dsdb.ShardID) []byte {
	dst = wire.AppendUint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = wire.AppendUint(dst, uint64(id))
	}
	return dst
}

func appendSeriesRequest(dst []byte, id dsdb.ShardID, measurement string, where *dsdb.TagExpr, keys []string) []byte {
	dst = wire.AppendUint(dst, uint64(id))
	dst = wire.AppendString(dst, measurement)
	return wire.AppendStrings(planner.AppendTagExpr(dst, where), keys)
}

// appendWindows appends the windows of a query.
func appendWindows(dst []byte, w *windows) []byte {
	dst = wire.AppendUint(dst, uint64(w.n))
	dst = wire.AppendInt(dst, w.first)
	dst = wire.AppendBool(dst, w.starts != nil)
	if w.starts == nil {
		return wire.AppendInt(dst, w.every)
	}
	last := w.first
	for _, s := range w.starts {
		dst = wire.AppendUint(dst, uint64(s-last))
		last = s
	}
	return dst
}

func decodeWindows(r *wire.Reader) windows {
	w := windows{n: r.Size(maxWindows), first: r.Int()}
	if w.n == 0 {
		r.Fail("no windows")
	}
	if !r.Bool() {
		if w.every = r.Int(); w.every <= 0 {
			r.Fail("windows of length %d", w.every)
		}
		return w
	}
	if r.Len() <= w.n {
		r.Fail("%d windows in %d bytes", w.n, r.Len())
		return w
	}
	last := w.first
	for i := range w.n + 1 {
		d := r.Uint(uint64(math.MaxInt64) - uint64(last))
		if i > 0 && d == 0 || i == 0 && d > 0 {
			r.Fail("windows do not ascend")
		}
		last += int64(d)
		w.starts = append(w.starts, last)
	}
	return w
}

// appendMembers appends the series of a fragment, which place gives as indexes
// among those listed of the shard: for each group the number of its series, and
// then all series as runs of successive ones.
func appendMembers(dst []byte, ms []member, place []uint32) (out []byte, groups []int32) {
	var counts []int
	for i, m := range ms {
		if i == 0 || m.place != ms[i-1].place {
			groups, counts = append(groups, m.place), append(counts, 0)
		}
		counts[len(counts)-1]++
	}
	dst = wire.AppendUint(dst, uint64(len(counts)))
	for _, n := range counts {
		dst = wire.AppendUint(dst, uint64(n))
	}
	next := int64(0)
	for i := 0; i < len(ms); {
		at := int64(place[ms[i].series])
		n := 1
		for i+n < len(ms) && int64(place[ms[i+n].series]) == at+int64(n) {
			n++
		}
		dst = wire.AppendUint(wire.AppendInt(dst, at-next), uint64(n))
		next = at + int64(n)
		i += n
	}
	return dst, groups
}

// decodeMembers reads the series of a fragment: those listed of its shard are
// [base, base+listed) of the table. Groups are numbered from *groups on.
func decodeMembers(r *wire.Reader, base, listed int, groups *int) []member {
	counts := make([]int, r.Count(1))
	total := 0
	for i := range counts {
		counts[i] = r.Size(listed)
		if total += counts[i]; counts[i] == 0 || total > listed {
			r.Fail("%d of %d series", total, listed)
			return nil
		}
	}
	if r.Err() != nil || total == 0 {
		r.Fail("no series")
		return nil
	}
	ms := make([]member, 0, total)
	group, left, next := *groups, counts[0], int64(0)
	for len(ms) < total && r.Err() == nil {
		at, n := r.Int(), r.Size(total-len(ms))
		if at += next; at < 0 || n == 0 || at > int64(listed-n) {
			r.Fail("series [%d, %d) of %d", at, at+int64(n), listed)
			return nil
		}
		next = at + int64(n)
		for i := range n {
			if left == 0 {
				group++
				left = counts[group-*groups]
			}
			left--
			ms = append(ms, member{int32(base + int(at) + i), int32(group)})
		}
	}
	*groups += len(counts)
	return ms
}
