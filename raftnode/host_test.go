package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a state machine that remembers every entry and rejects those that
// say so. Its snapshots are shared through shelf, by the name of their one file.
type ledger struct {
	mu      sync.Mutex
	entries []dsdb.Entry
	base    uint64 // what was installed; entries below have their old indexes
	flushed uint64
	fail    error // what Apply returns
	newer   bool  // it can apply "newer"
	shelf   *shelf
}

// shelf is where the ledgers of a test keep their snapshots.
type shelf struct {
	mu     sync.Mutex
	states map[string][]dsdb.Entry
	pinned int
	fail   error // what Install returns
}

func newShelf() *shelf { return &shelf{states: map[string][]dsdb.Entry{}} }

func (l *ledger) Apply(es []dsdb.Entry) ([]dsdb.Verdict, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	vs := make([]dsdb.Verdict, len(es))
	for i, e := range es {
		last := l.base
		if n := len(l.entries); n > 0 {
			last = max(last, l.entries[n-1].Index)
		}
		if last > 0 && last+1 != e.Index && e.Index != beyond(last, wal.HardState{}).Index {
			return nil, fmt.Errorf("entry %d after %d", e.Index, last)
		}
		if string(e.Data) == "newer" && !l.newer {
			return nil, fmt.Errorf("entry %d: %w", e.Index, dsdb.ErrNewer)
		}
		if e.Data != nil {
			e.Data = slices.Clone(e.Data)
			vs[i].Value = e.Data
		}
		if string(e.Data) == "reject" {
			vs[i] = dsdb.Verdict{Rejected: 1, Kind: dsdb.KindConflict, Reason: "as it says"}
		}
		l.entries = append(l.entries, e)
	}
	return vs, nil
}

func (l *ledger) FlushedIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flushed
}

// flush makes everything durable that was applied and returns up to where.
func (l *ledger) flush() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushed = max(l.flushed, l.entries[len(l.entries)-1].Index)
	return l.flushed
}

// crashed is what is left of the ledger after a crash.
func (l *ledger) crashed() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &ledger{flushed: l.flushed, base: l.flushed, shelf: l.shelf, newer: l.newer}
	for _, e := range l.entries {
		if e.Index <= l.flushed {
			n.entries = append(n.entries, e)
		}
	}
	return n
}

func (l *ledger) Snapshot() (dsdb.Manifest, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := dsdb.Manifest{Index: l.flushed}
	var state []dsdb.Entry
	for _, e := range l.entries {
		if e.Index <= l.flushed {
			state, m.Term = append(state, e), e.Term
		}
	}
	s := l.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	name := fmt.Sprint(len(s.states))
	s.states[name] = state
	s.pinned++
	m.Files = []dsdb.ManifestFile{{Name: name}}
	return m, func() { s.mu.Lock(); s.pinned--; s.mu.Unlock() }, nil
}

func (l *ledger) Install(m dsdb.Manifest, _ string) error {
	l.shelf.mu.Lock()
	state, err := l.shelf.states[m.Files[0].Name], l.shelf.fail
	l.shelf.mu.Unlock()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries, l.base, l.flushed = slices.Clone(state), m.Index, m.Index
	return nil
}

// payloads returns what was proposed, in log order.
func (l *ledger) payloads() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ps []string
	for _, e := range l.entries {
		if e.Data != nil {
			ps = append(ps, string(e.Data))
		}
	}
	return ps
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func openHost(t testing.TB, log Log) *Host {
	t.Helper()
	h, err := Open(Options{Log: log, Logger: quiet(), Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func single(id dsdb.GroupID, sm StateMachine) GroupSpec {
	r := dsdb.ReplicaID(1000 + uint64(id))
	return GroupSpec{ID: id, Replica: r, Founders: []Peer{{Replica: r, Node: 1}}, New: true, StateMachine: sm}
}

func start(t testing.TB, h *Host, spec GroupSpec) {
	t.Helper()
	if err := h.Start(t.Context(), []GroupSpec{spec}); err != nil {
		t.Fatal(err)
	}
	if err := h.Ready(t.Context(), []dsdb.GroupID{spec.ID}); err != nil {
		t.Fatal(err)
	}
}

func startSingle(t testing.TB, h *Host, id dsdb.GroupID, sm StateMachine) {
	t.Helper()
	start(t, h, single(id, sm))
}

func propose(t testing.TB, h *Host, g dsdb.GroupID, data string) dsdb.Verdict {
	t.Helper()
	v, err := h.Propose(t.Context(), g, []byte(data))
	if err != nil {
		t.Fatalf("propose %q: %v", data, err)
	}
	return v
}

// readNow returns when h has applied all that was acknowledged before the call.
func readNow(ctx context.Context, h *Host, g dsdb.GroupID) error {
	index, err := h.ReadIndex(ctx, g)
	if err != nil {
		return err
	}
	return h.Applied(ctx, g, index)
}

func TestProposeReturnsTheVerdict(t *testing.T) {
	h := openHost(t, newMemLog())
	startSingle(t, h, 1, new(ledger))
	if v := propose(t, h, 1, "a"); string(v.Value) != "a" || v.Err() != nil {
		t.Errorf("verdict %+v", v)
	}
	if v := propose(t, h, 1, "reject"); dsdb.KindOf(v.Err()) != dsdb.KindConflict {
		t.Errorf("verdict %+v", v)
	}
}

func TestRestartAppliesWhatWasAcknowledged(t *testing.T) {
	log := newMemLog()
	var want []string
	for boot := range 4 {
		h := openHost(t, log)
		sm := new(ledger)
		startSingle(t, h, 7, sm)
		if got := sm.payloads(); !slices.Equal(got, want) {
			t.Fatalf("boot %d: %q, want %q", boot, got, want)
		}
		for i := range 3 {
			want = append(want, fmt.Sprintf("%d/%d", boot, i))
			propose(t, h, 7, want[len(want)-1])
		}
		h.Close()
	}
}

func TestRestartSkipsWhatWasFlushed(t *testing.T) {
	log := newMemLog()
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	for i := range 5 {
		propose(t, h, 1, fmt.Sprint(i))
	}
	if err := readNow(t.Context(), h, 1); err != nil { // the status follows the acknowledgement
		t.Fatal(err)
	}
	sm.flushed = h.Status(1).Applied - 2
	h.Flushed(1)
	if err := readNow(t.Context(), h, 1); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if first, _ := log.Bounds(1); first != sm.flushed+1 {
		t.Errorf("the log begins at %d, want %d", first, sm.flushed+1)
	}
	h = openHost(t, log)
	again := &ledger{flushed: sm.flushed}
	startSingle(t, h, 1, again)
	if got := again.payloads(); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("applied again: %q", got)
	}
}

// Files that hold less than the log has forgotten, as after an older copy of them was
// put back, are not gone on from: what is between is nowhere.
func TestFilesOlderThanTheLogAreQuarantined(t *testing.T) {
	log := newMemLog()
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	for i := range 5 {
		propose(t, h, 1, fmt.Sprint(i))
	}
	if err := readNow(t.Context(), h, 1); err != nil {
		t.Fatal(err)
	}
	sm.flushed = h.Status(1).Applied
	h.Flushed(1)
	if err := readNow(t.Context(), h, 1); err != nil {
		t.Fatal(err)
	}
	h.Close()
	h = openHost(t, log)
	if err := h.Start(t.Context(), []GroupSpec{single(1, &ledger{flushed: sm.flushed - 1})}); err != nil {
		t.Fatal(err)
	}
	if err := h.Status(1).Failed; dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("status: %v", err)
	}
}

// A flush that comes before the core knows of the apply is not forgotten.
func TestFlushRightAfterApplyTruncates(t *testing.T) {
	log := newMemLog()
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	for i := range 50 {
		propose(t, h, 1, fmt.Sprint(i))
		sm.mu.Lock()
		sm.flushed = sm.entries[len(sm.entries)-1].Index
		want := sm.flushed + 1
		sm.mu.Unlock()
		h.Flushed(1)
		await(t, func() bool { first, _ := log.Bounds(1); return first == want })
	}
}

// Every acknowledged proposal is one entry of the log, whatever the concurrency.
func TestOneEntryPerAcknowledgedProposal(t *testing.T) {
	h, sm := openHost(t, newMemLog()), new(ledger)
	startSingle(t, h, 1, sm)
	before := h.Status(1).Applied
	var all sync.WaitGroup
	const clients, each = 16, 50
	for c := range clients {
		all.Go(func() {
			for i := range each {
				if _, err := h.Propose(context.Background(), 1, fmt.Appendf(nil, "%d.%d", c, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := readNow(t.Context(), h, 1); err != nil {
		t.Fatal(err)
	}
	if n := h.Status(1).Applied - before; n != clients*each {
		t.Errorf("%d acknowledged proposals made %d entries", clients*each, n)
	}
	got := sm.payloads()
	slices.Sort(got)
	if len(slices.Compact(got)) != clients*each {
		t.Errorf("%d distinct payloads", len(got))
	}
}

func TestManyGroupsStartInFewWrites(t *testing.T) {
	log := newMemLog()
	h := openHost(t, log)
	var specs []GroupSpec
	var ids []dsdb.GroupID
	for i := range 1040 {
		specs = append(specs, single(dsdb.GroupID(i+1), new(ledger)))
		ids = append(ids, specs[i].ID)
	}
	if err := h.Start(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	if err := h.Ready(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if log.writes > 60 {
		t.Errorf("1040 groups took %d writes", log.writes)
	}
	t.Logf("%d writes", log.writes)
	for _, w := range h.workers {
		if n := w.ticking.Load(); n != 0 {
			t.Errorf("%d groups with one voter tick", n)
		}
	}
}

func TestFullDiskRefusesAndRecovers(t *testing.T) {
	log := newMemLog()
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	propose(t, h, 1, "before")
	log.mu.Lock()
	log.fail = dsdb.Errorf(dsdb.KindUnavailable, "no space")
	log.mu.Unlock()
	// The first is in raft's log and may become durable later, the second is refused.
	for _, kind := range []dsdb.Kind{dsdb.KindTimeout, dsdb.KindUnavailable} {
		if _, err := h.Propose(t.Context(), 1, []byte("during")); dsdb.KindOf(err) != kind {
			t.Errorf("without space: %v", err)
		}
	}
	log.mu.Lock()
	log.fail = nil
	log.mu.Unlock()
	await(t, func() bool {
		v, err := h.Propose(t.Context(), 1, []byte("after"))
		if err == nil && v.Index != sm.entries[len(sm.entries)-1].Index {
			t.Errorf("verdict of entry %d", v.Index)
		} else if err != nil && dsdb.KindOf(err) != dsdb.KindUnavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	got := sm.payloads()
	if got[0] != "before" || got[len(got)-1] != "after" {
		t.Errorf("applied %q", got)
	}
}

func TestFailedLogIsFatal(t *testing.T) {
	log := newMemLog()
	fatal := make(chan error, 1)
	h, err := Open(Options{Log: log, Logger: quiet(), Fatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	startSingle(t, h, 1, new(ledger))
	log.mu.Lock()
	log.fail = errors.New("fdatasync: input/output error")
	log.mu.Unlock()
	if _, err := h.Propose(t.Context(), 1, []byte("x")); err == nil {
		t.Error("a write that is not durable was acknowledged")
	}
	await(t, func() bool { return len(fatal) == 1 })
}

func TestFailedStateMachineStopsItsGroupOnly(t *testing.T) {
	h := openHost(t, newMemLog())
	bad, good := new(ledger), new(ledger)
	startSingle(t, h, 1, bad)
	startSingle(t, h, 2, good)
	bad.mu.Lock()
	bad.fail = errors.New("disk on fire")
	bad.mu.Unlock()
	if _, err := h.Propose(t.Context(), 1, []byte("x")); err == nil {
		t.Error("acknowledged by a broken state machine")
	}
	await(t, func() bool { return h.Status(1).Failed != nil })
	if err := readNow(t.Context(), h, 1); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Errorf("read of a failed group: %v", err)
	}
	propose(t, h, 2, "y")
}

// A flush that outlived a part of the log must not be followed by new entries
// in the place of the lost ones.
func TestLogShorterThanTheFlushIsQuarantined(t *testing.T) {
	log := newMemLog()
	h := openHost(t, log)
	startSingle(t, h, 1, new(ledger))
	startSingle(t, h, 2, new(ledger))
	h.Close()
	h = openHost(t, log)
	if err := h.Start(t.Context(), []GroupSpec{single(1, &ledger{flushed: 1000}), single(2, new(ledger))}); err != nil {
		t.Fatal(err)
	}
	if err := h.Status(1).Failed; dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("status: %v", err)
	}
	if err := h.Ready(t.Context(), []dsdb.GroupID{1}); err == nil {
		t.Error("ready")
	}
	suspect := single(3, new(ledger))
	suspect.Suspect = true
	if err := h.Start(t.Context(), []GroupSpec{suspect}); err != nil || dsdb.KindOf(h.Status(3).Failed) != dsdb.KindCorrupt {
		t.Errorf("suspect group: %v, status %v", err, h.Status(3).Failed)
	}
	if err := h.Ready(t.Context(), []dsdb.GroupID{2}); err != nil {
		t.Fatal(err)
	}
	propose(t, h, 2, "x")
}

func TestRemove(t *testing.T) {
	log := newMemLog()
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	propose(t, h, 1, "x")
	if err := h.Remove(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, known := log.State(1); known {
		t.Error("the log still knows the group")
	}
	if _, err := h.Propose(t.Context(), 1, []byte("y")); dsdb.KindOf(err) != dsdb.KindNotLeader {
		t.Errorf("propose: %v", err)
	}
	spec := single(1, new(ledger))
	if err := h.Start(t.Context(), []GroupSpec{spec}); dsdb.KindOf(err) != dsdb.KindConflict {
		t.Errorf("the same replica again: %v", err)
	}
	spec.Replica++
	spec.Founders[0].Replica++
	start(t, h, spec)
	propose(t, h, 1, "z")
}

// Who gave up waiting for a removal may ask for it again.
func TestRemoveAgain(t *testing.T) {
	log := newMemLog()
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	before := propose(t, h, 1, "x").Index
	sm.mu.Lock() // the state machine hangs
	var client, remover sync.WaitGroup
	client.Go(func() { _, _ = h.Propose(t.Context(), 1, []byte("y")) })
	await(t, func() bool { return h.Status(1).Commit > before })
	ctx, cancel := context.WithCancel(t.Context())
	remover.Go(func() {
		if err := h.Remove(ctx, 1); dsdb.KindOf(err) != dsdb.KindCanceled {
			t.Errorf("while the state machine is in use: %v", err)
		}
	})
	await(t, func() bool { return h.Status(1).Failed != nil })
	cancel()
	remover.Wait()
	sm.mu.Unlock()
	client.Wait()
	if err := h.Remove(t.Context(), 1); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, known := log.State(1); known {
		t.Error("the log still knows the group")
	}
}

func TestStartRefusesWrongSpecs(t *testing.T) {
	h := openHost(t, newMemLog())
	startSingle(t, h, 1, new(ledger))
	unknown := single(2, new(ledger))
	unknown.New = false
	stranger := single(3, new(ledger))
	stranger.Replica++
	for _, c := range []struct {
		spec GroupSpec
		kind dsdb.Kind
	}{
		{single(1, new(ledger)), dsdb.KindConflict},
		{unknown, dsdb.KindNotFound},
		{stranger, dsdb.KindInvalid},
	} {
		if err := h.Start(t.Context(), []GroupSpec{c.spec}); dsdb.KindOf(err) != c.kind {
			t.Errorf("group %d: %v", c.spec.ID, err)
		}
	}
}

func TestProposalLimits(t *testing.T) {
	h := openHost(t, newMemLog())
	startSingle(t, h, 1, new(ledger))
	if _, err := h.Propose(t.Context(), 1, make([]byte, MaxProposal+1)); dsdb.KindOf(err) != dsdb.KindTooLarge {
		t.Errorf("too large: %v", err)
	}
	if v, err := h.Propose(t.Context(), 1, make([]byte, MaxProposal)); err != nil || len(v.Value) != MaxProposal {
		t.Errorf("largest: %v", err)
	}
}

func TestContextEndsTheWait(t *testing.T) {
	log := newMemLog()
	h := openHost(t, log)
	startSingle(t, h, 1, new(ledger))
	log.mu.Lock() // the log hangs
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := h.Propose(ctx, 1, []byte("x"))
	log.mu.Unlock()
	if dsdb.KindOf(err) != dsdb.KindTimeout {
		t.Errorf("%v", err)
	}
}
