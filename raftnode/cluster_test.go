package raftnode

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/wal"
)

// wires connects hosts within the process. Messages to a host that is not
// there are lost.
type wires struct {
	mu      sync.RWMutex
	hosts   map[dsdb.NodeID]*Host
	sending sync.WaitGroup
}

func (w *wires) host(n dsdb.NodeID) *Host {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.hosts[n]
}

func (w *wires) SendSnapshot(to dsdb.NodeID, s *OutgoingSnapshot) {
	h := w.host(to)
	if h == nil {
		s.Done(errClosed())
		return
	}
	w.sending.Go(func() { s.Done(h.Install(context.Background(), 0, s.Snapshot, "")) })
}

func (w *wires) Send(to dsdb.NodeID, msgs []Envelope) {
	if h := w.host(to); h != nil {
		h.Step(0, msgs)
	}
}

func memDiskLog(t testing.TB, fs vfs.FS) *wal.Log {
	t.Helper()
	log, report, err := wal.Open(fs, "wal", wal.Options{SegmentSize: 1 << 20, CacheBytes: -1})
	if err != nil || len(report.Corrupt)+len(report.Suspect) > 0 {
		t.Fatalf("open the log: %v, %+v", err, report)
	}
	return log
}

// Three hosts with the production log replicate the writes of many clients to
// several groups, and hold them after a restart of all.
func TestThreeHostsReplicate(t *testing.T) {
	const nodes, groups, clients, each = 3, 4, 8, 20
	net := &wires{hosts: map[dsdb.NodeID]*Host{}}
	disks := [nodes]*vfs.Mem{}
	for i := range disks {
		disks[i] = vfs.NewMem(uint64(i))
	}
	for boot := range 2 {
		var hosts [nodes]*Host
		var logs [nodes]*wal.Log
		var sms [nodes][groups]*ledger
		for i := range hosts {
			logs[i] = memDiskLog(t, disks[i])
			h, err := Open(Options{Log: logs[i], Transport: net, Logger: quiet(), Fatal: func(err error) { t.Error(err) }})
			if err != nil {
				t.Fatal(err)
			}
			hosts[i] = h
			net.mu.Lock()
			net.hosts[dsdb.NodeID(i)] = h
			net.mu.Unlock()
		}
		for i, h := range hosts {
			var specs []GroupSpec
			for g := range groups {
				sms[i][g] = new(ledger)
				specs = append(specs, trioSpec(i, dsdb.GroupID(g), boot == 0, sms[i][g]))
			}
			if err := h.Start(t.Context(), specs); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				for i := range each {
					proposeAnywhere(t, hosts[:], dsdb.GroupID((c+i)%groups), fmt.Sprintf("%d/%d/%d", boot, c, i))
				}
			})
		}
		all.Wait()
		for g := range groups {
			want := (boot + 1) * clients * each / groups
			for i := range hosts {
				await(t, func() bool { return len(sms[i][g].payloads()) == want })
			}
			for i := 1; i < nodes; i++ {
				if !slices.Equal(sms[0][g].payloads(), sms[i][g].payloads()) {
					t.Errorf("group %d: nodes 0 and %d differ", g, i)
				}
			}
		}
		for i, h := range hosts {
			h.Close()
			if err := logs[i].Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func trioSpec(node int, g dsdb.GroupID, isNew bool, sm StateMachine) GroupSpec {
	s := GroupSpec{ID: g, Replica: dsdb.ReplicaID(100*int(g) + node + 1), New: isNew, StateMachine: sm}
	for n := range 3 {
		s.Founders = append(s.Founders, Peer{dsdb.ReplicaID(100*int(g) + n + 1), dsdb.NodeID(n)})
	}
	return s
}

// proposeAnywhere finds the leader; only a refusal is tried again.
func proposeAnywhere(t *testing.T, hosts []*Host, g dsdb.GroupID, data string) {
	for {
		for _, h := range hosts {
			_, err := h.Propose(context.Background(), g, []byte(data))
			if err == nil {
				return
			}
			if k := dsdb.KindOf(err); k != dsdb.KindUnavailable && k != dsdb.KindNotLeader {
				t.Error(err)
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// await gives the hosts a minute to get somewhere.
func await(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// A leader without its followers takes only so much: the rest is refused at
// once, and none of it is in the log.
func TestUncommittedTailIsBounded(t *testing.T) {
	tr := newTrio(t)
	tr.converse(0, 1, 2)
	data := string(make([]byte, MaxProposal))
	for i := range maxUncommitted / (MaxProposal + envelopeSize) {
		if r := tr.propose(0, data); r.told != 0 {
			t.Fatalf("proposal %d: %+v", i, r)
		}
	}
	last := tr.cores[0].Status(trioGroup).Last
	if r := tr.propose(0, "too much"); dsdb.KindOf(r.err) != dsdb.KindUnavailable {
		t.Errorf("above the limit: %+v", r)
	}
	if now := tr.cores[0].Status(trioGroup).Last; now != last {
		t.Errorf("the refused proposal is entry %d", now)
	}
}

// The power fails at any moment; what was acknowledged is applied again.
func TestPowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	for seed := range uint64(10) {
		disk := vfs.NewMem(seed)
		log := memDiskLog(t, disk)
		h := openHost(t, log)
		startSingle(t, h, 1, new(ledger))
		var acked []string
		for i := range 30 {
			acked = append(acked, fmt.Sprint(i))
			propose(t, h, 1, acked[i])
		}
		after := disk.CrashClone(int(seed%3)*50, seed)
		h.Close()
		log.Close()

		log = memDiskLog(t, after)
		h = openHost(t, log)
		sm := new(ledger)
		startSingle(t, h, 1, sm)
		if got := sm.payloads(); !slices.Equal(got, acked) {
			t.Errorf("seed %d: %q", seed, got)
		}
		h.Close()
		log.Close()
	}
}

// A full disk refuses writes until a flush lets the log free some of it; what
// was acknowledged is there afterwards.
func TestFlushFreesAFullDisk(t *testing.T) {
	disk := vfs.NewMem(1)
	disk.SetCapacity(8 << 20)
	log := memDiskLog(t, disk)
	h, sm := openHost(t, log), new(ledger)
	startSingle(t, h, 1, sm)
	data := make([]byte, 300<<10)
	acked := 0
	for {
		data[0] = byte(acked)
		_, err := h.Propose(t.Context(), 1, slices.Clone(data))
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindTimeout { // raft had it, the log not
				t.Fatal(err)
			}
			break
		}
		acked++
	}
	if acked < 5 || acked > 27 {
		t.Fatalf("%d writes of 300 KiB fit on 8 MiB", acked)
	}
	sm.mu.Lock()
	sm.flushed = sm.entries[len(sm.entries)-1].Index
	sm.mu.Unlock()
	h.Flushed(1)
	await(t, func() bool {
		_, err := h.Propose(t.Context(), 1, slices.Clone(data))
		return err == nil
	})
	h.Close()
	log.Close()
	got := sm.payloads()
	for i := range acked {
		if got[i][0] != byte(i) {
			t.Fatalf("write %d is lost", i)
		}
	}
}
