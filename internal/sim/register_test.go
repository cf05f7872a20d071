package sim

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dasudian/dsdb"
)

// registers is the number of registers in each group. A write of one carries a
// number of its own, which is the register's value from then on; 0 is what a
// register holds at first.
const registers = 3

// history is what is known of one group over all nodes and restarts.
type history struct {
	canon   []applied                // what was applied at birth+1, ...: the same everywhere
	at      map[uint64]uint64        // id of an applied write → index
	acked   map[uint64]uint64        // id → index it was acknowledged with
	refused map[uint64]bool          // ids that were said not to be in the log
	copies  map[int]*registerMachine // of each node, as flushed or running
	calls   [registers][]*call       // what clients did to each register
}

func newHistory() *history {
	return &history{at: map[uint64]uint64{}, acked: map[uint64]uint64{}, refused: map[uint64]bool{}, copies: map[int]*registerMachine{}}
}

// call is one write or read of a register as its client sees it.
type call struct {
	write  bool
	value  uint64
	start  int64
	end    int64 // 0: it has no outcome
	failed bool  // it certainly had no effect
}

// applied is one entry as a state machine saw it.
type applied struct {
	term, id, sum uint64
	key           int
}

const birth = 10 // index at which groups begin

// registerMachine is the state machine: it remembers every write in order. What it
// has flushed survives a crash of its node.
type registerMachine struct {
	run     *run
	history *history
	log     []applied // entry birth+1+i
	values  [registers]uint64
	flushed int // of log
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// command is a write as it stands in the log: id u64, key u8, padding.
func command(id uint64, key, padding int) []byte {
	data := binary.LittleEndian.AppendUint64(make([]byte, 0, 9+padding), id)
	return append(append(data, byte(key)), make([]byte, padding)...)
}

func (m *registerMachine) Apply(es []dsdb.Entry) ([]dsdb.Verdict, error) {
	vs := make([]dsdb.Verdict, len(es))
	for i, e := range es {
		at := int(e.Index) - birth - 1
		if at != len(m.log) {
			return nil, fmt.Errorf("entry %d applied after %d", e.Index, len(m.log)+birth)
		}
		a := applied{term: e.Term, sum: crc64.Checksum(e.Data, crcTable)}
		if e.Data != nil {
			a.id, a.key = binary.LittleEndian.Uint64(e.Data), int(e.Data[8])
		}
		m.add(a)
		m.history.check(m.run, at, a)
		vs[i].Value = binary.LittleEndian.AppendUint64(nil, e.Index)
	}
	return vs, nil
}

func (m *registerMachine) add(a applied) {
	m.log = append(m.log, a)
	if a.id != 0 {
		m.values[a.key] = a.id
	}
}

// restarted is the machine that a node starts with after a crash of m.
func (m *registerMachine) restarted() *registerMachine {
	n := &registerMachine{run: m.run, history: m.history, flushed: m.flushed}
	for _, a := range m.log[:m.flushed] {
		n.add(a)
	}
	return n
}

// FlushedIndex is where the machine can go on from without a log.
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

// check compares an applied entry with what other replicas applied there, and
// sees to it that no write takes effect twice or after it was refused.
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

// lost returns an acknowledged write that is not where it was said to be, 0 if there is none.
func (h *history) lost() uint64 {
	for _, id := range slices.Sorted(mapKeys(h.acked)) {
		if h.at[id] != h.acked[id] {
			return id
		}
	}
	return 0
}

func mapKeys[V any](m map[uint64]V) func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// register is what porcupine holds a history against.
var register = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		c := input.(*call)
		if c.write {
			return true, c.value
		}
		return state == output, state
	},
}

// linearizable reports whether the calls to one register may have happened one
// after the other, each at some time between its start and its end. A write of
// unknown outcome may take effect at any time, or never: one that nobody read
// is left out, which changes nothing but the time it takes.
func linearizable(calls []*call) porcupine.CheckResult {
	seen := map[uint64]bool{}
	for _, c := range calls {
		seen[c.value] = seen[c.value] || !c.write && c.end > 0
	}
	ops := make([]porcupine.Operation, 0, len(calls))
	for _, c := range calls {
		op := porcupine.Operation{Input: c, Output: c.value, Call: c.start, Return: c.end}
		if c.end == 0 {
			op.Return = math.MaxInt64
		}
		if !c.failed && (c.end > 0 || c.write && seen[c.value]) {
			ops = append(ops, op)
		}
	}
	return porcupine.CheckOperationsTimeout(register, ops, time.Minute)
}
