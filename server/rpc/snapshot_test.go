package rpc

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// files are the content of a snapshot, by name.
type files map[string][]byte

// snapshot makes a snapshot of fs in dir.
func (f files) snapshot(t testing.TB, fsys vfs.FS, dir string, group dsdb.GroupID) raftnode.Snapshot {
	t.Helper()
	s := raftnode.Snapshot{Manifest: dsdb.Manifest{Index: 42, Term: 3}}
	s.Envelope = raftnode.Envelope{Group: group, From: 1, To: 2, Message: &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), Term: new(uint64(3)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(uint64(42)), Term: new(uint64(3)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}},
	}}
	if err := fsys.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, b := range f {
		w, err := fsys.Create(path.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		w.Close()
		s.Manifest.Files = append(s.Manifest.Files, dsdb.ManifestFile{Name: name, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)})
	}
	return s
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// shipping is two processes, the first of which has a snapshot for the second.
type shipping struct {
	a, b     *testNode
	from, to vfs.FS
	snap     raftnode.Snapshot
	content  files
}

func newShipping(t testing.TB, change ...func(*Options)) *shipping {
	s := &shipping{from: vfs.OS(), to: vfs.OS()}
	src, dst := t.TempDir(), t.TempDir()
	s.content = files{"empty": nil, "one": {1}, "chunk": random(chunkSize), "big": random(5*chunkSize + 17)}
	s.snap = s.content.snapshot(t, s.from, src, 5)
	s.a = start(t, 1, append([]func(*Options){func(o *Options) {
		o.Files = func(dsdb.GroupID) (vfs.FS, string, error) { return s.from, src, nil }
	}}, change...)...)
	s.b = start(t, 2, func(o *Options) {
		o.Incoming = func(dsdb.GroupID) (vfs.FS, string, error) { return s.to, dst, nil }
	})
	t.Cleanup(func() {
		s.a.kill()
		s.b.kill()
		if names, err := s.to.List(dst); err != nil || len(names) > 0 {
			t.Errorf("left behind: %v %v", names, err)
		}
	})
	acquaint(s.a, s.b)
	return s
}

// send sends the snapshot and returns how that ended.
func (s *shipping) send() error {
	done := make(chan error, 2)
	s.start(done)
	return <-done
}

// start sends the snapshot, with a message of its own.
func (s *shipping) start(done chan<- error) {
	snap := s.snap
	snap.Envelope.Message = proto.Clone(snap.Envelope.Message).(*raftpb.Message)
	s.a.SendSnapshot(21, &raftnode.OutgoingSnapshot{Snapshot: snap, Done: func(err error) { done <- err }, Alive: func(uint64) {}})
}

// check compares what lies in dir with what was sent.
func (s *shipping) check(dir string) error {
	names, err := s.to.List(dir)
	if err != nil || len(names) != len(s.content) {
		return errors.Join(err, errors.New("names: "+strings.Join(names, " ")))
	}
	for name, want := range s.content {
		if got, err := os.ReadFile(path.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			return errors.New("other content: " + name)
		}
	}
	return nil
}

func TestASnapshotArrivesWhole(t *testing.T) {
	s := newShipping(t)
	var installed atomic.Int64
	s.b.raft.install = func(_ context.Context, from raftnode.Sender, got raftnode.Snapshot, dir string) error {
		installed.Add(1)
		if from.Node != 11 || got.Envelope.Group != 5 || got.Manifest.Index != 42 || !slices.Equal(got.Manifest.Files, s.snap.Manifest.Files) ||
			got.Envelope.Message.GetSnapshot().GetMetadata().GetIndex() != 42 {
			return errors.New("not what was sent")
		}
		return s.check(dir)
	}
	for range 2 {
		if err := s.send(); err != nil {
			t.Fatal(err)
		}
	}
	size := uint64(0)
	for _, f := range s.snap.Manifest.Files {
		size += 2 * uint64(f.Size)
	}
	sent, received := &s.a.Metrics().Sent, &s.b.Metrics().Received
	if installed.Load() != 2 || sent.Snapshots.Load() != 2 || received.Snapshots.Load() != 2 || sent.SnapshotBytes.Load() != size || received.SnapshotBytes.Load() != size {
		t.Fatalf("%d were installed; sent %d of %d bytes, received %d of %d", installed.Load(), sent.Snapshots.Load(), sent.SnapshotBytes.Load(), received.Snapshots.Load(), received.SnapshotBytes.Load())
	}
}

func TestTheSenderLearnsWhyASnapshotIsNotInstalled(t *testing.T) {
	s := newShipping(t)
	s.b.raft.install = func(context.Context, raftnode.Sender, raftnode.Snapshot, string) error {
		return dsdb.Errorf(dsdb.KindUnavailable, "not now")
	}
	if err := s.send(); dsdb.KindOf(err) != dsdb.KindUnavailable || !strings.HasSuffix(err.Error(), "not now") {
		t.Fatal(err)
	}
}

// A file that is not what the manifest says must not be installed.
func TestAFileThatDiffersFromItsManifestIsRefused(t *testing.T) {
	s := newShipping(t)
	s.b.raft.install = func(context.Context, raftnode.Sender, raftnode.Snapshot, string) error {
		t.Error("installed")
		return nil
	}
	for i := range s.snap.Manifest.Files {
		if s.snap.Manifest.Files[i].Name == "big" {
			s.snap.Manifest.Files[i].CRC++
		}
	}
	if err := s.send(); dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), "file big: checksum") {
		t.Fatal(err)
	}
	s.snap.Manifest.Files = append(s.snap.Manifest.Files[:0:0], dsdb.ManifestFile{Name: "gone", Size: 1})
	if err := s.send(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	s.snap.Manifest.Files[0] = dsdb.ManifestFile{Name: "../one", Size: 1}
	if err := s.send(); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Fatal(err)
	}
	s.snap.Manifest.Files[0] = dsdb.ManifestFile{Name: "one", Size: 1 << 60}
	if err := s.send(); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatal(err)
	}
}

// damaged is a connection that does harm to what it is given to write.
type damaged struct {
	net.Conn
	left *atomic.Int64 // bytes until the harm
	harm func(c net.Conn, b []byte) ([]byte, error)
}

func (d damaged) Write(b []byte) (int, error) {
	if d.left.Add(-int64(len(b))) < 0 {
		c, err := d.harm(d.Conn, bytes.Clone(b))
		if err != nil {
			return 0, err
		}
		_, err = d.Conn.Write(c)
		return len(b), err
	}
	return d.Conn.Write(b)
}

func harming(after int64, harm func(net.Conn, []byte) ([]byte, error)) func(*Options) {
	var left atomic.Int64
	left.Store(after)
	return func(o *Options) {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", addr)
			return damaged{c, &left, harm}, err
		}
	}
}

// What Install is given is durable: the power may fail at once.
func TestAnArrivedSnapshotSurvivesAPowerCut(t *testing.T) {
	s := newShipping(t)
	mem := vfs.NewMem(1)
	s.to = mem
	s.b.raft.install = func(_ context.Context, _ raftnode.Sender, _ raftnode.Snapshot, dir string) error {
		after := mem.CrashClone(0, 1)
		for name, want := range s.content {
			if got, err := vfs.ReadFile(after, path.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s has %d of %d bytes: %v", name, len(got), len(want), err)
			}
		}
		return nil
	}
	if err := s.send(); err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotThatIsDamagedOnItsWayIsRefused(t *testing.T) {
	once := sync.Once{}
	s := newShipping(t, harming(chunkSize*3, func(_ net.Conn, b []byte) ([]byte, error) {
		if len(b) > chunkSize/8 { // else it is something else that is sent meanwhile
			once.Do(func() { b[len(b)/2] ^= 4 })
		}
		return b, nil
	}))
	s.b.raft.install = func(context.Context, raftnode.Sender, raftnode.Snapshot, string) error {
		t.Error("installed")
		return nil
	}
	if err := s.send(); err == nil {
		t.Fatal("no error")
	}
	eventually(t, "noticed", func() bool { return strings.Contains(s.b.log.String(), "peer connection is damaged") })
}

func TestASnapshotThatIsCutOffLeavesNothing(t *testing.T) {
	s := newShipping(t, harming(chunkSize*3, func(c net.Conn, b []byte) ([]byte, error) {
		c.Close()
		return nil, net.ErrClosed
	}))
	s.b.raft.install = func(context.Context, raftnode.Sender, raftnode.Snapshot, string) error {
		t.Error("installed")
		return nil
	}
	if err := s.send(); dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatal(err)
	}
}

func TestSnapshotsThatWaitAreToldAtClose(t *testing.T) {
	s := newShipping(t)
	entered := make(chan bool)
	s.b.raft.install = func(ctx context.Context, _ raftnode.Sender, _ raftnode.Snapshot, _ string) error {
		entered <- true
		<-ctx.Done()
		return ctx.Err()
	}
	done := make(chan error, 10)
	for range 5 {
		s.start(done)
	}
	<-entered
	<-entered
	s.a.kill()
	for range 5 {
		if err := <-done; err == nil {
			t.Fatal("no error")
		}
	}
	s.start(done)
	if err := <-done; dsdb.KindOf(err) != dsdb.KindUnavailable {
		t.Fatal(err)
	}
}

func TestSweepRemovesWhatArrivedBefore(t *testing.T) {
	m := vfs.NewMem(1)
	if err := Sweep(m, "/none"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/r/incoming-1", "/r/incoming-2/x", "/r/incoming", "/r/manifest"} {
		if err := m.MkdirAll(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(m, "/r"); err != nil {
		t.Fatal(err)
	}
	if names, _ := m.List("/r"); !slices.Equal(names, []string{"incoming", "manifest"}) {
		t.Fatal(names)
	}
}

func FuzzSnapshotHeader(f *testing.F) {
	s := files{"a": {1, 2}, "b": nil}.snapshot(f, vfs.NewMem(1), "/s", 9)
	good := appendSnapshotHeader(nil, &s)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(bytes.Replace(good, []byte("\x01a"), []byte("\x01/"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSnapshotHeader(b)
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatal(err)
			}
			return
		}
		for _, m := range s.Manifest.Files {
			if strings.ContainsAny(m.Name, "/\x00") || m.Size < 0 {
				t.Fatalf("%+v", m)
			}
		}
		if again, err := decodeSnapshotHeader(appendSnapshotHeader(nil, &s)); err != nil || !slices.Equal(again.Manifest.Files, s.Manifest.Files) {
			t.Fatal(err)
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	s := newShipping(b, func(o *Options) { o.SnapshotRate = 10 << 30 })
	s.b.raft.install = func(context.Context, raftnode.Sender, raftnode.Snapshot, string) error { return nil }
	b.SetBytes(6*chunkSize + 18)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.send(); err != nil {
			b.Fatal(err)
		}
	}
}

// Raft hears of a snapshot that moves, and not for each chunk.
func TestMovingSnapshotIsAlive(t *testing.T) {
	var told []uint64
	sh := &shipment{OutgoingSnapshot: &raftnode.OutgoingSnapshot{Alive: func(sent uint64) { told = append(told, sent) }}, sent: 5, told: time.Now().Add(-aliveEvery)}
	for range 3 {
		sh.moved(10)
	}
	if !slices.Equal(told, []uint64{15}) || sh.sent != 35 {
		t.Errorf("told of %d bytes, in the end %d", told, sh.sent)
	}
}
