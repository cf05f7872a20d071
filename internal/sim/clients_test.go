package sim

import (
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

// The length of a run: of faults, and then of peace, in which all must converge.
const (
	trouble = 21 * time.Second
	peace   = 9 * time.Second
)

// shape chooses three, four or five nodes with four groups of three or five voters.
func shape(w *World) (nodes int, voters [][]int) {
	nodes = 3 + w.Rand.IntN(3)
	for range 4 {
		n := 3
		if nodes == 5 && w.Chance(0.5) {
			n = 5
		}
		voters = append(voters, w.Rand.Perm(nodes)[:n])
	}
	return nodes, voters
}

// play runs one seed to its end: eight clients and a nemesis, then peace.
func play(t *testing.T, seed uint64) (r *run) {
	r = newRun(t, seed, shape)
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(*Error)
			if !ok {
				panic(p)
			}
			r.Errs = append(r.Errs, e.Error())
		}
	}()
	for range 8 {
		r.client()
	}
	r.flushes()
	r.measure()
	r.lull()
	operator := startOperator(r)
	nemesis := StartNemesis(r.Cluster)
	r.Run(trouble)
	r.quiet = true
	if err := nemesis.Stop(); err != nil {
		r.violation("restart: %v", err)
		return r
	}
	last := map[dsdb.GroupID]bool{}
	for _, g := range r.Groups() {
		r.last(g, last)
	}
	r.Run(peace)
	if len(last) < len(r.groups) {
		r.violation("after %v of peace only the groups %v take writes", peace, last)
	}
	if len(operator.wanted) > 0 {
		r.violation("after %v of peace changes of members are under way still: %v", peace, operator.wanted)
	}
	r.settled()
	return r
}

// client writes and reads, one call after the other, for as long as there is trouble.
func (r *run) client() {
	r.After(r.Between(time.Millisecond, 150*time.Millisecond), func() {
		if r.quiet {
			return
		}
		g := r.Groups()[r.Rand.IntN(len(r.groups))]
		n, key := r.target(g), r.Rand.IntN(registers)
		if n == nil || r.Now() < r.lulls[g] {
			r.client()
			return
		}
		next := once(r.client)
		r.After(2*time.Second, next) // it gives up
		holders := r.Holders(g)
		switch lot := r.Rand.Float64(); {
		case lot < 0.3:
			r.get(n, g, key, func(uint64, error) { next() })
		case lot < 0.4:
			r.getAt(n, holders[r.Rand.IntN(len(holders))], g, key, func(uint64, error) { next() })
		default:
			r.set(n, g, key, r.padding(), func(error) { next() })
		}
	})
}

// lull has clients leave a group alone, now and then, for so long that it becomes quiescent.
func (r *run) lull() {
	r.After(r.Between(0, 20*time.Second), func() {
		g := r.Groups()[r.Rand.IntN(len(r.groups))]
		r.lulls[g] = r.Now() + r.Between(7*time.Second, 12*time.Second)
		r.count("lulls")
		r.lull()
	})
}

// target is the node that a client turns to: mostly one that believes to lead,
// rightly or not; nil if no node holds a replica.
func (r *run) target(g dsdb.GroupID) *Node {
	ns := r.Leaders(g)
	if len(ns) == 0 || r.Chance(0.1) {
		ns = r.Holders(g)
	}
	if len(ns) == 0 {
		return nil
	}
	return ns[r.Rand.IntN(len(ns))]
}

func (r *run) padding() int {
	if r.Chance(0.01) {
		return r.Rand.IntN(64 << 10)
	}
	return r.Rand.IntN(1 + r.Rand.IntN(4096))
}

// once returns a function that calls f the first time only.
func once(f func()) func() {
	done := false
	return func() {
		if !done {
			done = true
			f()
		}
	}
}

// flushes makes a random machine's state durable now and then. That takes time,
// in which more is applied.
func (r *run) flushes() {
	r.After(r.Between(50*time.Millisecond, 400*time.Millisecond), func() {
		g := r.Groups()[r.Rand.IntN(len(r.groups))]
		if ns := r.Holders(g); len(ns) > 0 {
			if n := ns[r.Rand.IntN(len(ns))]; !n.pausing {
				r.flush(n, g, nil)
			}
		}
		r.flushes()
	})
}

// last writes to each register of a group and reads it until all have worked,
// and notes that in done.
func (r *run) last(g dsdb.GroupID, done map[dsdb.GroupID]bool) {
	again := func() { r.After(50*time.Millisecond, func() { r.last(g, done) }) }
	l := r.Leader(g)
	if l == nil {
		again()
		return
	}
	left := registers
	retry := once(again)
	for key := range registers {
		r.set(l, g, key, 0, func(err error) {
			if err != nil {
				retry()
				return
			}
			r.get(l, g, key, func(_ uint64, err error) {
				if err != nil {
					retry()
				} else if left--; left == 0 {
					done[g] = true
				}
			})
		})
	}
}
