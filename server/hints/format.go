package hints

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// version is that of an encoded hint: its first byte.
const version = 1

// MaxData bounds Hint.Data, so that what describes it fits into an entry too.
const MaxData = wal.MaxEntry - 64<<10

// append appends the hint as the log has it.
func (h *Hint) append(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, version), uint64(h.Made))
	dst = binary.AppendUvarint(dst, uint64(h.Points))
	for _, s := range []string{h.Database, h.Policy} {
		dst = append(binary.AppendUvarint(dst, uint64(len(s))), s...)
	}
	return append(dst, h.Data...)
}

// decode decodes what append made. Data aliases b.
func decode(id dsdb.ShardID, b []byte) (h Hint, err error) {
	if len(b) == 0 || b[0] != version {
		return h, dsdb.Errorf(dsdb.KindCorrupt, "hint of %d bytes is of no version that this program knows", len(b))
	}
	r := b[1:]
	number := func() uint64 {
		v, n := binary.Uvarint(r)
		if n <= 0 {
			r = nil
			return 0
		}
		r = r[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(r)) {
			r = nil
			return ""
		}
		s := string(r[:n])
		r = r[n:]
		return s
	}
	h.Shard, h.Made = id, int64(number())
	points := number()
	h.Points, h.Database, h.Policy = int(points), text(), text()
	if r == nil || points > 1<<40 {
		return Hint{}, dsdb.Errorf(dsdb.KindCorrupt, "hint of %d bytes is malformed", len(b))
	}
	h.Data = r
	return h, nil
}
