package raftnode

import (
	"sync"
	"testing"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/wal"
)

// hanging is a log whose writes hang while it is held.
type hanging struct {
	*memLog
	held sync.RWMutex
}

func (l *hanging) Write(us []wal.Update, sync bool) error {
	l.held.RLock()
	defer l.held.RUnlock()
	return l.memLog.Write(us, sync)
}

// The disk of a leader hangs: another replica leads soon, and when the disk answers
// again the first one goes on as a follower. If it never does the process ends.
func TestLeadersDiskHangs(t *testing.T) {
	const g = dsdb.GroupID(7)
	net := &wires{hosts: map[dsdb.NodeID]*Host{}}
	var logs [3]*hanging
	var hosts [3]*Host
	var sms [3]*ledger
	fatal := make(chan error, 9)
	for i := range hosts {
		logs[i], sms[i] = &hanging{memLog: newMemLog()}, new(ledger)
		h, err := Open(Options{Log: logs[i], Transport: wire{net, dsdb.NodeID(i)}, Logger: quiet(), Fatal: func(err error) { fatal <- err }})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		hosts[i] = h
		net.mu.Lock()
		net.hosts[dsdb.NodeID(i)] = h
		net.mu.Unlock()
	}
	for i, h := range hosts {
		if err := h.Start(t.Context(), []GroupSpec{trioSpec(i, g, true, sms[i])}); err != nil {
			t.Fatal(err)
		}
	}
	proposeAnywhere(t, hosts[:], g, "before")
	old := 0
	await(t, func() bool {
		for i, h := range hosts {
			if h.Status(g).Leading {
				old = i
				return true
			}
		}
		return false
	})
	logs[old].held.Lock()
	stalled := hosts[old].writer
	await(t, func() bool {
		for range stallAfter - 1 {
			stalled.checkStall()
		}
		return hosts[(old+1)%3].Status(g).Leading || hosts[(old+2)%3].Status(g).Leading
	})
	proposeAnywhere(t, hosts[:], g, "meanwhile")
	for range stallLimit {
		stalled.checkStall()
	}
	if len(fatal) > 1 {
		t.Errorf("the process is told to end %d times", len(fatal))
	}
	await(t, func() bool { return len(fatal) == 1 })
	logs[old].held.Unlock()
	await(t, func() bool { return len(sms[old].payloads()) == 2 })
	await(t, func() bool { return hosts[old].Transfer(t.Context(), g, 0) != nil }) // it follows
	for i, h := range hosts {
		if h.Status(g).Leading {
			await(t, func() bool {
				return h.Transfer(t.Context(), g, dsdb.ReplicaID(100*int(g)+old+1)) == nil || hosts[old].Status(g).Leading
			})
			await(t, func() bool { _, err := hosts[old].Propose(t.Context(), g, []byte("after")); return err == nil })
			await(t, func() bool { return len(sms[i].payloads()) == 3 })
			return
		}
	}
	t.Error("nobody leads")
}
