package sim

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
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
	copies  map[int]*registerMachine // of each node, as it was last opened
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
	end    int64         // 0: it has no outcome
	failed bool          // it certainly had no effect
	index  uint64        // of the entry of a write that was acknowledged, if the simulator notes it
	ended  time.Duration // when it had its outcome, if the simulator notes it
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

// checkState compares what a replica holds without its log, in files of its own
// or of a snapshot, with what replicas applied.
func (h *history) checkState(r *run, s state) {
	at := int(s.index) - birth - 1
	if at == -1 && s == (state{index: birth, term: 1}) {
		return
	}
	if at < 0 || at >= len(h.canon) || h.canon[at].sum != s.sum || h.canon[at].term != s.term {
		r.violation("files hold %+v, which nobody applied", s)
	}
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
