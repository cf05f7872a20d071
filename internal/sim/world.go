// Package sim runs a whole cluster in one goroutine: the production cores and log
// writers of package raftnode and the production log of package wal, on simulated
// disks that lose unsynced bytes, stall, fail, rot and fill up, a network that
// delays, drops, repeats, reorders and cuts, and a clock that jumps from event to
// event. One seed decides everything; the same seed gives the same run, event by
// event.
//
// World is the clock and the source of chance, Cluster the nodes with their
// disks and network, Nemesis what goes wrong. Clients, state machines and the
// properties to be checked belong to the tests that use the package. The raft
// library draws its election timeouts from crypto/rand, which a test must seed
// too (testing/cryptotest.SetGlobalRandom).
package sim

import (
	"container/heap"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// World is simulated time: a queue of events and the seeded source of every
// random choice. It is not safe for concurrent use.
type World struct {
	Rand   *rand.Rand
	now    time.Duration
	queue  eventQueue
	seq    uint64
	events uint64
	digest uint64
	trace  func(what string, nums []uint64) // is told what is noted, nil: nobody is
}

// NewWorld makes a world at time zero.
func NewWorld(seed uint64) *World {
	return &World{Rand: rand.New(rand.NewPCG(seed, 0x5eed)), digest: 14695981039346656037}
}

// Now returns the simulated time since the start.
func (w *World) Now() time.Duration { return w.now }

// Events returns the number of events so far.
func (w *World) Events() uint64 { return w.events }

// Digest returns a hash of all that was noted so far, in order.
func (w *World) Digest() uint64 { return w.digest }

// Note mixes what happens now into the digest: a short name and some numbers.
func (w *World) Note(what string, nums ...uint64) {
	h := fnv.New64a()
	h.Write([]byte(what))
	d := w.digest*1099511628211 ^ h.Sum64() ^ uint64(w.now)
	for _, n := range nums {
		d = (d ^ n) * 1099511628211
	}
	w.digest = d
	if w.trace != nil {
		w.trace(what, nums)
	}
}

// After runs f when d has passed. Events of one time run in the order in which
// they were made.
func (w *World) After(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, f})
}

// RunUntil lets events happen until done, which it asks after each, or until d
// has passed. It reports whether done was true.
func (w *World) RunUntil(d time.Duration, done func() bool) bool {
	for end := w.now + d; !done(); {
		if len(w.queue) == 0 || w.queue[0].at > end {
			return false
		}
		w.next()
	}
	return true
}

// Run lets time pass for d.
func (w *World) Run(d time.Duration) {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end {
		w.next()
	}
	w.now = end
}

func (w *World) next() {
	e := heap.Pop(&w.queue).(event)
	w.now = e.at
	w.events++
	e.run()
}

// Between returns a random duration in [lo, hi).
func (w *World) Between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.Rand.Int64N(int64(hi-lo)))
}

// Chance is true with probability p.
func (w *World) Chance(p float64) bool { return w.Rand.Float64() < p }

type event struct {
	at  time.Duration
	seq uint64
	run func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	e := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = event{}
	*q = (*q)[:len(*q)-1]
	return e
}
