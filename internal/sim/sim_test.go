package sim

import (
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc64"
	"log/slog"
	"os"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	seeds   = flag.Uint64("seeds", 100, "run this many seeds")
	verbose = flag.Bool("trace", false, "log what the nodes log")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The length of a run: of faults, and then of peace in which all must converge.
const (
	trouble = 12 * time.Second
	peace   = 8 * time.Second
)

// run is one simulated cluster under load and faults, and what it must not do.
// Every violation is added to errs.
type run struct {
	*Cluster
	groups  map[dsdb.GroupID]*history
	nemesis *Nemesis
	next    uint64 // id of the next write
	errs    []string

	acked, refused, unknown, reads int
	quiet                          bool // clients have stopped
}

// history is what is known of one group over all nodes and restarts.
type history struct {
	canon   []applied                // what was applied at birth+1, ...: the same everywhere
	at      map[uint64]uint64        // id of an applied write → index
	acked   map[uint64]uint64        // id → index it was acknowledged with
	refused map[uint64]bool          // ids that were said not to be in the log
	newest  uint64                   // highest acknowledged index
	copies  map[int]*registerMachine // of each node, as flushed or running
}

// applied is one entry as a state machine saw it.
type applied struct {
	term, id, sum uint64
}

const birth = 10 // index at which groups begin

// registerMachine is the state machine: it remembers every write in order. What it
// has flushed survives a crash of its node.
type registerMachine struct {
	run     *run
	history *history
	log     []applied // entry birth+1+i
	flushed int       // of log
}

var crcTable = crc64.MakeTable(crc64.ECMA)

func (m *registerMachine) Apply(es []dsdb.Entry) ([]dsdb.Verdict, error) {
	vs := make([]dsdb.Verdict, len(es))
	for i, e := range es {
		at := int(e.Index) - birth - 1
		if at != len(m.log) {
			return nil, fmt.Errorf("entry %d applied after %d", e.Index, len(m.log)+birth)
		}
		a := applied{term: e.Term, sum: crc64.Checksum(e.Data, crcTable)}
		if e.Data != nil {
			a.id = binary.LittleEndian.Uint64(e.Data)
		}
		m.log = append(m.log, a)
		m.history.check(m.run, at, a)
		vs[i].Value = binary.LittleEndian.AppendUint64(nil, e.Index)
	}
	return vs, nil
}

// check compares an applied entry with what other replicas applied there.
func (h *history) check(r *run, at int, a applied) {
	if at < len(h.canon) {
		if h.canon[at] != a {
			r.violation("entry %d is %+v here and %+v elsewhere", at+birth+1, a, h.canon[at])
		}
		return
	}
	h.canon = append(h.canon, a)
	if a.id == 0 {
		return
	}
	if was, again := h.at[a.id]; again {
		r.violation("write %d is in entry %d and in entry %d", a.id, was, at+birth+1)
	}
	if h.refused[a.id] {
		r.violation("write %d was refused, but is in entry %d", a.id, at+birth+1)
	}
	h.at[a.id] = uint64(at + birth + 1)
}

func (m *registerMachine) FlushedIndex() uint64 {
	if m.flushed == 0 {
		return 0
	}
	return uint64(birth + m.flushed)
}

func (m *registerMachine) Snapshot() (dsdb.Manifest, func(), error) {
	return dsdb.Manifest{}, nil, fmt.Errorf("a register has no files")
}

func (m *registerMachine) Install(dsdb.Manifest, string) error {
	return fmt.Errorf("a register has no files")
}

func (r *run) violation(format string, args ...any) {
	r.errs = append(r.errs, fmt.Sprintf("at %v: ", r.Now())+fmt.Sprintf(format, args...))
}

// newMachine is what a node starts with: the flushed part of its last machine.
func (r *run) newMachine(node int, g dsdb.GroupID) raftnode.StateMachine {
	h := r.groups[g]
	m := &registerMachine{run: r, history: h}
	if old := h.copies[node]; old != nil {
		m.log, m.flushed = slices.Clone(old.log[:old.flushed]), old.flushed
	}
	h.copies[node] = m
	return m
}

// waiter calls a function with an outcome.
type waiter func(v dsdb.Verdict, err error)

func (w waiter) Done(v dsdb.Verdict, err error) { w(v, err) }

// client writes and reads, one request after the other, for as long as there is trouble.
func (r *run) client() {
	r.After(r.Between(time.Millisecond, 150*time.Millisecond), func() {
		if r.quiet {
			return
		}
		g := r.Groups()[r.Rand.IntN(len(r.groups))]
		n := r.Nodes[r.Rand.IntN(len(r.Nodes))]
		if l := r.Leader(g); l != nil && r.Chance(0.9) {
			n = l
		}
		if !n.Up() {
			r.client()
			return
		}
		if r.Chance(0.25) {
			r.read(n, g, r.client)
		} else {
			r.write(n, g, r.client)
		}
	})
}

// await makes a waiter for one request; then runs after the outcome, or after
// two seconds without one.
func (r *run) await(done waiter, then func()) raftnode.Waiter {
	open := true
	finish := func() bool {
		was := open
		open = false
		return was
	}
	r.After(2*time.Second, func() {
		if finish() {
			then()
		}
	})
	return waiter(func(v dsdb.Verdict, err error) {
		done(v, err)
		if finish() {
			then()
		}
	})
}

func (r *run) write(n *Node, g dsdb.GroupID, then func()) {
	r.next++
	id, h := r.next, r.groups[g]
	data := binary.LittleEndian.AppendUint64(nil, id)
	data = append(data, make([]byte, r.Rand.IntN(1+r.Rand.IntN(4096)))...)
	r.unknown++
	n.Propose(g, data, r.await(func(v dsdb.Verdict, err error) {
		r.unknown--
		switch {
		case err == nil:
			r.acked++
			index := binary.LittleEndian.Uint64(v.Value)
			r.Note("acked", uint64(g), id, index)
			if h.at[id] != index {
				r.violation("group %d: write %d is acknowledged at %d, but was applied at %d", g, id, index, h.at[id])
			}
			h.acked[id] = index
			h.newest = max(h.newest, index)
		case dsdb.KindOf(err) == dsdb.KindUnavailable:
			r.refused++
			h.refused[id] = true
			if at, ok := h.at[id]; ok {
				r.violation("group %d: write %d was refused (%v), but is in entry %d", g, id, err, at)
			}
		}
	}, then))
}

// read checks that a linearizable read sees every write that was acknowledged before it began.
func (r *run) read(n *Node, g dsdb.GroupID, then func()) {
	h := r.groups[g]
	due := h.newest
	n.ReadIndex(g, r.await(func(_ dsdb.Verdict, err error) {
		if err != nil {
			return
		}
		r.reads++
		r.Note("read", uint64(g), due)
		if seen := uint64(birth + len(h.copies[n.Index].log)); seen < due {
			r.violation("group %d: stale read at node %d: applied %d, acknowledged before %d", g, n.Index, seen, due)
		}
	}, then))
}

// flush makes a random machine's state durable now and then, which truncates logs.
func (r *run) flush() {
	r.After(r.Between(100*time.Millisecond, 800*time.Millisecond), func() {
		n := r.Nodes[r.Rand.IntN(len(r.Nodes))]
		g := r.Groups()[r.Rand.IntN(len(r.groups))]
		if n.Up() {
			m := r.groups[g].copies[n.Index]
			m.flushed = len(m.log)
			n.Flushed(g)
		}
		r.flush()
	})
}

// newRun makes a cluster of three nodes under the load of eight clients.
func newRun(t *testing.T, seed uint64) *run {
	cryptotest.SetGlobalRandom(t, seed)
	w := NewWorld(seed)
	r := &run{groups: map[dsdb.GroupID]*history{}}
	o := Options{Nodes: 3, Groups: 2 + w.Rand.IntN(3), NewMachine: r.newMachine}
	if *verbose {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for i := range o.Groups {
		r.groups[dsdb.GroupID(i+1)] = &history{at: map[uint64]uint64{}, acked: map[uint64]uint64{},
			refused: map[uint64]bool{}, copies: map[int]*registerMachine{}}
	}
	c, err := NewCluster(w, o)
	if err != nil {
		t.Fatal(err)
	}
	r.Cluster = c
	for range 8 {
		r.client()
	}
	r.flush()
	return r
}

// settle ends the faults and checks that all replicas end up equal, with all
// that was acknowledged.
func (r *run) settle() {
	if err := r.nemesis.Stop(); err != nil {
		r.violation("restart: %v", err)
		return
	}
	r.quiet = true
	r.Run(peace)
	for _, g := range r.Groups() {
		r.last(g)
	}
	r.Run(2 * time.Second)
	for _, g := range r.Groups() {
		r.converged(g)
	}
}

// last writes once more to a group, which has to work now.
func (r *run) last(g dsdb.GroupID) {
	l := r.Leader(g)
	if l == nil {
		r.violation("group %d has no leader after %v of peace", g, peace)
		return
	}
	acked := r.acked
	r.write(l, g, func() {
		if r.acked == acked {
			r.violation("group %d does not take writes after %v of peace", g, peace)
		}
	})
}

func (r *run) converged(g dsdb.GroupID) {
	h := r.groups[g]
	for _, n := range r.Nodes {
		if err := n.Status(g).Failed; err != nil {
			r.violation("group %d: replica on node %d failed: %v", g, n.Index, err)
			continue
		}
		m := h.copies[n.Index]
		if len(m.log) != len(h.canon) {
			r.violation("group %d: node %d has applied %d entries of %d", g, n.Index, len(m.log), len(h.canon))
		}
	}
	for id, index := range h.acked { // any order: all are checked
		if h.at[id] != index {
			r.violation("group %d: write %d, acknowledged at %d, is lost", g, id, index)
		}
	}
}

// play runs one seed to its end.
func play(t *testing.T, seed uint64) (r *run) {
	r = newRun(t, seed)
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(*Error)
			if !ok {
				panic(p)
			}
			r.errs = append(r.errs, e.Error())
		}
	}()
	r.nemesis = StartNemesis(r.Cluster)
	r.Run(trouble)
	r.settle()
	return r
}

func report(t *testing.T, seed uint64, r *run) {
	t.Helper()
	if len(r.errs) == 0 {
		return
	}
	slices.Sort(r.errs)
	for _, e := range r.errs[:min(10, len(r.errs))] {
		t.Error(e)
	}
	t.Errorf("seed %d: %d violations; replay: go test ./internal/sim -run TestSeeds -seed=%d -trace", seed, len(r.errs), seed)
}

// Many seeds, each with crashes, power cuts, partitions, pauses and a noisy
// network, none of which may lose or invent a write. With -short
// there are ten, under the race detector five.
func TestSeeds(t *testing.T) {
	first, n := uint64(1), *seeds
	switch {
	case *oneSeed > 0:
		first, n = *oneSeed, 1
	case raceDetector:
		n = min(n, 5)
	case testing.Short():
		n = min(n, 10)
	}
	var total run
	var faults Faults
	var events uint64
	for seed := first; seed < first+n; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := play(t, seed)
			report(t, seed, r)
			total.acked += r.acked
			total.refused += r.refused
			total.unknown += r.unknown
			total.reads += r.reads
			events += r.Events()
			if r.nemesis != nil {
				faults = faults.plus(r.nemesis.Faults)
			}
		})
	}
	t.Logf("%d seeds, %d events: %d writes acknowledged, %d refused, %d unknown; %d reads; %+v",
		n, events, total.acked, total.refused, total.unknown, total.reads, faults)
	if *oneSeed > 0 {
		return
	}
	if total.acked == 0 || total.reads == 0 || faults.Crashes == 0 || faults.PowerCuts == 0 || faults.VoterCrashes == 0 || faults.Partitions == 0 {
		t.Error("the runs did not exercise what they are for")
	}
}

// The same seed gives the same run, another seed another.
func TestRunsAreReproducible(t *testing.T) {
	digests := map[uint64]uint64{}
	for _, seed := range []uint64{7, 8, 7} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := play(t, seed)
			if d, again := digests[seed]; again && d != r.Digest() {
				t.Errorf("digest %x, before %x", r.Digest(), d)
			}
			digests[seed] = r.Digest()
		})
	}
	if digests[7] == digests[8] {
		t.Error("different seeds gave the same run")
	}
}
