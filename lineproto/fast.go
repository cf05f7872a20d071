package lineproto

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/dasudian/dsdb"
)

// fastLine reads the line at body[pos:] if it holds nothing unusual and
// returns where the next one begins. Otherwise it returns -1 and has changed
// nothing, but that it may have remembered a series prefix.
func (p *Parser) fastLine(pos int) int {
	body := p.job.body
	e, ok := p.prefixAt(pos)
	if !ok {
		return -1
	}
	entry := &p.series.prefixes[e]
	if entry.slow {
		return -1
	}
	end := p.fastFields(p.tables[p.series.series[entry.series].table], pos+int(entry.n)+1)
	if end < 0 || end == len(body) {
		return p.fastEnd(e, end, p.job.now)
	}
	switch body[end] {
	case '\n':
		p.commit(e, p.job.now)
		return end + 1
	case '\r':
		return p.fastEnd(e, end, p.job.now)
	}
	time, end := fastTime(body, end+1)
	if end < 0 {
		return -1
	}
	if unit := int64(p.job.opt.Precision); unit != 1 {
		if time, ok = scaleTime(time, unit); !ok {
			return -1
		}
	} else if time < dsdb.MinTime || time > dsdb.MaxTime {
		return -1
	}
	return p.fastEnd(e, end, time)
}

// fastEnd commits the line if it ends at body[end:].
func (p *Parser) fastEnd(e uint32, end int, time int64) int {
	body := p.job.body
	switch {
	case end < 0:
		return -1
	case end == len(body):
		p.commit(e, time)
		return end
	case body[end] == '\n':
		p.commit(e, time)
		return end + 1
	case body[end] == '\r' && end+1 < len(body) && body[end+1] == '\n':
		p.commit(e, time)
		return end + 2
	}
	return -1
}

// prefixAt returns the entry of the series prefix that begins at pos and ends
// before a space.
func (p *Parser) prefixAt(pos int) (uint32, bool) {
	body, s := p.job.body, &p.series
	if e, ok := s.predicted(); ok {
		known := &s.prefixes[e]
		end := pos + int(known.n)
		if end < len(body) && body[end] == ' ' && string(body[pos:end]) == string(s.arena[known.off:known.off+known.n]) {
			return e, true
		}
	}
	space := bytes.IndexByte(body[pos:], ' ')
	if space <= 0 {
		return 0, false
	}
	line := body[pos : pos+space+1]
	if e, ok := s.find(line[:space], maphash.Bytes(s.seed, line[:space])); ok {
		return e, true
	}
	switch line[0] {
	case '#', '\t', 0, '\r':
		return 0, false
	}
	if bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\\') >= 0 || len(line) > maxKeyLength/2 {
		return 0, false
	}
	if _, err := p.spans.scanKey(line); err != nil {
		return 0, false
	}
	e, err := p.enter(line)
	return e, err == nil
}

// fastFields reads the fields at body[i:] into p.values and returns where they
// end: at a space, a line end or the end of the body. It returns -1 if a field
// is unknown or hard to read.
func (p *Parser) fastFields(t *table, i int) int {
	body := p.job.body
	values := p.values[:0]
	link := &t.first
	for {
		c := *link
		if c < 0 {
			return -1
		}
		if n := t.cols[c].match(body, i); n > 0 {
			i += n
		} else if c, i = t.fastName(body, i); c < 0 {
			return -1
		}
		col := &t.cols[c]
		var bits uint64
		var size uint
		if i+8 <= len(body) && col.typ == dsdb.Integer {
			bits, size = smallInteger(binary.LittleEndian.Uint64(body[i:]))
		}
		end := i + int(size/8)
		if size > 0 {
			values = append(values, value{col: c, bits: bits})
		} else {
			v, typ, e := fastValue(body, i)
			if typ != col.typ {
				if c = t.find([]byte(col.name), typ); c < 0 {
					return -1
				}
			}
			v.col, end = c, e
			values = append(values, v)
		}
		*link = c
		link = &t.cols[c].next
		if end < len(body) && body[end] == ',' {
			i = end + 1
			continue
		}
		p.values = values
		if end < len(body) && body[end] != ' ' && body[end] != '\n' && body[end] != '\r' {
			return -1
		}
		return end
	}
}

// match returns the length of the column's name and '=' if they stand at
// body[i:], else 0. Those of 8 to 16 bytes are compared in two words that overlap.
func (c *col) match(body []byte, i int) int {
	n := len(c.equal)
	if c.words && i+n <= len(body) {
		b := body[i : i+n]
		if (binary.LittleEndian.Uint64(b)^c.head)|(binary.LittleEndian.Uint64(b[n-8:])^c.tail) == 0 {
			return n
		}
	}
	return c.matchText(body[i:])
}

func (c *col) matchText(b []byte) int {
	if n := len(c.equal); n <= len(b) && string(b[:n]) == c.equal {
		return n
	}
	return 0
}

// smallInteger reads an integer of one to seven digits and its i, in the eight
// bytes of w, without a branch on its length. It returns the length of the value
// in bits, 0 if no such integer stands there.
func smallInteger(w uint64) (m uint64, size uint) {
	w ^= zeros
	// The high bit of each byte that is no digit; only the lowest one counts.
	other := (w + 0x7676767676767676 | w) & 0x8080808080808080
	bit := uint(bits.TrailingZeros64(other)) &^ 7
	if bit-8 > 48 || byte(w>>(bit&63)) != 'i'^'0' {
		return 0, 0
	}
	return joinDigits(w << ((64 - bit) & 63)), bit + 8
}

// fastName finds the column whose name and '=' stand at body[i:], and where they end.
func (t *table) fastName(body []byte, i int) (int32, int) {
	n := bytes.IndexByte(body[i:min(len(body), i+maxKeyLength/4)], '=')
	if n <= 0 {
		return -1, 0
	}
	c, ok := t.byName[string(body[i:i+n])]
	if !ok || t.cols[c].equal == "" {
		return -1, 0
	}
	return c, i + n + 1
}

// fastValue reads the value at body[i:] and returns where it ends. A type of
// NoType means that slowLine must look at it.
func fastValue(body []byte, i int) (v value, typ dsdb.FieldType, end int) {
	if i >= len(body) {
		return v, dsdb.NoType, i
	}
	b := body[i]
	switch {
	case b-'0' <= 9 || b == '-' || b == '.':
		return fastNumber(body, i)
	case b == '"':
		return fastString(body, i+1)
	}
	for end = i; end < len(body) && end < i+6; end++ {
		if c := body[end]; c == ',' || c == ' ' || c == '\n' || c == '\r' {
			break
		}
	}
	bit, ok := parseBoolean(body[i:end])
	if !ok {
		return v, dsdb.NoType, i
	}
	v.bits = bit
	return v, dsdb.Boolean, end
}

// fastNumber reads integers of up to 18 digits, and decimals exactly.
func fastNumber(body []byte, i int) (v value, typ dsdb.FieldType, end int) {
	start := i
	negative := body[i] == '-'
	if negative {
		i++
	}
	digits := i
	var m uint64
	for i < len(body) {
		d := uint64(body[i]) - '0'
		if d > 9 {
			break
		}
		m = m*10 + d
		i++
	}
	n := i - digits
	if i < len(body) && body[i] == 'i' {
		if n == 0 || n > 18 {
			return v, dsdb.NoType, i
		}
		if negative {
			m = -m
		}
		v.bits = m
		return v, dsdb.Integer, i + 1
	}
	fraction := 0
	if i < len(body) && body[i] == '.' {
		i++
		for fraction = i; i < len(body); i++ {
			d := uint64(body[i]) - '0'
			if d > 9 {
				break
			}
			m = m*10 + d
		}
		fraction = i - fraction
		n += fraction
	}
	if n == 0 || i < len(body) && (body[i]|0x20 == 'e' || body[i] == 'u') {
		return v, dsdb.NoType, i
	}
	bits, ok := decimalBits(body[start:i], m, n, fraction)
	if !ok {
		return v, dsdb.NoType, i
	}
	v.bits = bits
	return v, dsdb.Float, i
}

// fastString reads a string whose opening quote stands before body[i:].
func fastString(body []byte, i int) (v value, typ dsdb.FieldType, end int) {
	n := bytes.IndexByte(body[i:], '"')
	if n < 0 {
		return v, dsdb.NoType, i
	}
	end = i + n
	if slash := bytes.IndexByte(body[i:end], '\\'); slash >= 0 {
		v.escaped = true
		for end = i + slash; end < len(body) && body[end] != '"'; end++ {
			if body[end] == '\\' {
				end++
			}
		}
		if end >= len(body) {
			return v, dsdb.NoType, i
		}
	}
	v.bits = uint64(i)<<32 | uint64(end-i)
	return v, dsdb.String, end + 1
}

// fastTime reads a timestamp of up to 18 digits, or of 19 that fit.
func fastTime(body []byte, i int) (time int64, end int) {
	if i+19 < len(body) && body[i+19] <= '\r' {
		a, ok := eightDigits(binary.LittleEndian.Uint64(body[i:]))
		b, ok2 := eightDigits(binary.LittleEndian.Uint64(body[i+8:]))
		c, d, e := uint64(body[i+16])-'0', uint64(body[i+17])-'0', uint64(body[i+18])-'0'
		if ok && ok2 && c <= 9 && d <= 9 && e <= 9 {
			t := (a*1e8+b)*1e3 + c*100 + d*10 + e
			if t > uint64(dsdb.MaxTime) {
				return 0, -1
			}
			return int64(t), i + 19
		}
		return 0, -1
	}
	negative := i < len(body) && body[i] == '-'
	if negative {
		i++
	}
	start := i
	var t int64
	for i < len(body) && body[i]-'0' <= 9 {
		t = t*10 + int64(body[i]-'0')
		i++
	}
	if i == start || i-start > 18 {
		return 0, -1
	}
	if negative {
		t = -t
	}
	return t, i
}

// zeros are eight ASCII digits 0.
const zeros = 0x3030303030303030

// eightDigits reads eight ASCII digits, the first in the lowest byte.
func eightDigits(w uint64) (uint64, bool) {
	w ^= zeros
	// A byte above 9 carries into its upper half when 6 is added.
	if (w|(w+0x0606060606060606))&0xf0f0f0f0f0f0f0f0 != 0 {
		return 0, false
	}
	return joinDigits(w), true
}

// joinDigits makes a number of eight digits from 0 to 9, one a byte, the first
// in the lowest, by pairing neighbours three times.
func joinDigits(w uint64) uint64 {
	w = w*10 + w>>8
	return ((w&0x000000ff000000ff)*(100+1000000<<32) + (w>>16&0x000000ff000000ff)*(1+10000<<32)) >> 32
}
