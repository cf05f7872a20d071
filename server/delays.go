package server

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
)

// sayDelaysEvery is how often the leader of the meta group logs that there are
// copies it cannot have made.
const sayDelaysEvery = time.Minute

// delays are the shards about which the leader of the meta group can do nothing,
// though they lack a copy, or have one on a node that leaves.
type delays struct {
	mu   sync.Mutex             // guards what follows
	of   map[dsdb.NodeID]string // why the copies on a node stay there; not changed once it is set
	said time.Time
}

// set takes in what the last step could do nothing about, and logs it now and then.
func (d *delays) set(log *slog.Logger, list []meta.Delay, now time.Time) {
	of := make(map[dsdb.NodeID]string)
	more := make(map[dsdb.NodeID]int)
	for _, delay := range list {
		for _, node := range delay.Nodes {
			if of[node] == "" {
				of[node] = delay.Reason
			} else {
				more[node]++
			}
		}
	}
	for node, count := range more {
		of[node] += fmt.Sprintf(" and %d more", count)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of = of
	if len(list) == 0 || now.Sub(d.said) < sayDelaysEvery {
		return
	}
	d.said = now
	log.Warn("looking after the cluster: shards lack copies that cannot be made now", "shards", len(list), "first", list[0].Reason)
}

// forget says that this process decides no longer.
func (d *delays) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of = nil
}

// all returns, by node, why copies stay there; nil if there are none.
func (d *delays) all() map[dsdb.NodeID]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of
}
