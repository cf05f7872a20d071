package exec

import (
	"context"
	"sync"
	"sync/atomic"
)

// morselSeries is the number of series that one goroutine takes at a time.
const morselSeries = 64

// checkTiles is the number of tiles between two looks at the context and the budget.
const checkTiles = 64

// parallel calls do for 0 … n-1 on up to Workers goroutines, each with its own
// worker number, and waits for all of them. It stops handing out work at the
// first error and returns that of the lowest index. A single piece of work
// runs on the caller's goroutine.
func (q *query) parallel(ctx context.Context, n int, do func(ctx context.Context, worker, i int) error) error {
	q.counters.MorselsRun += int64(n)
	workers := min(q.o.Workers, n)
	if workers <= 1 {
		for i := range n {
			if err := do(ctx, 0, i); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	first, firstAt := error(nil), n
	for w := range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(ctx, w, i); err != nil {
					mu.Lock()
					if first == nil || i < firstAt && ctx.Err() == nil {
						first, firstAt = err, i
					}
					mu.Unlock()
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
