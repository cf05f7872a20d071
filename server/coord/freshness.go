package coord

import (
	"maps"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// Freshness remembers how old the replicas of a process may be: when each was
// last known to have applied everything that had been acknowledged. Times are
// since any moment that stays the same. Safe for concurrent use; the zero value
// knows nothing.
type Freshness struct {
	mu sync.Mutex
	at map[dsdb.GroupID]time.Duration // guarded by mu
}

// Current notes that the replica of a group has applied the index that its leader,
// asked at time asked or later, said includes everything acknowledged before.
func (f *Freshness) Current(g dsdb.GroupID, asked time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		f.at = map[dsdb.GroupID]time.Duration{}
	}
	if was, known := f.at[g]; !known || asked > was {
		f.at[g] = asked
	}
}

// Within reports whether the replica of a group is known to have, at time now,
// everything that was acknowledged longer than limit ago. If it is not, the
// leader is to be asked. A limit of 0 is none.
func (f *Freshness) Within(g dsdb.GroupID, now, limit time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked, known := f.at[g]
	return limit == 0 || mutant.StalenessUnbounded && known || known && now-asked <= limit
}

// AsOf returns a time such that the replica of a group is known to have everything
// that had been acknowledged then.
func (f *Freshness) AsOf(g dsdb.GroupID) (at time.Duration, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, known = f.at[g]
	return at, known
}

// Forget forgets the replica of a group: another may come in its place, which
// does not have what it had.
func (f *Freshness) Forget(g dsdb.GroupID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.at, g)
}

// Retain forgets the groups that keep does not want: those that are no more, of
// which a read that was under way may have noted something after Forget.
func (f *Freshness) Retain(keep func(dsdb.GroupID) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.at, func(g dsdb.GroupID, _ time.Duration) bool { return !keep(g) })
}
