// Package tasks holds the small loops with a clock that a node runs beside its
// requests: Maintainer flushes and compacts shards, Retention deletes expired
// time groups, Precreation makes the next ones. They decide when; what happens
// is done by what they are given. They know no HTTP and no raft.
package tasks

import (
	"context"
	"log/slog"
	"time"
)

// Every calls fn at each interval until ctx ends. A failure is logged, once
// while the same one goes on, and tried again at the next interval.
func Every(ctx context.Context, interval time.Duration, log *slog.Logger, what string, fn func(ctx context.Context, now time.Time) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			err := fn(ctx, now)
			switch {
			case err == nil:
				last = ""
			case ctx.Err() != nil:
			case err.Error() != last:
				last = err.Error()
				log.Error(what+" failed; it will be tried again", "err", err, "every", interval.Seconds())
			}
		}
	}
}
