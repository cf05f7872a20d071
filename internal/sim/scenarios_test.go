package sim

import (
	"errors"
	"path"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// The numbers are those of the design's list of scenarios.

// The leader has synced a write that it never sent to anyone. Nobody was told
// anything, and the entry gives way to those of the next leader.
func TestS1LeaderDiesBetweenSyncAndSending(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		old := s.leader()
		s.write(old)
		s.swallow(old, raftpb.MsgApp)
		before := s.last(old)
		orphan := s.propose(old)
		s.until("the write is in the leader's log", func() bool { return s.last(old) > before })
		old.CutPower(0)
		s.heal()
		s.write(s.leader())
		s.start(old)
		s.settle()
		if orphan.told > 0 || s.applied(orphan) {
			s.t.Errorf("the orphan: %+v, applied: %v", orphan, s.applied(orphan))
		}
	})
}

// A quorum has the write and the leader knows it, but its client does not: the
// write must be there ever after.
func TestS2LeaderDiesBetweenCommitAndAcknowledgement(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		old := s.leader()
		s.write(old)
		before := old.Status(theGroup).Commit
		last := s.propose(old)
		s.until("the write is committed", func() bool { return old.Status(theGroup).Commit > before })
		if last.told > 0 {
			s.t.Fatal("too late")
		}
		old.CutPower(0)
		next := s.leader()
		read := s.ask(next)
		s.answered(read)
		if read.err != nil || read.read != last.id {
			s.t.Errorf("the next leader reads %+v, want write %d", read, last.id)
		}
		s.start(old)
		s.settle()
	})
}

// A leader that is cut off takes a thousand writes, none of which can succeed.
// When it is back its clients are told that they were lost, and that is true.
func TestS3IsolatedLeaderLosesItsTail(t *testing.T) {
	scenario(t, 3, 2, func(s *script) {
		old := s.leader()
		s.write(old)
		s.network.isolate(old.Index)
		var lost []*attempt
		for range 1000 {
			lost = append(lost, s.propose(old))
		}
		s.Run(10 * time.Second)
		if tail := s.last(old) - old.Status(theGroup).Commit; tail != 1000 {
			s.t.Errorf("the isolated leader has %d entries that are not committed, want 1000", tail)
		}
		next := s.leaderBut(old)
		for range 10 {
			s.write(next)
		}
		s.settle()
		for _, a := range lost {
			if a.told != 1 || dsdb.KindOf(a.err) != dsdb.KindUnavailable || s.applied(a) {
				s.t.Fatalf("a lost write: %+v, applied: %v", a, s.applied(a))
			}
		}
	})
}

// Links that fail in one direction only: the leader stays, the term does not
// rise, writes go on.
func TestS4OneWayCutsDoNotDisturbTheLeader(t *testing.T) {
	cuts := map[string]func(s *script, leader, follower *Node){
		"from the follower": func(s *script, l, f *Node) { s.cut(f, l) },
		"to the follower":   func(s *script, l, f *Node) { s.cut(l, f) },
		"follower is mute": func(s *script, l, f *Node) {
			for _, n := range s.Nodes {
				s.cut(f, n)
			}
		},
		"follower is deaf": func(s *script, l, f *Node) {
			for _, n := range s.Nodes {
				s.cut(n, f)
			}
		},
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			scenario(t, 3, 2, func(s *script) {
				l := s.leader()
				s.write(l)
				term := l.Status(theGroup).Term
				cut(s, l, s.followers(l)[0])
				for range 60 {
					s.write(l)
					s.Run(time.Second)
				}
				s.settle()
				for _, n := range s.Nodes {
					if now := n.Status(theGroup); now.Term != term || now.LeaderNode != l.DataID {
						s.t.Errorf("node %d: leader %d in term %d, want %d in %d", n.Index, now.LeaderNode, now.Term, l.DataID, term)
					}
				}
			})
		})
	}
}

// All nodes lose their power, a hundred times, a moment after some writes began.
func TestS5PowerFailsEverywhereAHundredTimes(t *testing.T) {
	scenario(t, 3, 1, func(s *script) {
		for range 100 {
			l := s.leader()
			for range 5 {
				s.propose(l)
				s.Run(s.Between(0, 3*time.Millisecond))
			}
			for _, n := range s.Nodes {
				n.CutPower(s.Rand.IntN(3) * 50)
			}
			s.start(s.Nodes...)
		}
		s.settle()
		if n := s.Counts["writes acknowledged"]; n < 100 || n > 500 {
			s.t.Errorf("%d of 500 writes were acknowledged", n)
		}
	})
}

// What confirmed one read arrives again after the leader has been replaced,
// while it tries to serve the next (etcd-io/raft pull request 397).
func TestS15OldConfirmationsServeNoNewRead(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		old := s.leader()
		s.write(old)
		type sent struct {
			from *Node
			raftnode.Envelope
		}
		var copies []sent
		s.network.tap = func(from, to int, e raftnode.Envelope) bool {
			if to == old.Index && e.Message.GetType() == raftpb.MsgHeartbeatResp && len(e.Message.GetContext()) > 0 {
				copies = append(copies, sent{s.Nodes[from], e})
			}
			return false
		}
		first := s.ask(old)
		s.answered(first)
		s.Run(10 * time.Millisecond)
		if first.err != nil || len(copies) < 2 {
			s.t.Fatalf("first read: %v, confirmed by %d", first.err, len(copies))
		}
		s.heal()
		old.Pause(5 * time.Second)
		s.network.isolate(old.Index)
		newer := s.write(s.leaderBut(old))
		second := s.ask(old)
		s.until("the old leader goes on", func() bool { return !old.pausing })
		for range 20 {
			for _, c := range copies {
				s.network.deliver(c.from, old, c.Envelope)
			}
			s.Run(5 * time.Millisecond)
		}
		if second.told > 0 && second.err == nil {
			s.t.Errorf("old confirmations made the read return %d, newest is %d", second.read, newer.id)
		}
		s.settle()
	})
}

// A leader stops for five seconds and is replaced. It believes to lead still when
// it goes on, and must not answer reads from what it has.
func TestS16PausedLeaderServesNoOldRead(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		old := s.leader()
		s.write(old)
		old.Pause(5 * time.Second)
		newer := s.write(s.leaderBut(old))
		reads := []*attempt{s.ask(old)}
		s.until("the old leader goes on", func() bool { return !old.pausing })
		if !old.Leads(theGroup) {
			s.t.Fatal("the old leader knows already")
		}
		for range 10 {
			reads = append(reads, s.ask(old))
			s.Run(time.Millisecond)
		}
		s.settle()
		for _, a := range reads {
			if a.told != 1 || a.err == nil && a.read < newer.id {
				s.t.Errorf("read %+v, newest is %d", a, newer.id)
			}
		}
	})
}

// The disk of one node fills up: nobody notices. That of a second one too: no
// write succeeds. With room again all goes on, and nothing is lost.
func TestS17FullDisks(t *testing.T) {
	scenario(t, 3, 3, func(s *script) {
		l := s.leader()
		f := s.followers(l)[0]
		fill := func(n *Node) {
			n.disk.full(0)
			since := s.Now()
			s.until("the disk has been full for a second", func() bool {
				s.propose(l)
				s.Run(time.Millisecond)
				if !n.run.writer.Full() {
					since = s.Now()
				}
				return s.Now() > since+time.Second
			})
		}
		fill(f)
		s.write(l)
		fill(l)
		acked := s.Counts["writes acknowledged"]
		var during []*attempt
		for range 100 {
			during = append(during, s.propose(l))
			s.Run(10 * time.Millisecond)
		}
		if more := s.Counts["writes acknowledged"] - acked; more > 0 {
			s.t.Errorf("%d writes acknowledged without a quorum that has room", more)
		}
		for _, a := range during {
			if a.told != 1 || dsdb.KindOf(a.err) != dsdb.KindUnavailable {
				s.t.Fatalf("without room: %+v", a)
			}
		}
		for _, n := range s.Nodes {
			n.disk.repair()
		}
		s.Run(time.Second)
		s.write(s.leader())
		s.settle()
	})
}

// A leader that alone has no space hands on, also a group in which nothing is
// under way: the others have space.
func TestS17FullLeaderHandsOn(t *testing.T) {
	scenario(t, 3, 3, func(s *script) {
		for range 3 {
			l := s.leader()
			l.disk.full(0)
			s.until("its disk is full", func() bool {
				if s.propose(l); !l.run.writer.Full() {
					s.Run(10 * time.Millisecond)
				}
				return l.run.writer.Full()
			})
			s.write(s.leaderBut(l))
			l.disk.repair()
			s.write(s.leader())
		}
		s.settle()
	})
}

// A sync fails once. The process ends, whatever the disk says next; started
// again it trusts nothing that this sync was to make durable.
func TestS18SyncFailsOnce(t *testing.T) {
	scenario(t, 3, 10, func(s *script) {
		var ended []*Node
		s.died = func(n *Node, _ error) { ended = append(ended, n) }
		for i := range 6 {
			l := s.leader()
			victim := l
			if i%2 == 1 {
				victim = s.followers(l)[0]
			}
			victim.disk.failNextSync()
			s.propose(l)
			s.until("the process ends", func() bool { return len(ended) > i })
			s.start(victim)
			s.Run(s.Between(0, 3*time.Second))
			victim.CutPower(0)
			s.start(victim)
			s.write(s.leader())
		}
		s.settle()
	})
}

// The power fails right after a flush: the log knows less of what is committed
// than the flushed files, which are right.
func TestS29PowerFailsAfterAFlush(t *testing.T) {
	scenario(t, 3, 5, func(s *script) {
		l := s.leader()
		for range 20 {
			s.write(l)
		}
		s.flushed(l)
		flushed := s.groups[theGroup].copies[l.Index].FlushedIndex()
		if state, _ := l.run.log.State(theGroup); state.HardState.Commit >= flushed {
			s.t.Fatalf("the log knows that %d is committed, flushed is %d", state.HardState.Commit, flushed)
		}
		l.CutPower(0)
		s.start(l)
		if st := l.Status(theGroup); st.Failed != nil {
			s.t.Fatalf("after the restart: %+v", st)
		}
		s.settle()
	})
}

// The log has lost what the flushed files hold, as after a restore of an old
// copy of it: the replica stays out of service and the others go on.
func TestS29FlushedBeyondTheLog(t *testing.T) {
	scenario(t, 3, 3, func(s *script) {
		l := s.leader()
		s.write(l)
		s.Run(time.Second)
		f := s.followers(l)[0]
		older := f.disk.CrashClone(100, 1)
		for range 10 {
			s.write(l)
		}
		s.Run(time.Second)
		s.flushed(f)
		f.Kill()
		copyFolder(s.t, older, f.disk.Mem, path.Dir(s.groups[theGroup].copies[f.Index].dir))
		f.disk.Mem = older
		s.start(f)
		if err := f.Status(theGroup).Failed; dsdb.KindOf(err) != dsdb.KindCorrupt {
			s.t.Fatalf("the replica whose log is too old: %v", err)
		}
		s.write(l)
		l.CutPower(0) // of two votes the third is needed, which it must not give
		s.Run(10 * time.Second)
		if other := s.Leader(theGroup); other != nil {
			s.t.Errorf("node %d leads by the vote of a replica that has forgotten", other.Index)
		}
		s.start(l)
		s.write(s.leader())
	})
}

// copyFolder copies a folder of folders of files from one disk to another.
func copyFolder(t *testing.T, to, from vfs.FS, dir string) {
	t.Helper()
	var err error
	each := func(dir string, f func(string)) {
		names, e := from.List(dir)
		err = errors.Join(err, e)
		for _, name := range names {
			f(path.Join(dir, name))
		}
	}
	each(dir, func(sub string) {
		err = errors.Join(err, to.RemoveAll(sub), to.MkdirAll(sub))
		each(sub, func(name string) {
			b, e := readFile(from, name)
			err = errors.Join(err, e, writeFile(to, name, b))
		})
		err = errors.Join(err, to.SyncDir(sub))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A follower is away while twenty-five megabytes are written: the leader keeps a few
// of them in memory and reads the rest from its log when the follower is back.
func TestMemoryIsBoundedWhileAFollowerIsAway(t *testing.T) {
	scenario(t, 3, 1, func(s *script) {
		l := s.leader()
		f := s.followers(l)[0]
		s.network.isolate(f.Index)
		for range 100 {
			a := &attempt{}
			s.set(l, theGroup, 0, 256<<10, a.tell)
			s.answered(a)
			if held := l.Status(theGroup).Cached; held > bounds.Cached+1<<20 {
				s.t.Fatalf("the leader holds %d bytes of entries", held)
			}
		}
		s.heal()
		s.until("the follower has caught up", func() bool { return f.Status(theGroup).Applied == l.Status(theGroup).Applied })
	})
}
