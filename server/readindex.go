package server

import (
	"context"
	"sync"

	"github.com/dasudian/dsdb"
)

// readIndexes has the queries that need the read index of one group at the same
// time share calls to its leader: whoever comes while a call is on its way
// shares the next one, since what the leader says counts from when it was asked.
type readIndexes struct {
	mu     sync.Mutex // guards what follows
	groups map[dsdb.GroupID]*indexTurn
}

// indexTurn is the calls of one group: at most one on its way and one to follow.
type indexTurn struct{ running, next *indexCall }

// indexCall is one call. What it brought may be read when done is closed.
type indexCall struct {
	done  chan struct{}
	index uint64
	err   error
	void  bool // whoever was to make it has given up: the others ask again
}

// share returns a read index of g that fetch asked for after share was called.
// fetch runs on the goroutine, and with the context, of one of those who share.
func (r *readIndexes) share(ctx context.Context, g dsdb.GroupID, fetch func(context.Context) (uint64, error)) (uint64, error) {
	for {
		call, before := r.join(g)
		if before == call {
			select {
			case <-call.done:
				if call.void {
					continue
				}
				return call.index, call.err
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
		if before != nil {
			select {
			case <-before.done:
			case <-ctx.Done():
				r.give(g, call)
				return 0, context.Cause(ctx)
			}
		}
		r.begin(g, call)
		call.index, call.err = fetch(ctx)
		call.void = ctx.Err() != nil
		r.give(g, call)
		return call.index, call.err
	}
}

// join returns the call to share. If the caller is to make it, before is the
// call to wait for first, nil if there is none; else before is the call itself.
func (r *readIndexes) join(g dsdb.GroupID) (call, before *indexCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.groups[g]
	if t == nil {
		t = &indexTurn{}
		r.groups[g] = t
	}
	if t.next != nil {
		return t.next, t.next
	}
	t.next = &indexCall{done: make(chan struct{})}
	return t.next, t.running
}

// begin notes that the call to follow is on its way: nobody shares it any more.
func (r *readIndexes) begin(g dsdb.GroupID, call *indexCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.groups[g]
	t.running, t.next = call, nil
}

// give ends a call, also one that was never made.
func (r *readIndexes) give(g dsdb.GroupID, call *indexCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.groups[g]
	if t.running == call {
		t.running = nil
	} else {
		t.next, call.void = nil, true
	}
	if t.running == nil && t.next == nil {
		delete(r.groups, g)
	}
	close(call.done)
}
