package server

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/exec"
)

// What one node sends another is what the other gets.
func TestWireRoundTrip(t *testing.T) {
	for _, p := range []proposalCall{{group: 7, payload: []byte("entry")}, {group: 0, matched: true, payload: []byte{}}, {group: 1, points: true, payload: []byte{1}}} {
		got, err := decodeProposal(p.append(nil))
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("proposal %+v: got %+v, %v", p, got, err)
		}
	}
	for _, o := range []outcome{
		{Verdict: dsdb.Verdict{Index: 12}},
		{Verdict: dsdb.Verdict{Rejected: 3, Kind: dsdb.KindConflict, Reason: "field type conflict", Index: 1 << 40}, have: 2, voters: 3},
		{Verdict: dsdb.Verdict{Value: []byte("17"), Index: 9}},
	} {
		got, err := decodeOutcome(o.append(nil))
		if err != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("outcome %+v: got %+v, %v", o, got, err)
		}
	}
	if n, err := decodeNumber(appendNumber(nil, 1<<63+1)); err != nil || n != 1<<63+1 {
		t.Errorf("number: %d, %v", n, err)
	}
}

// Whatever a peer sends is decoded to what encodes to the same bytes, or is
// refused as corrupt.
func FuzzWire(f *testing.F) {
	f.Add((&proposalCall{group: 7, matched: true, payload: []byte("entry")}).append(nil))
	f.Add((&outcome{Verdict: dsdb.Verdict{Rejected: 1, Reason: "why", Value: []byte{1}}, have: 1, voters: 3}).append(nil))
	f.Add(appendNumber(nil, 99))
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(again []byte, err error) {
			switch {
			case err != nil && dsdb.KindOf(err) != dsdb.KindCorrupt:
				t.Errorf("error of kind %d: %v", dsdb.KindOf(err), err)
			case err == nil && !bytes.Equal(again, b):
				t.Errorf("%x became %x", b, again)
			}
		}
		p, err := decodeProposal(b)
		check(p.append(nil), err)
		o, err := decodeOutcome(b)
		check(o.append(nil), err)
		n, err := decodeNumber(b)
		check(appendNumber(nil, n), err)
	})
}

// A replica that cannot answer is named by the error that travels.
func TestUnreadReplicaIsNamed(t *testing.T) {
	want := unread{node: 5, shard: 12}
	err := want.error(dsdb.Errorf(dsdb.KindNotLeader, "not the leader"))
	if got, ok := unreadOf(&dsdb.Error{Kind: dsdb.KindUnavailable, Text: err.Error()}); !ok || got != want {
		t.Errorf("%q names %+v, %v", err, got, ok)
	}
	if got, ok := unreadOf(dsdb.Errorf(dsdb.KindUnavailable, "no quorum: nobody leads")); ok {
		t.Errorf("an error about no replica names %+v", got)
	}
}

// What a newer version sends in a call is refused by name.
func TestNewerFormatIsRefused(t *testing.T) {
	for what, err := range map[string]error{
		"a proposal": func() error {
			_, err := decodeProposal(append([]byte{wireVersion + 1}, make([]byte, proposalHeader)...))
			return err
		}(),
		"a verdict": func() error { _, err := decodeOutcome(make([]byte, outcomeHeader)); return err }(),
		"a number":  func() error { _, err := decodeNumber(make([]byte, 9)); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "of version 1") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// All replicas that one node cannot answer from are avoided at once.
func TestUnreadReplicasAreAvoidedTogether(t *testing.T) {
	var all []error
	for id := range dsdb.ShardID(3) {
		all = append(all, unread{node: 5, shard: id}.error(dsdb.Errorf(dsdb.KindUnavailable, "it lags")))
	}
	s, failed := &session{ctx: t.Context(), failed: outages{}}, outages{}
	if !s.lost(&exec.Unopened{First: all[0], All: all}, failed) || len(failed) != 3 {
		t.Errorf("avoided: %v", failed)
	}
}
