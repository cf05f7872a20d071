package raftnode

import (
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// scarred is a log of which some is lost.
type scarred struct {
	LogReader
	state wal.GroupState
	known bool
	last  uint64
	rest  wal.Rest
}

func (l *scarred) State(dsdb.GroupID) (wal.GroupState, bool)     { return l.state, l.known }
func (l *scarred) Bounds(dsdb.GroupID) (uint64, uint64)          { return l.state.Truncated.Index + 1, l.last }
func (l *scarred) Rest(dsdb.GroupID) wal.Rest                    { return l.rest }
func (l *scarred) Term(_ dsdb.GroupID, i uint64) (uint64, error) { return 3, nil }

// How far a group can be followed depends on what is flushed: a gap before that does
// no harm.
func TestPrefixOfADamagedGroup(t *testing.T) {
	spans := func(ends ...uint64) (out []wal.Span) {
		for i := 0; i < len(ends); i += 2 {
			out = append(out, wal.Span{First: ends[i], Last: ends[i+1]})
		}
		return out
	}
	state := func(truncated, commit uint64) wal.GroupState {
		return wal.GroupState{Truncated: wal.Position{Index: truncated, Term: 1}, HardState: wal.HardState{Term: 2, Commit: commit}}
	}
	for _, c := range []struct {
		name    string
		log     scarred
		flushed uint64
		want    Prefix
		end     uint64 // where it goes on
	}{
		{"whole", scarred{known: true, state: state(10, 20), last: 20, rest: wal.Rest{Spans: spans(11, 20), Ends: true}}, 0,
			Prefix{Last: 20, Known: 20, Ends: true}, 1 << 32},
		{"a gap", scarred{known: true, state: state(10, 20), last: 20, rest: wal.Rest{Spans: spans(11, 14, 17, 20), Ends: true}}, 12,
			Prefix{Flushed: 12, Last: 14, Known: 20, Given: 4, Ends: true}, 1 << 32},
		{"what lies in the gap is flushed", scarred{known: true, state: state(10, 20), last: 20, rest: wal.Rest{Spans: spans(11, 14, 17, 20)}}, 16,
			Prefix{Flushed: 16, Last: 20, Known: 20}, 1 << 32},
		{"two gaps", scarred{known: true, state: state(10, 30), last: 30, rest: wal.Rest{Spans: spans(11, 14, 17, 20, 25, 30)}}, 18,
			Prefix{Flushed: 18, Last: 20, Known: 30, Given: 6}, 1 << 32},
		{"no entry is left, a checkpoint tells of some", scarred{known: true, state: state(10, 10), last: 15}, 0,
			Prefix{Last: 10, Known: 15}, 1 << 32},
		{"the end is gone", scarred{known: true, state: state(10, 12), last: 12, rest: wal.Rest{Spans: spans(11, 12), Ends: true}}, 15,
			Prefix{Flushed: 15, Last: 15, Known: 15, Ends: true, Short: true}, 1 << 32},
		{"its state is lost", scarred{known: true, last: 20, rest: wal.Rest{Spans: spans(11, 20)}}, 0,
			Prefix{Last: 20, Known: 20}, 1 << 32},
		{"the log knows nothing", scarred{}, 15, Prefix{Flushed: 15, Last: 15, Known: 15}, 1 << 32},
		{"it has gone on once before, of which the log knows nothing", scarred{}, 1 << 32, Prefix{Flushed: 1 << 32, Last: 1 << 32, Known: 1 << 32}, 2 << 32},
		{"a crash before the log knew", scarred{known: true, state: state(10, 20), last: 20, rest: wal.Rest{Spans: spans(11, 14, 17, 20)}}, 1 << 32,
			Prefix{Flushed: 1 << 32, Last: 1 << 32, Known: 1 << 32, Short: true, Done: true}, 1 << 32},
	} {
		got, err := PrefixOf(&c.log, 1, c.flushed)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
		if end, _, err := resumption(&c.log, 1, got); err != nil || end.Index != c.end || end.Term <= c.log.state.HardState.Term {
			t.Errorf("%s: goes on at %+v, %v", c.name, end, err)
		}
	}
	cut := &scarred{known: true, state: state(100, 120), last: 120}
	if _, err := PrefixOf(cut, 1, 50); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("files are missing: %v", err)
	}
}
