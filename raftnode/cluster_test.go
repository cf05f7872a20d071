package raftnode

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

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

	orphans map[dsdb.GroupID]bool // groups in which nobody has asked for votes yet
}

func (w *wires) host(n dsdb.NodeID) *Host {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.hosts[n]
}

// wire is the transport of one of the hosts.
type wire struct {
	*wires
	self dsdb.NodeID
}

func (w wire) SendSnapshot(to dsdb.NodeID, s *OutgoingSnapshot) {
	h := w.host(to)
	if h == nil {
		s.Done(errClosed())
		return
	}
	w.sending.Go(func() { s.Done(h.Install(context.Background(), Sender{Node: w.self}, s.Snapshot, "")) })
}

func (w wire) Send(to dsdb.NodeID, msgs []Envelope) {
	w.mu.Lock()
	for _, m := range msgs {
		if m.Message.GetType() == raftpb.MsgPreVote {
			delete(w.orphans, m.Group)
		}
	}
	w.mu.Unlock()
	if h := w.host(to); h != nil && w.host(w.self) != nil { // one that vanished says nothing more
		h.Step(Sender{Node: w.self}, msgs)
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
			h, err := Open(Options{Log: logs[i], Transport: wire{net, dsdb.NodeID(i)}, Logger: quiet(), Fatal: func(err error) { t.Error(err) }})
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
		s.Founders = append(s.Founders, Peer{Replica: dsdb.ReplicaID(100*int(g) + n + 1), Node: dsdb.NodeID(n)})
	}
	return s
}

// proposeAnywhere finds the leader; only a refusal is tried again, for a minute.
func proposeAnywhere(t *testing.T, hosts []*Host, g dsdb.GroupID, data string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
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
	}
	t.Errorf("nobody takes %q", data)
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

// A fourth host joins a group of three while clients write, gets a snapshot and
// a vote; the leader leaves, and its host hands on what it leads and closes.
func TestHostJoinsWhileClientsWrite(t *testing.T) {
	const nodes, g = 4, dsdb.GroupID(7)
	net := &wires{hosts: map[dsdb.NodeID]*Host{}}
	shelf := newShelf()
	var hosts [nodes]*Host
	var sms [nodes]*ledger
	for i := range hosts {
		log := memDiskLog(t, vfs.NewMem(uint64(i)))
		h, err := Open(Options{Log: log, Transport: wire{net, dsdb.NodeID(i)}, Logger: quiet(), Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		defer h.Close()
		hosts[i], sms[i] = h, &ledger{shelf: shelf}
		net.mu.Lock()
		net.hosts[dsdb.NodeID(i)] = h
		net.mu.Unlock()
	}
	defer net.sending.Wait()
	for i := range 3 {
		if err := hosts[i].Start(t.Context(), []GroupSpec{trioSpec(i, g, true, sms[i])}); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	written := make([]int, 4)
	for c := range written {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					proposeAnywhere(t, hosts[:], g, fmt.Sprintf("%d/%d", c, written[c]))
					written[c]++
				}
			}
		})
	}
	quit := sync.OnceFunc(func() { close(stop); clients.Wait() })
	defer quit()
	await(t, func() bool { return len(sms[0].payloads()) > 50 })
	sms[0].flush()
	hosts[0].Flushed(g)
	joiner := trioSpec(3, g, true, sms[3])
	joiner.Founders = nil
	if err := hosts[3].Start(t.Context(), []GroupSpec{joiner}); err != nil {
		t.Fatal(err)
	}
	change := func(changes ...Change) {
		t.Helper()
		await(t, func() bool {
			for _, h := range hosts {
				if h.Status(g).Leading && h.Change(t.Context(), g, changes) == nil {
					return true
				}
			}
			return false
		})
	}
	p := Peer{Replica: joiner.Replica, Node: 3}
	change(Change{AddLearner, p})
	change(Change{AddVoter, p})
	old := slices.IndexFunc(hosts[:], func(h *Host) bool { return h.Status(g).Leading })
	// The one that is to lead does not as long as it has a change of members to apply.
	await(t, func() bool { return hosts[old].TransferAll(t.Context()) == nil })
	change(Change{Remove, Peer{Replica: dsdb.ReplicaID(100*int(g) + old + 1)}})
	quit()
	want := written[0] + written[1] + written[2] + written[3]
	for i := range hosts {
		if i != old {
			await(t, func() bool { return len(sms[i].payloads()) == want })
		}
	}
	var index uint64
	await(t, func() bool {
		for i, h := range hosts {
			if v, err := h.ReadIndex(t.Context(), g); err == nil && i != old {
				index = v
				return h.Matched(t.Context(), g, index) == nil
			}
		}
		return false
	})
	for i, h := range hosts {
		if i == old {
			continue
		}
		if err := h.Applied(t.Context(), g, index); err != nil {
			t.Errorf("host %d: %v", i, err)
		}
		if got := h.Status(g).Members; len(got.Voters) != 3 || len(got.Learners)+len(got.Outgoing) != 0 {
			t.Errorf("host %d: members %+v", i, got)
		}
	}
}

// stopClock ends the clock of a host; startClock has it go on.
func stopClock(h *Host) {
	close(h.stop)
	h.clocks.Wait()
	h.stop = make(chan struct{})
}

func startClock(h *Host) { h.clocks.Go(h.tick) }

// busiest returns which of the hosts leads most groups, and those.
func busiest(hosts []*Host) (which int, led []dsdb.GroupID) {
	for i, h := range hosts {
		var groups []dsdb.GroupID
		for g := range h.groups {
			if h.Status(g).Leading {
				groups = append(groups, g)
			}
		}
		if len(groups) > len(led) {
			which, led = i, groups
		}
	}
	return which, led
}

// The host of a leader vanishes, and the others are told: in each group somebody
// asks for votes before an election would begin by the clock, and writes go on.
func TestPeerDownIsFast(t *testing.T) {
	net := &wires{hosts: map[dsdb.NodeID]*Host{}}
	var hosts [3]*Host
	for i := range hosts {
		h, err := Open(Options{Log: newMemLog(), Transport: wire{net, dsdb.NodeID(i)}, Logger: quiet(), Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		hosts[i] = h
		net.mu.Lock()
		net.hosts[dsdb.NodeID(i)] = h
		net.mu.Unlock()
	}
	const groups = 20
	for i, h := range hosts {
		var specs []GroupSpec
		for g := range dsdb.GroupID(groups) {
			specs = append(specs, trioSpec(i, g+1, true, new(ledger)))
		}
		if err := h.Start(t.Context(), specs); err != nil {
			t.Fatal(err)
		}
	}
	for g := range dsdb.GroupID(groups) {
		proposeAnywhere(t, hosts[:], g+1, "before")
	}
	for _, h := range hosts {
		stopClock(h)
	}
	gone, led := busiest(hosts[:])
	rest := append(slices.Clone(hosts[:gone]), hosts[gone+1:]...)
	await(t, func() bool {
		return !slices.ContainsFunc(led, func(g dsdb.GroupID) bool { return rest[0].Status(g).Leader == 0 || rest[1].Status(g).Leader == 0 })
	})
	net.mu.Lock()
	delete(net.hosts, dsdb.NodeID(gone))
	net.orphans = map[dsdb.GroupID]bool{}
	for _, g := range led {
		net.orphans[g] = true
	}
	net.mu.Unlock()
	for _, h := range rest {
		h.PeerDown(dsdb.NodeID(gone))
		for range electionTicks - heartbeatTicks - 1 {
			for _, w := range h.workers {
				w.push(event{kind: evTick, slices: allSlices})
			}
		}
	}
	await(t, func() bool { net.mu.RLock(); defer net.mu.RUnlock(); return len(net.orphans) == 0 })
	for _, h := range hosts {
		startClock(h)
	}
	for g := range dsdb.GroupID(groups) {
		proposeAnywhere(t, rest, g+1, "after")
	}
}
