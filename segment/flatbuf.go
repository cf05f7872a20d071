package segment

import "encoding/binary"

// fbTable is a table of a FlatBuffer. Access is checked: what lies outside of
// the buffer reads as absent, so that no input makes it panic.
// (Format: https://flatbuffers.dev/internals)
type fbTable struct {
	b   []byte
	pos int
}

// fbRoot returns the root table.
func fbRoot(b []byte) fbTable { return fbTable{b, fbUint32(b, 0)} }

// fbUint32 returns an offset, 0 if it lies outside of b or is too great.
func fbUint32(b []byte, pos int) int {
	if pos < 0 || pos > len(b)-4 {
		return 0
	}
	v := binary.LittleEndian.Uint32(b[pos:])
	if uint64(v) > uint64(len(b)) {
		return 0
	}
	return int(v)
}

// fbInt64 returns a number, 0 if it lies outside of b.
func fbInt64(b []byte, pos int) int64 {
	if pos < 0 || pos > len(b)-8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b[pos:]))
}

// field returns the position of the i-th field of the table, 0 if it is absent.
func (t fbTable) field(i int) int {
	if t.pos <= 0 || t.pos > len(t.b)-4 {
		return 0
	}
	vtable := t.pos - int(int32(binary.LittleEndian.Uint32(t.b[t.pos:])))
	slot := vtable + 4 + 2*i
	if vtable < 0 || slot > len(t.b)-2 {
		return 0
	}
	if size := int(binary.LittleEndian.Uint16(t.b[vtable:])); 4+2*i >= size {
		return 0
	}
	off := int(binary.LittleEndian.Uint16(t.b[slot:]))
	if off == 0 {
		return 0
	}
	return t.pos + off
}

// table returns the table that the i-th field refers to; its fields are absent if there is none.
func (t fbTable) table(i int) fbTable {
	p := t.field(i)
	if p == 0 {
		return fbTable{}
	}
	return fbTable{t.b, p + fbUint32(t.b, p)}
}

// vector returns the position of the first element and the number of elements,
// each of size bytes; none if they do not lie in the buffer.
func (t fbTable) vector(i, size int) (pos, n int) {
	p := t.field(i)
	if p == 0 {
		return 0, 0
	}
	p += fbUint32(t.b, p)
	n = fbUint32(t.b, p)
	if p+4 > len(t.b) || n > (len(t.b)-p-4)/size {
		return 0, 0
	}
	return p + 4, n
}

// str returns the string that the i-th field refers to.
func (t fbTable) str(i int) string {
	pos, n := t.vector(i, 1)
	return string(t.b[pos : pos+n])
}

// int64 returns the number in the i-th field, 0 if it is absent.
func (t fbTable) int64(i int) int64 {
	p := t.field(i)
	if p == 0 {
		return 0
	}
	return fbInt64(t.b, p)
}
