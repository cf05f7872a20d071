package dedupe

import (
	"encoding/binary"

	"github.com/dasudian/dsdb"
)

// The least bytes that a coordinator and a verdict take.
const (
	coordinatorBytes = 3*8 + Width/8 + 4
	verdictBytes     = 8 + 8 + 1 + 4 + 4
)

// noValue in place of the length of a value stands for nil.
const noValue = 1<<32 - 1

// Append appends the window: equal windows, which the same proposals made, have
// the same bytes.
func (w *Window) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, uint32(len(w.coordinators)))
	for _, c := range w.byUse() {
		for _, v := range []uint64{uint64(c.node), c.epoch, c.greatest} {
			dst = le.AppendUint64(dst, v)
		}
		for _, word := range c.seen {
			dst = le.AppendUint64(dst, word)
		}
		dst = le.AppendUint32(dst, uint32(len(c.kept)))
		for i := range c.kept {
			dst = c.kept[i].append(dst)
		}
	}
	return dst
}

func (k *kept) append(dst []byte) []byte {
	le, v := binary.LittleEndian, &k.verdict
	dst = le.AppendUint64(dst, k.seq)
	dst = le.AppendUint64(dst, uint64(v.Rejected))
	dst = append(dst, byte(v.Kind))
	dst = le.AppendUint32(dst, uint32(len(v.Reason)))
	dst = append(dst, v.Reason...)
	if v.Value == nil {
		return le.AppendUint32(dst, noValue)
	}
	dst = le.AppendUint32(dst, uint32(len(v.Value)))
	return append(dst, v.Value...)
}

// Load replaces the window by one that Append wrote; b must be all of it and
// is not kept. It reports KindCorrupt with the offset where b is wrong, and
// then leaves the window alone.
func (w *Window) Load(b []byte) error {
	r := &reader{src: b}
	n := &Window{}
	for range r.count(coordinatorBytes) {
		c := r.coordinator()
		if r.bad || n.coordinators[c.node] != nil || len(n.coordinators) == maxCoordinators {
			return r.corrupt()
		}
		if n.coordinators == nil {
			n.coordinators = map[dsdb.NodeID]*coordinator{}
		}
		n.uses++
		c.used = n.uses
		n.coordinators[c.node] = c
	}
	if r.bad || r.at != len(b) {
		return r.corrupt()
	}
	*w = *n
	return nil
}

// reader takes values off src. After one that is malformed bad is set and
// every further value is zero.
type reader struct {
	src []byte
	at  int
	bad bool
}

func (r *reader) corrupt() error {
	return dsdb.Errorf(dsdb.KindCorrupt, "dedupe window of %d bytes: malformed before offset %d", len(r.src), r.at)
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.src)-r.at {
		r.bad = true
		return nil
	}
	r.at += n
	return r.src[r.at-n : r.at]
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// count reads the number of things that take at least size bytes each.
func (r *reader) count(size int) int {
	n := int(r.u32())
	if n > (len(r.src)-r.at)/size {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) coordinator() *coordinator {
	c := &coordinator{node: dsdb.NodeID(r.u64()), epoch: r.u64(), greatest: r.u64()}
	for i := range c.seen {
		c.seen[i] = r.u64()
	}
	last := uint64(0)
	for range r.count(verdictBytes) {
		k := r.kept()
		if k.seq <= last || !c.has(k.seq) {
			r.bad = true
			return c
		}
		last = k.seq
		c.kept = append(c.kept, k)
		c.bytes += k.cost()
	}
	if c.greatest == 0 || !c.has(c.greatest) || c.greatest < Width && c.seenBeyond() || c.bytes > maxVerdictBytes {
		r.bad = true
	}
	return c
}

// has reports whether seq lies in the window and was seen.
func (c *coordinator) has(seq uint64) bool {
	return seq != 0 && seq <= c.greatest && c.greatest-seq < Width && c.seen[seq%Width/64]>>(seq%64)&1 == 1
}

// seenBeyond reports whether a bit is set that stands for no sequence number
// up to the greatest, which is less than Width.
func (c *coordinator) seenBeyond() bool {
	valid := 0
	for seq := uint64(1); seq <= c.greatest; seq++ {
		valid += int(c.seen[seq%Width/64] >> (seq % 64) & 1)
	}
	return valid != c.known()
}

func (r *reader) kept() kept {
	k := kept{seq: r.u64()}
	rejected := r.u64()
	k.verdict.Rejected = int(rejected)
	if b := r.take(1); b != nil {
		k.verdict.Kind = dsdb.Kind(b[0])
	}
	k.verdict.Reason = string(r.take(int(r.u32())))
	if n := r.u32(); n != noValue {
		k.verdict.Value = append([]byte{}, r.take(int(n))...)
	}
	if rejected > 1<<62 || rejected == 0 && k.verdict.Value == nil {
		r.bad = true
	}
	return k
}
