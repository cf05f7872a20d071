package lineproto

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/dasudian/dsdb"
)

// slowLine reads the line at body[pos:], whatever it holds, and returns where
// the next one begins.
func (p *Parser) slowLine(pos int) int {
	body := p.job.body
	start := skipSpace(body, pos)
	if start < len(body) && body[start] == '#' {
		if n := bytes.IndexByte(body[start:], '\n'); n >= 0 {
			return start + n + 1
		}
		return len(body)
	}
	end := lineEnd(body, pos)
	line := body[min(start, end):end]
	line = bytes.TrimSuffix(line, []byte{'\n'}) // of an unbalanced or escaped line
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if len(line) > 0 {
		if at, err := p.slowPoint(line, start); err != nil {
			p.fail(line, start, at, err)
		}
	}
	return end + 1
}

// slowPoint reads a whole line that is neither blank nor a comment and begins
// at body[pos:]. An error says why it is no point, and where.
func (p *Parser) slowPoint(line []byte, pos int) (at int, err error) {
	if at, err = p.spans.scanKey(line); err != nil {
		return at, err
	}
	e, err := p.enter(line)
	if err != nil {
		return 0, err
	}
	start, end, err := scanFields(line, p.spans.end, p.job.opt.Unsigned)
	if err != nil {
		return end, err
	}
	if at, err = p.checkFields(line[start:end]); err != nil {
		return start + at, err
	}
	time, at, err := p.slowTime(line, end)
	if err != nil {
		return at, err
	}
	known := &p.series.series[p.series.prefixes[e].series]
	t := p.tables[known.table]
	if known.timeTag {
		p.drop("invalid tag key: input tag \"%s\" on measurement \"%s\" is invalid", t.name)
		return 0, nil
	}
	if at, err = p.slowFields(t, line[start:end], pos+start); err != nil {
		return start + at, err
	}
	if len(p.values) == 0 {
		p.drop("invalid field name: input field \"%s\" on measurement \"%s\" is invalid", t.name)
		return 0, nil
	}
	p.commit(e, time)
	return 0, nil
}

// lineEnd returns where the line that begins at pos ends: at a newline that
// neither a backslash precedes nor quotes enclose. Quotes count only in a
// field value: once a space has come, and more '=' than commas since.
func lineEnd(body []byte, pos int) int {
	quoted, fields := false, false
	equals, commas := 0, 0
	for i := pos; i < len(body); i++ {
		switch b := body[i]; b {
		case '\\':
			if i+2 < len(body) {
				i++
			}
		case ' ':
			fields = true
		case '=':
			if fields && !quoted {
				equals++
			}
		case ',':
			if fields && !quoted {
				commas++
			}
		case '"':
			if fields && equals > commas {
				quoted = !quoted
			}
		case '\n':
			if !quoted {
				return i
			}
		}
	}
	return len(body)
}

// scanFields checks the fields that follow the key, which ends at i, and
// returns where they lie in line. On an error end is where reading stopped.
func scanFields(line []byte, i int, unsigned bool) (start, end int, err error) {
	start = skipSpace(line, i)
	quoted := false
	equals, commas := 0, 0
	for i = start; i < len(line) && (line[i] != ' ' || quoted); {
		switch b := line[i]; {
		case b == '\\' && i+1 < len(line):
			i += 2
			continue
		case b == '"' && equals > commas:
			quoted = !quoted
		case b == ',' && !quoted:
			commas++
		case b == '=' && !quoted:
			equals++
			if end, err = scanValue(line, i, unsigned); err != nil {
				return start, end, err
			}
			if end > i+1 {
				i = end
				continue
			}
		}
		i++
	}
	i = min(i, len(line))
	switch {
	case quoted:
		return start, i, errUnbalancedQuotes
	case equals == 0 || commas != equals-1:
		return start, i, errInvalidFieldFormat
	}
	return start, i, nil
}

// scanValue checks what stands around the '=' at line[i], and the value if it
// is no string; it returns where the value ends, i+1 for a string.
func scanValue(line []byte, i int, unsigned bool) (int, error) {
	if (line[i-1] == ' ' || line[i-1] == ',') && line[i-2] != '\\' {
		return i, errMissingFieldKey
	}
	i++
	if i >= len(line) || line[i] == ',' || line[i] == ' ' {
		return i, errMissingFieldValue
	}
	tok := line[i:]
	if n := bytes.IndexAny(tok, ", "); n >= 0 {
		tok = tok[:n]
	}
	switch b := tok[0]; {
	case b == '"':
		return i, nil
	case isNumeric(b):
		_, _, at, err := parseNumber(tok, unsigned)
		return i + at, err
	}
	if _, ok := parseBoolean(tok); !ok {
		return i, errInvalidBoolean
	}
	return i + len(tok), nil
}

// isNumeric reports whether a value that begins with b is read as a number.
func isNumeric(b byte) bool {
	return b-'0' <= 9 || b == '.' || b == '-' || b == 'n' || b == 'N'
}

// cutField cuts the first field off the fields of a line: its raw key, and its
// value, which begins at valueAt. ok is false if there is no value.
func cutField(fields []byte) (key, value []byte, valueAt int, ok bool) {
	i := 0
	for i < len(fields) && (fields[i] != '=' || i > 0 && fields[i-1] == '\\') {
		i++
	}
	if i > len(fields)-2 {
		return fields[:i], nil, i, false
	}
	key, valueAt = fields[:i], i+1
	quoted := false
	for i = valueAt; i < len(fields) && (fields[i] != ',' || quoted); i++ {
		switch fields[i] {
		case '"':
			quoted = !quoted
		case '\\':
			if i+1 < len(fields) && (fields[i+1] == '"' || fields[i+1] == '\\') {
				i++
			}
		}
	}
	i = min(i, len(fields))
	return key, fields[valueAt:i], valueAt, true
}

// checkFields checks that each field of fields has a key of a fair length and a value.
func (p *Parser) checkFields(fields []byte) (int, error) {
	for at := 0; at < len(fields); {
		key, value, valueAt, ok := cutField(fields[at:])
		if !ok {
			return at, fmt.Errorf("invalid value: field-key=%s", key)
		}
		if n := p.spans.end + 4 + len(key); n > maxKeyLength {
			return at, fmt.Errorf("max key length exceeded: %v > %v", n, maxKeyLength)
		}
		if len(key) == 0 {
			return at, errMissingFieldKey
		}
		at += valueAt + len(value) + 1
	}
	return 0, nil
}

// slowFields reads the checked fields, which begin at body[pos:], into
// p.values; fields named time are left out.
func (p *Parser) slowFields(t *table, fields []byte, pos int) (int, error) {
	p.values = p.values[:0]
	for at := 0; at < len(fields); {
		key, text, valueAt, _ := cutField(fields[at:])
		p.key = appendUnescaped(p.key[:0], key, fieldKeyEscapes)
		at += valueAt
		if string(p.key) != "time" {
			v, typ, err := p.slowValue(text, pos+at)
			if err != nil {
				return at, err
			}
			if v.col = t.find(p.key, typ); v.col < 0 {
				v.col = t.add(p.key, typ)
			}
			if len(p.values) == 0 {
				t.first = v.col
			} else {
				t.cols[p.values[len(p.values)-1].col].next = v.col
			}
			p.values = append(p.values, v)
		}
		at += len(text) + 1
	}
	return 0, nil
}

// slowValue reads a value that begins at body[pos:].
func (p *Parser) slowValue(text []byte, pos int) (v value, typ dsdb.FieldType, err error) {
	switch {
	case len(text) == 0:
		return v, typ, errMissingFieldValue
	case text[0] == '"':
		if len(text) < 2 {
			return v, typ, errUnbalancedQuotes
		}
		v.escaped = true
		v.bits = uint64(pos+1)<<32 | uint64(len(text)-2)
		return v, dsdb.String, nil
	case isNumeric(text[0]):
		v.bits, typ, _, err = parseNumber(text, p.job.opt.Unsigned)
		return v, typ, err
	}
	bit, ok := parseBoolean(text)
	if !ok {
		return v, typ, errInvalidBoolean
	}
	v.bits = bit
	return v, dsdb.Boolean, nil
}

// slowTime reads the optional timestamp at line[i:], after which only spaces may come.
func (p *Parser) slowTime(line []byte, i int) (time int64, at int, err error) {
	i = skipSpace(line, i)
	start := i
	for i < len(line) && line[i] != ' ' && line[i] != '\n' {
		if line[i]-'0' > 9 && (i > start || line[i] != '-') {
			return 0, i, errBadTimestamp
		}
		i++
	}
	if i == start {
		return p.job.now, i, nil
	}
	time, err = strconv.ParseInt(string(line[start:i]), 10, 64)
	if err != nil {
		return 0, start, err
	}
	ok := time >= dsdb.MinTime && time <= dsdb.MaxTime
	if unit := int64(p.job.opt.Precision); unit != 1 {
		time, ok = scaleTime(time, unit)
	}
	if !ok {
		return 0, start, errTimeRange
	}
	for ; i < len(line); i++ {
		if line[i] != ' ' {
			return 0, i, errInvalidPoint
		}
	}
	return time, i, nil
}

// skipSpace returns the first index from i on that holds no space, tab or NUL.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == 0) {
		i++
	}
	return i
}
