package server

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dasudian/dsdb"
)

// changesAtOnce is how many shards one statement changes at a time.
const changesAtOnce = 16

// atOnce calls do for each of a list, with its ordinal, for limit of them at a time,
// and returns when all have returned.
func atOnce[T any](limit int, list []T, do func(i int, x T)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(limit, len(list)) {
		wg.Go(func() {
			for i := range next {
				do(i, list[i])
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	wg.Wait()
}

// changeShards changes shards, several at a time. When one fails no more are begun;
// those that are under way then end as they do. The errors are joined in the order of
// the list, those with the same text once.
func changeShards(ids []dsdb.ShardID, change func(dsdb.ShardID) error) error {
	errs := make([]error, len(ids))
	var failed atomic.Bool
	atOnce(changesAtOnce, ids, func(i int, id dsdb.ShardID) {
		if failed.Load() {
			return
		}
		if errs[i] = change(id); errs[i] != nil {
			failed.Store(true)
		}
	})
	told := map[string]bool{}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool {
		if err == nil || told[err.Error()] {
			return true
		}
		told[err.Error()] = true
		return false
	})...)
}
