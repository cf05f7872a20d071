package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dasudian/dsdb"
)

// However many ask at the same time, nobody gets an index that was asked for
// before he asked, and in the end nothing is left of all that.
func TestSharedReadIndexesAreNotOlderThanTheRequest(t *testing.T) {
	r := readIndexes{groups: map[dsdb.GroupID]*indexTurn{}}
	var clock atomic.Uint64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 200 {
				began := clock.Add(1)
				index, err := r.share(context.Background(), 1, func(context.Context) (uint64, error) {
					return clock.Add(1), nil
				})
				if err != nil || index <= began {
					t.Errorf("index %d for who asked at %d: %v", index, began, err)
				}
			}
		})
	}
	all.Wait()
	if len(r.groups) != 0 {
		t.Errorf("%d groups left", len(r.groups))
	}
}

// While one call is on its way, any number of others wait for one more.
func TestReadIndexesOneCallForMany(t *testing.T) {
	r := readIndexes{groups: map[dsdb.GroupID]*indexTurn{}}
	calls := 0 // of one goroutine at a time
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_, _ = r.share(context.Background(), 1, func(context.Context) (uint64, error) {
			calls++
			close(held)
			<-hold
			return 1, nil
		})
	})
	<-held
	for range 20 {
		all.Go(func() {
			index, err := r.share(context.Background(), 1, func(context.Context) (uint64, error) { calls++; return 2, nil })
			if index != 2 || err != nil {
				t.Errorf("index %d, %v", index, err)
			}
		})
	}
	eventually(t, "all wait for the next call", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.groups[1].next != nil && r.groups[1].waiting == 20
	})
	close(hold)
	all.Wait()
	if calls != 2 {
		t.Errorf("%d calls for 21 that ask", calls)
	}
}

// Who was to make the call and gives up, before it or amid it, leaves it to the others.
func TestReadIndexesCallerGivesUp(t *testing.T) {
	for _, amid := range []bool{false, true} {
		r := readIndexes{groups: map[dsdb.GroupID]*indexTurn{}}
		ctx, cancel := context.WithCancel(context.Background())
		held, hold, begun := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = r.share(context.Background(), 1, func(context.Context) (uint64, error) {
				close(held)
				<-hold
				return 1, nil
			})
		})
		<-held
		waiting := func(n int) {
			eventually(t, "they wait for the next call", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.groups[1].next != nil && r.groups[1].waiting == n
			})
		}
		all.Go(func() {
			_, err := r.share(ctx, 1, func(ctx context.Context) (uint64, error) {
				close(begun)
				<-ctx.Done()
				return 0, ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up is told %v", err)
			}
		})
		waiting(1)
		for range 3 {
			all.Go(func() {
				index, err := r.share(context.Background(), 1, func(context.Context) (uint64, error) { return 5, nil })
				if index != 5 || err != nil {
					t.Errorf("amid: %v: index %d, %v", amid, index, err)
				}
			})
		}
		waiting(4)
		if amid {
			close(hold)
			<-begun
			cancel()
		} else {
			cancel()
			waiting(3) // they ask again
			close(hold)
		}
		all.Wait()
	}
}

// What the leader says counts from when it was asked: who comes later does not
// share that call.
func TestReadIndexOfARunningCallIsNotShared(t *testing.T) {
	r := readIndexes{groups: map[dsdb.GroupID]*indexTurn{}}
	first, _ := r.join(1)
	r.begin(1, first)
	later, before := r.join(1)
	if later == first || before != first {
		t.Fatal("a call that was on its way is shared")
	}
	r.give(1, first)
	r.begin(1, later)
	r.give(1, later)
	if len(r.groups) != 0 {
		t.Errorf("%d groups left", len(r.groups))
	}
}
