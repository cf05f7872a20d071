package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inbox is a Raft that keeps what it is told.
type inbox struct {
	mu          sync.Mutex
	got         []arrival
	down        []dsdb.NodeID
	unreachable int
	install     func(ctx context.Context, from raftnode.Sender, s raftnode.Snapshot, dir string) error
}

type arrival struct {
	from raftnode.Sender
	raftnode.Envelope
}

func (i *inbox) Step(from raftnode.Sender, msgs []raftnode.Envelope) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range msgs {
		i.got = append(i.got, arrival{from, m})
	}
}

func (i *inbox) PeerDown(id dsdb.NodeID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = append(i.down, id)
}

func (i *inbox) Unreachable(dsdb.NodeID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.unreachable++
}

func (i *inbox) Install(ctx context.Context, from raftnode.Sender, s raftnode.Snapshot, dir string) error {
	return i.install(ctx, from, s, dir)
}

func (i *inbox) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.got)
}

func (i *inbox) downs() []dsdb.NodeID {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]dsdb.NodeID(nil), i.down...)
}

// journal is a log that a test can read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// testNode is a process with a listener of its own.
type testNode struct {
	*Peers
	t      testing.TB
	raft   *inbox
	log    *journal
	server *http.Server
	addr   string
	killed sync.Once
}

// start runs a process with ids 10k (meta) and 10k+1 (data).
func start(t testing.TB, k int, change ...func(*Options)) *testNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, l, k, change...)
}

func startOn(t testing.TB, l net.Listener, k int, change ...func(*Options)) *testNode {
	t.Helper()
	n := &testNode{t: t, raft: &inbox{}, log: &journal{}, addr: l.Addr().String()}
	o := Options{
		Self:   Process{Cluster: 77, UUID: fmt.Sprintf("uuid-%d", k), MetaID: dsdb.NodeID(10 * k), DataID: dsdb.NodeID(10*k + 1), Epoch: 1, Addr: n.addr, Version: "test"},
		Logger: slog.New(slog.NewTextHandler(n.log, nil)),
		Raft:   func() Raft { return n.raft },
	}
	for _, f := range change {
		f(&o)
	}
	n.Peers = New(o)
	mux := http.NewServeMux()
	mux.Handle("/peer", n.Peers)
	n.server = &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go n.server.Serve(l)
	t.Cleanup(n.kill)
	return n
}

// kill ends the process: its listener and all its connections.
func (n *testNode) kill() {
	n.killed.Do(func() {
		n.server.Close()
		n.Peers.Close()
	})
}

func (n *testNode) nodes() []Node {
	s := n.opt.Self
	return []Node{{ID: s.MetaID, UUID: s.UUID, Addr: n.addr}, {ID: s.DataID, UUID: s.UUID, Addr: n.addr}}
}

// acquaint gives all processes the same catalogue.
func acquaint(ns ...*testNode) {
	var all []Node
	for _, n := range ns {
		all = append(all, n.nodes()...)
	}
	for _, n := range ns {
		n.SetNodes(all)
	}
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func (n *testNode) up(k int) bool {
	for _, s := range n.Status() {
		if s.Process.UUID == fmt.Sprintf("uuid-%d", k) {
			return s.Up
		}
	}
	return false
}

func heartbeat(group dsdb.GroupID) raftnode.Envelope {
	return raftnode.Envelope{Group: group, From: 1, To: 2, Message: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Commit: new(uint64(group))}}
}

func appendMessage(group dsdb.GroupID, size int) raftnode.Envelope {
	e := &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(3)), Index: new(uint64(9)), Data: bytes.Repeat([]byte{7}, size)}
	return raftnode.Envelope{Group: group, From: 1, To: 2, Message: &raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{e}}}
}

func TestRaftMessagesArriveInOrderFromTheRightNode(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	eventually(t, "connected", func() bool { return a.up(2) })
	for g := range 100 {
		a.Send(20+dsdb.NodeID(g%2), []raftnode.Envelope{heartbeat(dsdb.GroupID(g)), appendMessage(dsdb.GroupID(g), 100)})
	}
	eventually(t, "arrived", func() bool { return b.raft.count() == 200 })
	next := map[bool]dsdb.GroupID{}
	for _, m := range b.raft.got {
		if bulk := len(m.Message.GetEntries()) > 0; m.Group != next[bulk] {
			t.Fatalf("group %d where %d is due", m.Group, next[bulk])
		} else {
			next[bulk]++
		}
		if meta, data := (raftnode.Sender{Node: 10, Other: 11}), (raftnode.Sender{Node: 11, Other: 10}); m.Group == 0 && m.from != meta || m.Group != 0 && m.from != data {
			t.Fatalf("message of group %d from node %d", m.Group, m.from)
		}
	}
	if d := a.Metrics().Dropped.Load(); d != 0 {
		t.Fatalf("%d dropped", d)
	}
}

func TestACallIsAnswered(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	b.Handle("echo", func(_ context.Context, from Process, body []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s %d: %s", from.UUID, from.DataID, body), nil
	})
	b.Handle("leader", func(context.Context, Process, []byte) ([]byte, error) {
		return nil, fmt.Errorf("write: %w", &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "not here", Leader: 31})
	})
	b.Handle("panic", func(context.Context, Process, []byte) ([]byte, error) { panic("ouch") })
	ctx := t.Context()
	if got, err := a.Call(ctx, 20, "echo", []byte("hello")); err != nil || string(got) != "uuid-1 11: hello" {
		t.Fatalf("%q %v", got, err)
	}
	_, err := a.Call(ctx, 21, "leader", nil)
	var e *dsdb.Error
	if !errors.As(err, &e) || e.Kind != dsdb.KindNotLeader || e.Leader != 31 || e.Text != "write: not here" {
		t.Fatalf("%#v", err)
	}
	if _, err = a.Call(ctx, 21, "panic", nil); err == nil || dsdb.KindOf(err) != dsdb.KindInternal {
		t.Fatal(err)
	}
	if _, err = a.Call(ctx, 21, "unheard", nil); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatal(err)
	}
	if _, err = a.Call(ctx, 99, "echo", nil); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatal(err)
	}
	if _, err = a.Call(ctx, 21, "echo", make([]byte, MaxCall+1)); dsdb.KindOf(err) != dsdb.KindTooLarge {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("x"), MaxCall-100)
	if got, err := a.Call(ctx, 20, "echo", big); err != nil || !bytes.HasSuffix(got, big) {
		t.Fatalf("%d %v", len(got), err)
	}
}

func TestManyCallsShareAConnection(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	b.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for j := range 100 {
				body := bytes.Repeat(fmt.Appendf(nil, "%d.%d ", i, j), 1+j*i%50)
				if got, err := a.Call(t.Context(), 21, "echo", body); err != nil || !bytes.Equal(got, body) {
					t.Errorf("%q for %q: %v", got, body, err)
				}
			}
		})
	}
	all.Wait()
}

func TestACallCanBeCanceled(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	entered, ended := make(chan bool), make(chan error, 1)
	b.Handle("wait", func(ctx context.Context, _ Process, _ []byte) ([]byte, error) {
		entered <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := a.Call(ctx, 21, "wait", nil); dsdb.KindOf(err) != dsdb.KindCanceled {
		t.Fatal(err)
	}
	if err := <-ended; err != context.Canceled {
		t.Fatal(err)
	}
	// A deadline travels with the call.
	ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	go func() { <-entered }()
	if _, err := a.Call(ctx, 21, "wait", nil); dsdb.KindOf(err) != dsdb.KindTimeout {
		t.Fatal(err)
	}
	<-ended
}

func TestAProcessThatIsAskedTooMuchSaysSo(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	entered, leave := make(chan bool, maxServed), make(chan bool)
	b.Handle("wait", func(context.Context, Process, []byte) ([]byte, error) {
		entered <- true
		<-leave
		return nil, nil
	})
	var all sync.WaitGroup
	for range maxServed {
		all.Go(func() {
			if _, err := a.Call(t.Context(), 21, "wait", nil); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxServed {
		<-entered
	}
	if _, err := a.Call(t.Context(), 21, "wait", nil); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Error(err)
	}
	close(leave)
	all.Wait()
}

func TestACallWhoseConnectionIsLostHasAnUnknownOutcome(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	entered := make(chan bool)
	b.Handle("wait", func(ctx context.Context, _ Process, _ []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	go func() {
		<-entered
		b.kill()
	}()
	if _, err := a.Call(t.Context(), 21, "wait", nil); dsdb.KindOf(err) != dsdb.KindTimeout {
		t.Fatal(err)
	}
	eventually(t, "unavailable", func() bool {
		_, err := a.Call(t.Context(), 21, "wait", nil)
		return dsdb.KindOf(err) == dsdb.KindUnavailable
	})
}

func TestAStreamCarriesMessagesBothWays(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	b.HandleStream("double", func(_ context.Context, from Process, s *Stream) error {
		for {
			m, err := s.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if string(m) == "fail" {
				return dsdb.Errorf(dsdb.KindConflict, "failed for %s", from.UUID)
			}
			if err := s.Send(append(m, m...)); err != nil {
				return err
			}
		}
	})
	for round := range 5 {
		s, err := a.Open(t.Context(), 21, "double")
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 1000, 5 << 20} {
			m := bytes.Repeat([]byte{byte(round)}, size)
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Recv(); err != nil || !bytes.Equal(got, append(m, m...)) {
				t.Fatal(len(got), err)
			}
		}
		end := io.EOF
		if round%2 == 0 {
			s.Send([]byte("fail"))
			_, err = s.Recv()
			if dsdb.KindOf(err) != dsdb.KindConflict || err.Error() != "failed for uuid-1" {
				t.Fatal(err)
			}
		} else {
			s.CloseSend()
			if _, err = s.Recv(); err != end {
				t.Fatal(err)
			}
		}
		s.Close()
		s.Close()
		if err := s.Send(nil); err == nil {
			t.Fatal("a closed stream sends")
		}
	}
	if n := len(a.registry.ids[21].streams.idle); n != 1 {
		t.Fatalf("%d connections for streams one after the other", n)
	}
}

func TestAStreamThatIsGivenUpEndsItsHandler(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	ended := make(chan error, 1)
	b.HandleStream("flood", func(ctx context.Context, _ Process, s *Stream) error {
		var err error
		for err == nil {
			err = s.Send(make([]byte, 1<<20))
		}
		ended <- err
		return err
	})
	b.HandleStream("think", func(ctx context.Context, _ Process, s *Stream) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	for _, method := range []string{"flood", "think"} {
		s, err := a.Open(t.Context(), 21, method) // closed by its opener
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := <-ended; err == nil {
			t.Fatal("no error")
		}
		ctx, cancel := context.WithCancel(t.Context()) // canceled by its opener
		if s, err = a.Open(ctx, 21, method); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err == nil {
			t.Fatal("no error")
		}
		for err == nil {
			_, err = s.Recv()
		}
		if dsdb.KindOf(err) != dsdb.KindCanceled {
			t.Fatal(err)
		}
		s.Close()
	}
	if s, err := a.Open(t.Context(), 21, "think"); err != nil { // its process ends
		t.Fatal(err)
	} else {
		go b.kill()
		if _, err := s.Recv(); dsdb.KindOf(err) != dsdb.KindUnavailable {
			t.Fatal(err)
		}
		s.Close()
	}
}

func TestAPeerThatComesBackIsReached(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	eventually(t, "connected", func() bool { return a.up(2) && b.up(1) })
	b.kill()
	eventually(t, "told that it is down", func() bool { return len(a.raft.downs()) == 2 })
	if d := a.raft.downs(); d[0]+d[1] != 41 {
		t.Fatalf("down: %v", d)
	}
	a.Send(21, []raftnode.Envelope{heartbeat(1)})
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	again := startOn(t, l, 2, func(o *Options) { o.Self.Epoch = 2 })
	eventually(t, "reached again", func() bool {
		a.Send(21, []raftnode.Envelope{heartbeat(1)})
		return again.raft.count() > 0
	})
	if n := len(a.raft.downs()); n != 2 {
		t.Fatalf("told %d times that it is down", n)
	}
}

func TestWhatDoesNotFitIsDroppedAndTold(t *testing.T) {
	hold := make(chan struct{})
	a := start(t, 1, func(o *Options) {
		o.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return nil, errors.New("no way")
		}
	})
	defer close(hold)
	a.SetNodes([]Node{{ID: 21, UUID: "uuid-2", Addr: "nowhere:1"}})
	for g := range 9000 {
		a.Send(21, []raftnode.Envelope{heartbeat(dsdb.GroupID(g))})
	}
	if d := a.Metrics().Dropped.Load(); d != 9000-maxControl {
		t.Fatalf("%d dropped", d)
	}
	for range 40 {
		a.Send(21, []raftnode.Envelope{appendMessage(1, 1<<20)})
	}
	if d := a.Metrics().Dropped.Load(); d != 9000-maxControl+9 {
		t.Fatalf("%d dropped", d)
	}
	eventually(t, "told", func() bool {
		a.raft.mu.Lock()
		defer a.raft.mu.Unlock()
		return a.raft.unreachable > 0
	})
}

// Raft is not told that the process is gone, but that a connection broke: its
// quiescent groups do not wait for as long as they would for a heartbeat.
func TestSilenceIsNotDeath(t *testing.T) {
	for _, name := range []string{"somebody listens", "nobody answers"} {
		t.Run(name, func(t *testing.T) {
			var mute atomic.Bool
			a := start(t, 1, func(o *Options) {
				o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
					if mute.Load() {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return net.Dial("tcp", addr)
				}
			})
			b := start(t, 2)
			acquaint(a, b)
			a.Send(21, []raftnode.Envelope{heartbeat(1)})
			eventually(t, "connected", func() bool { return a.up(2) && b.raft.count() > 0 })
			if name == "somebody listens" {
				b.Peers.Close()
			} else {
				mute.Store(true)
				b.kill()
			}
			eventually(t, "lost", func() bool { return !a.up(2) })
			q, _ := a.lookup(21)
			eventually(t, "found out", func() bool {
				q.mu.Lock()
				defer q.mu.Unlock()
				return !q.probing
			})
			if d := a.raft.downs(); len(d) > 0 {
				t.Fatalf("down: %v", d)
			}
			eventually(t, "told", func() bool {
				a.raft.mu.Lock()
				defer a.raft.mu.Unlock()
				return a.raft.unreachable > 0
			})
		})
	}
}

func TestARemovedProcessIsCutOff(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	b.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
	if _, err := a.Call(t.Context(), 21, "echo", nil); err != nil {
		t.Fatal(err)
	}
	b.SetNodes(b.nodes())
	eventually(t, "refused", func() bool {
		_, err := a.Call(t.Context(), 21, "echo", nil)
		return err != nil && strings.Contains(err.Error(), "removed from the cluster")
	})
	if _, err := b.Call(t.Context(), 11, "echo", nil); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatal(err)
	}
}

// A process that was dropped stays so for one that starts anew and has only heard
// of it, whether it comes before the catalogue is read or after.
func TestADroppedProcessIsRefusedAfterARestart(t *testing.T) {
	for _, early := range []bool{true, false} {
		a, b := start(t, 1), start(t, 2)
		b.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
		a.SetNodes(append(a.nodes(), b.nodes()...))
		if _, err := a.Call(t.Context(), 21, "echo", nil); early && err != nil {
			t.Fatal(err)
		}
		dropped := a.nodes()
		for i := range dropped {
			dropped[i].Gone = true
		}
		b.SetNodes(append(b.nodes(), dropped...))
		eventually(t, "refused", func() bool {
			_, err := a.Call(t.Context(), 21, "echo", nil)
			return err != nil && strings.Contains(err.Error(), "removed from the cluster")
		})
		if got := b.Status(); len(got) != 0 {
			t.Errorf("it is known: %+v", got)
		}
	}
}

// Errors name a node as people know it: by its number and its address.
func TestErrorsNameTheNode(t *testing.T) {
	a, b := start(t, 1), start(t, 2)
	acquaint(a, b)
	_, err := a.Call(t.Context(), 20, "nothing", nil)
	if want := fmt.Sprintf("node 21 (%s) does not answer \"nothing\" yet", b.addr); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	b.kill()
	want := fmt.Sprintf("node 21 (%s) cannot be reached: ", b.addr)
	eventually(t, want, func() bool {
		_, err := a.Call(t.Context(), 20, "nothing", nil)
		_, err2 := a.Open(t.Context(), 20, "nothing")
		return err != nil && strings.HasPrefix(err.Error(), want) && err2 != nil && strings.HasPrefix(err2.Error(), want)
	})
}
