package shard

import (
	"bytes"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/internal/dedupe"
)

func sampleDeletes() []Delete {
	return []Delete{
		{DropSeries: true},
		{Measurements: []string{}, Range: dsdb.AllTime},
		{Measurements: []string{"cpu", "a b"}, Range: dsdb.TimeRange{Start: -5, End: 7}},
		{Where: &dsdb.TagExpr{Op: dsdb.TagOr, Args: []*dsdb.TagExpr{
			{Op: dsdb.TagEqual, Key: "host", Value: "a"},
			{Op: dsdb.TagAnd, Args: []*dsdb.TagExpr{
				{Op: dsdb.TagMatch, Key: "host", Regex: regexp.MustCompile(`^web-\d+$`)},
				{Op: dsdb.TagNotMatch, Key: "dc", Regex: regexp.MustCompile(``)},
				{Op: dsdb.TagNotEqual, Key: "x"},
			}},
		}}},
	}
}

// A delete survives the log unchanged.
func TestDeleteRoundTrip(t *testing.T) {
	for _, d := range sampleDeletes() {
		b := AppendDelete([]byte("x"), dsdb.ProposalID{}, d)
		got, err := decodeDelete(b[2:])
		check(t, err)
		if !reflect.DeepEqual(got, d) {
			t.Errorf("got %+v, want %+v", got, d)
		}
	}
}

// Any bytes decode to a delete that encodes again, or are reported.
func FuzzDecodeDelete(f *testing.F) {
	for _, d := range sampleDeletes() {
		f.Add(AppendDelete(nil, dsdb.ProposalID{}, d)[1:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDelete(b)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			return
		}
		once := AppendDelete(nil, dsdb.ProposalID{}, d)
		again, err := decodeDelete(once[1:])
		check(t, err)
		if twice := AppendDelete(nil, dsdb.ProposalID{}, again); !bytes.Equal(once, twice) {
			t.Fatalf("%x, then %x", once, twice)
		}
	})
}

func sampleManifest() *manifest {
	window := &dedupe.Window{}
	window.Record(dsdb.ProposalID{Node: 3, Epoch: 2, Seq: 77}, dsdb.Verdict{Rejected: 2, Kind: dsdb.KindConflict, Reason: "no"})
	return &manifest{
		window: window,
		shard:  7, flushed: position{90, 3}, next: 12, series: 5,
		segments: []segmentMeta{
			{fileMeta: fileMeta{4, 1000, 77}, level: 1, minIndex: 1, maxIndex: 40, minTime: -8, maxTime: 9, rows: 3},
			{fileMeta: fileMeta{9, 500, 78}, minIndex: 41, maxIndex: 90, minTime: 5, maxTime: 20, rows: 4},
		},
		indexes:    []fileMeta{{3, 10, 1}, {8, 20, 2}},
		tombstones: []tombstone{{index: 60, rng: dsdb.TimeRange{Start: 1, End: 4}, series: []dsdb.SeriesID{2, 9}}},
		deletes:    sampleDeleteLog(),
	}
}

func sampleDeleteLog() (l deleteLog) {
	l.floor = 20
	for i, d := range sampleDeletes() {
		l.add(keptDelete{60 + uint64(i), AppendDelete(nil, dsdb.ProposalID{}, d)[1:], d})
	}
	return l
}

// A manifest survives the disk unchanged; every changed byte is reported.
func TestManifestRoundTrip(t *testing.T) {
	want := sampleManifest()
	b := want.append(nil)
	got, err := decodeManifest(b)
	check(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 16
		if _, err := decodeManifest(c); dsdb.KindOf(err) != dsdb.KindCorrupt {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
}

// A manifest of version 1, which ends before the window, and one of version 2,
// which ends before the deletes, are still read.
func TestOldManifests(t *testing.T) {
	want := sampleManifest()
	want.deletes = deleteLog{}
	for version, window := range map[byte]*dedupe.Window{1: {}, 2: want.window} {
		want.window = window
		b := want.append(nil)
		b = b[:len(b)-4-len(want.deletes.append(nil))]
		if b[len(manifestMagic)] = version; version == 1 {
			b = b[:len(b)-4-len(window.Append(nil))]
		}
		got, err := decodeManifest(seal(b))
		check(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("version %d: got %+v, want %+v", version, got, want)
		}
	}
}

// Any bytes under a right checksum decode to a manifest that encodes to the
// same bytes, or are reported.
func FuzzDecodeManifest(f *testing.F) {
	b := sampleManifest().append(nil)
	f.Add(b[len(manifestMagic)+1 : len(b)-4])
	f.Add((&manifest{shard: 1, next: 1, window: &dedupe.Window{}}).append(nil)[len(manifestMagic)+1:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := seal(append([]byte(manifestMagic+"\x03"), body...))
		m, err := decodeManifest(b)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			return
		}
		if again := m.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// FuzzApply applies any entry to a shard; it is applied, or reported as corrupt or of a newer program.
func FuzzApply(f *testing.F) {
	m := newMachine(f, 1)
	for range 3 {
		f.Add(AppendWrite(nil, dsdb.ProposalID{}, batchOf(randomPoints(m.r, &m.clock))))
	}
	f.Add(AppendWrites(nil, [][]byte{AppendWrite(nil, dsdb.ProposalID{}, batchOf(randomPoints(m.r, &m.clock))),
		AppendWrite(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 2}, batchOf(randomPoints(m.r, &m.clock)))}))
	f.Add(AppendWrites(nil, [][]byte{AppendPrepared(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 3}, 300, batchOf(randomPoints(m.r, &m.clock)))}))
	f.Add(AppendFence(nil, dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 4}, 300))
	f.Add(AppendDelete(nil, dsdb.ProposalID{}, sampleDeletes()[2]))
	f.Add(AppendDelete(nil, dsdb.ProposalID{Node: 1, Epoch: 2, Seq: 300}, sampleDeletes()[3]))
	f.Add(AppendHints(nil, dsdb.ProposalID{Node: 1, Epoch: 2, Seq: 301}, 0, [][]byte{
		AppendHint(nil, 0, batchOf(randomPoints(m.r, &m.clock))), AppendHint(nil, 300, batchOf(randomPoints(m.r, &m.clock)))}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b column.WriteBatch
		if len(data) == 0 {
			return
		}
		h, body, err := cutHeader(position{}, data)
		if err == nil && (h.kind == entryWrite && b.Decode(body) == nil && b.Rows() > 5000 || h.kind == entryHints && hintRows(body) > 5000) {
			return // constant columns make many rows of few bytes
		}
		m := newMachine(t, 1)
		m.write(randomPoints(m.r, &m.clock))
		_, err = m.shard.Apply([]dsdb.Entry{{Index: 2, Data: data}})
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt && dsdb.KindOf(err) != dsdb.KindInvalid && !errors.Is(err, dsdb.ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		src, err := m.shard.Source()
		check(t, err)
		names, err := src.Measurements(t.Context())
		check(t, err)
		for _, name := range names {
			fields, _ := src.Fields(name)
			dump(t, src, dsdb.Scan{Measurement: name, Fields: fields, Range: dsdb.AllTime}, nil)
		}
		check(t, src.Close())
		_, err = m.shard.Flush()
		check(t, err)
		check(t, m.shard.Close())
	})
}

// hintRows counts the rows of an entry of hints, as far as it is well-formed.
func hintRows(body []byte) (rows int) {
	for r := (reader{body}); len(r.rest) > 0; {
		hint := reader{[]byte(r.string())}
		hint.uvarint()
		var b column.WriteBatch
		if hint.rest == nil || b.Decode(hint.rest) != nil {
			return rows
		}
		rows += b.Rows()
	}
	return rows
}

// What a newer version wrote is refused, and not taken for damage: a damaged
// replica is replaced.
func TestNewerFormatIsRefused(t *testing.T) {
	b := sampleManifest().append(nil)
	b[len(manifestMagic)] = manifestV4 + 1
	if _, err := decodeManifest(b); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("damaged manifest: %v", err)
	}
	if _, err := decodeManifest(seal(b[:len(b)-4])); dsdb.KindOf(err) != dsdb.KindInvalid || !errors.Is(err, dsdb.ErrNewer) || !strings.Contains(err.Error(), "format 5") {
		t.Errorf("newer manifest: %v", err)
	}
}

// What no replica would get past is told before it is proposed.
func TestCheckBeforeProposing(t *testing.T) {
	deep := &dsdb.TagExpr{Op: dsdb.TagEqual, Key: "a", Value: "b"}
	for range maxExprDepth + 1 {
		deep = &dsdb.TagExpr{Op: dsdb.TagAnd, Args: []*dsdb.TagExpr{deep}}
	}
	id := dsdb.ProposalID{Node: 1, Epoch: 1, Seq: 1}
	for _, c := range []struct {
		entry []byte
		text  string // "": it can be applied
	}{
		{AppendFence(nil, id, 7), ""},
		{AppendFence(nil, id, 0), "fence entry of 1 bytes is malformed"},
		{AppendDelete(nil, id, Delete{Measurements: []string{"m"}, Range: dsdb.AllTime}), ""},
		{AppendDelete(nil, id, Delete{Where: deep, Range: dsdb.AllTime}), "malformed"},
		{AppendChecksum(nil), ""},
	} {
		err := Check(c.entry)
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%x: %v, want %q", c.entry[:min(len(c.entry), 40)], err, c.text)
		}
	}
}
