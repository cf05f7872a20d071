package lineproto

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
)

// Parser parses bodies one after another. It remembers series prefixes, field
// names and their order, and keeps the slabs of its batches. It is not safe
// for concurrent use; a server keeps a pool of them, bounded by Retained.
type Parser struct {
	series seriesCache
	tables []*table
	byName map[string]int32 // measurement → index into tables
	gen    uint32           // of the last table that was begun
	live   []int32          // the tables of this batch, in order of first appearance
	closed []column.Table   // tables closed early because they were sparse
	spans  keySpans
	values []value // of the line at hand
	key    []byte  // scratch
	slabs  int     // bytes held by tables when the last batch ended
	job    job
}

// job is the body at hand.
type job struct {
	body     []byte
	opt      Options
	now      int64
	report   Report
	slots    int // of all tables
	errBytes int // of the kept error texts
	counted  int // newlines of body[:counted] are in line
	line     int
}

// What a Parser may keep from one body to the next.
const (
	maxSeriesCache = 32 << 20
	maxRetained    = 128 << 20
)

// Retained returns about how many bytes the parser holds, for the pool that keeps it.
func (p *Parser) Retained() int { return p.slabs + p.series.size() }

// Parse reads body into dst, which it overwrites. Good lines become rows, and
// every other line is told in the Report. dst aliases memory of the Parser,
// not of body: it is valid until the next call to Parse. One measurement
// has one table, or several whose rows follow one another if its fields are
// so sparse that one table would be mostly nulls. A field that comes with two
// types has two columns. The error is KindTooLarge if the body holds more than
// one log entry may (column.MaxEntryRows, column.MaxEntrySlots); then dst is empty.
func (p *Parser) Parse(dst *column.WriteBatch, body []byte, o Options) (Report, error) {
	dst.Tables = dst.Tables[:0]
	if int64(len(body)) > math.MaxInt32 {
		return Report{}, dsdb.Errorf(dsdb.KindTooLarge, "body of %d bytes exceeds %d", len(body), math.MaxInt32)
	}
	p.begin(body, o)
	j := &p.job
	for pos := 0; pos < len(body); {
		end := p.fastLine(pos)
		if end < 0 {
			end = p.slowLine(pos)
		}
		pos = end
		if j.slots > column.MaxEntrySlots || j.report.Points > column.MaxEntryRows {
			j.body = nil
			return Report{}, dsdb.Errorf(dsdb.KindTooLarge, "more than %d points or %d values in one write",
				column.MaxEntryRows, column.MaxEntrySlots)
		}
	}
	p.finish(dst)
	return j.report, nil
}

func (p *Parser) begin(body []byte, o Options) {
	if p.byName == nil || p.slabs > maxRetained || p.gen > math.MaxUint32/2 {
		*p = Parser{byName: make(map[string]int32), series: newSeriesCache()}
	}
	if p.series.size() > maxSeriesCache {
		p.series = newSeriesCache()
	}
	for _, i := range p.live {
		p.tables[i].gen = 0
	}
	p.live, p.closed = p.live[:0], p.closed[:0]
	p.series.last = noEntry
	if o.Precision == 0 {
		o.Precision = Nanosecond
	}
	if o.MaxErrors == 0 {
		o.MaxErrors = DefaultMaxErrors
	}
	unit := int64(o.Precision)
	now := o.Now - ((o.Now%unit)+unit)%unit
	p.job = job{body: body, opt: o, now: now, line: 1}
}

// finish moves the tables into dst.
func (p *Parser) finish(dst *column.WriteBatch) {
	dst.Tables = append(dst.Tables, p.closed...)
	p.slabs = 0
	for _, i := range p.live {
		t := p.tables[i]
		if len(t.times) > 0 {
			dst.Tables = append(dst.Tables, t.finish())
		}
		t.retains = t.size()
	}
	for _, t := range p.tables {
		p.slabs += t.retains
	}
	p.job.body = nil
}

// ordinal returns the place of series k in the key table of t, where it enters
// it at its first row. At the first row of a batch it begins t.
func (p *Parser) ordinal(t *table, k *knownSeries) uint32 {
	if k.gen == t.gen && t.gen != 0 {
		return k.ordinal
	}
	if t.gen == 0 {
		p.gen++
		t.begin(p.gen)
		p.live = append(p.live, k.table)
	}
	k.gen, k.ordinal = t.gen, uint32(t.keys.Len())
	t.keys.Append(p.series.arena[k.off : k.off+k.n])
	return k.ordinal
}

// enter returns the entry of the prefix line[:spans.end], which scanKey has
// split; it makes one if there is none.
func (p *Parser) enter(line []byte) (uint32, error) {
	s := &p.series
	raw := line[:p.spans.end]
	hash := maphash.Bytes(s.seed, raw)
	if e, ok := s.find(raw, hash); ok {
		return e, nil
	}
	same, timeTag, err := p.spans.canonical(line)
	if err != nil {
		return 0, err
	}
	if len(raw) > maxKeyLength {
		return 0, fmt.Errorf("max key length exceeded: %v > %v", len(raw), maxKeyLength)
	}
	key, keyHash := raw, hash
	if !same {
		p.key = p.spans.appendCanonical(p.key[:0], line)
		key, keyHash = p.key, maphash.Bytes(s.seed, p.key)
	}
	k, ok := s.findSeries(key, keyHash)
	if !ok {
		k = s.addSeries(key, keyHash, p.tableOf(line), timeTag)
	}
	return s.addPrefix(raw, hash, k, same), nil
}

// tableOf returns the table of the measurement that scanKey found.
func (p *Parser) tableOf(line []byte) int32 {
	var small [64]byte
	name := p.spans.name(small[:0], line)
	if i, ok := p.byName[string(name)]; ok {
		return i
	}
	i := int32(len(p.tables))
	p.tables = append(p.tables, newTable(string(name)))
	p.byName[string(name)] = i
	return i
}

// commit adds p.values as a row of series e. All checks of the line have passed.
func (p *Parser) commit(e uint32, time int64) {
	s := &p.series
	s.visit(e)
	known := &s.series[s.prefixes[e].series]
	t := p.tables[known.table]
	ordinal := p.ordinal(t, known)
	p.job.slots += t.addRow(ordinal, time, p.values, p.job.body)
	p.job.report.Lines++
	p.job.report.Points++
	if t.sparse() {
		p.split(known.table)
	}
}

// split closes a sparse table; rows to come go to a new one.
func (p *Parser) split(i int32) {
	t := p.tables[i]
	p.closed = append(p.closed, t.finish())
	p.gen++
	p.tables[i] = newTable(t.name)
	p.tables[i].begin(p.gen)
}

// fail reports that line cannot be parsed; at is the byte of it where reading
// stopped and pos its place in the body.
func (p *Parser) fail(line []byte, pos, at int, reason error) {
	j := &p.job
	j.report.Lines++
	j.report.BadLines++
	if len(j.report.Bad) >= j.opt.MaxErrors || j.errBytes >= maxErrorBytes {
		return
	}
	cut := ""
	if len(line) > maxErrorLine {
		line, cut = line[:maxErrorLine], "..."
	}
	text := fmt.Sprintf("unable to parse '%s%s': %v", line, cut, reason)
	j.errBytes += len(text)
	j.line += bytes.Count(j.body[j.counted:pos], []byte{'\n'})
	j.counted = pos
	start := bytes.LastIndexByte(j.body[:pos], '\n') + 1
	j.report.Bad = append(j.report.Bad, LineError{Line: j.line, Column: pos - start + at + 1, Text: text})
}

// drop reports a point that is well formed but forbidden.
func (p *Parser) drop(format, measurement string) {
	r := &p.job.report
	r.Lines++
	r.Dropped++
	if r.Dropped == 1 {
		r.Reason = fmt.Sprintf(format, "time", measurement)
	}
}
