package rpc

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// snapshotMethod is the stream method by which snapshots travel.
const snapshotMethod = "raft.snapshot"

// Bounds of snapshots.
const (
	maxTransfers    = 2 // at once, each way
	chunkSize       = 256 << 10
	maxFiles        = 1 << 16
	chunkHeaderSize = 12
	stallTime       = time.Minute      // without a chunk, or room for one
	installTime     = 10 * time.Minute // from the last chunk to the answer
	turnTime        = 10 * time.Second // that a sender waits for its turn at the receiver
	aliveEvery      = 5 * time.Second  // that raft is told of a snapshot on its way
)

// transfers bound the snapshots that come and go.
type transfers struct {
	out, in chan struct{} // hold one for each
	pace    pacer
}

func newTransfers(rate int64) transfers {
	return transfers{out: make(chan struct{}, maxTransfers), in: make(chan struct{}, maxTransfers), pace: pacer{rate: rate}}
}

// pacer spreads bytes over time.
type pacer struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	next time.Time // when the bytes handed out so far will have passed
}

// wait returns when n more bytes may pass, or ctx ends.
func (l *pacer) wait(ctx context.Context, n int) {
	l.mu.Lock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	d := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	l.mu.Unlock()
	if d > 0 {
		sleep(ctx, d)
	}
}

// enter takes one of the places of sem. It reports false if ctx ends first.
func enter(ctx context.Context, sem chan struct{}) bool {
	select {
	case sem <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// SendSnapshot brings a snapshot and its files to another process, whose Raft
// installs it. It never blocks; s.Done is called once, from another goroutine
// unless the peers are closed. Two snapshots are on their way at a time, others wait.
func (p *Peers) SendSnapshot(to dsdb.NodeID, s *raftnode.OutgoingSnapshot) {
	started := p.start(func() {
		err := p.ship(to, s)
		if err != nil {
			p.metrics.SnapshotsFailed.Add(1)
			err = fmt.Errorf("snapshot of group %d to node %d: %w", s.Envelope.Group, to, err)
		} else {
			p.metrics.Sent.Snapshots.Add(1)
		}
		s.Done(err)
	})
	if !started {
		s.Done(errClosed())
	}
}

// ship waits for its turn, sends, and waits for the answer.
func (p *Peers) ship(to dsdb.NodeID, s *raftnode.OutgoingSnapshot) error {
	if !p.await(s) {
		return errClosed()
	}
	defer func() { <-p.snapshots.out }()
	fs, dir, err := p.opt.Files(s.Envelope.Group)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stream, err := p.Open(ctx, to, snapshotMethod)
	if err != nil {
		return err
	}
	defer stream.Close()
	stream.within(stallTime, turnTime+stallTime)
	if err := stream.Send(appendSnapshotHeader(nil, &s.Snapshot)); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil { // our turn, or a refusal
		return answered(err)
	}
	stream.within(stallTime, 0)
	answer := make(chan error, 1)
	if !p.start(func() {
		_, err := stream.Recv()
		answer <- err
		if err != io.EOF {
			stream.Close() // stops the sending
		}
	}) {
		return errClosed()
	}
	sh := &shipment{OutgoingSnapshot: s, stream: stream, fs: fs, dir: dir, told: time.Now()}
	if err := p.sendFiles(ctx, sh); err != nil {
		return firstOf(answer, err)
	}
	t := time.AfterFunc(installTime, cancel)
	defer t.Stop()
	if err := sh.outcome(answer); err != io.EOF {
		return answered(err)
	}
	return nil
}

// await waits for the turn of a snapshot. It reports false after Close.
func (p *Peers) await(s *raftnode.OutgoingSnapshot) bool {
	for {
		ctx, cancel := context.WithTimeout(p.ctx, aliveEvery)
		ok := enter(ctx, p.snapshots.out)
		cancel()
		if ok || p.ctx.Err() != nil {
			return ok
		}
		s.Alive(0)
	}
}

// shipment is a snapshot whose turn it is.
type shipment struct {
	*raftnode.OutgoingSnapshot
	stream *Stream
	fs     vfs.FS
	dir    string
	sent   uint64    // bytes
	told   time.Time // when raft was told that it is on its way
}

// moved notes that n bytes more have been sent.
func (sh *shipment) moved(n int64) {
	sh.sent += uint64(n)
	if now := time.Now(); now.Sub(sh.told) >= aliveEvery {
		sh.told = now
		sh.Alive(sh.sent)
	}
}

// outcome waits for what the receiver says in the end.
func (sh *shipment) outcome(answer <-chan error) error {
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		select {
		case err := <-answer:
			return err
		case <-t.C:
			sh.Alive(sh.sent)
		}
	}
}

// answered returns the error of a receiver that did not end well.
func answered(err error) error {
	if err == io.EOF {
		return dsdb.Errorf(dsdb.KindCorrupt, "the receiver ended before the sender")
	}
	return err
}

// firstOf returns what the receiver said if it has said why it ended, else err.
func firstOf(answer <-chan error, err error) error {
	select {
	case a := <-answer:
		return answered(a)
	default:
		return err
	}
}

// sendFiles sends the files of a manifest in its order, in chunks.
func (p *Peers) sendFiles(ctx context.Context, sh *shipment) error {
	buf := make([]byte, chunkHeaderSize+chunkSize)
	for i, file := range sh.Manifest.Files {
		f, err := sh.fs.Open(path.Join(sh.dir, file.Name))
		if err != nil {
			return err
		}
		err = p.sendFile(ctx, sh, f, i, buf)
		if err = firstError(err, f.Close()); err != nil {
			return fmt.Errorf("file %s: %w", file.Name, err)
		}
	}
	return sh.stream.CloseSend()
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (p *Peers) sendFile(ctx context.Context, sh *shipment, f vfs.File, number int, buf []byte) error {
	size := sh.Manifest.Files[number].Size
	for off := int64(0); off < size; off += chunkSize {
		n := min(chunkSize, size-off)
		if got, err := f.ReadAt(buf[chunkHeaderSize:chunkHeaderSize+n], off); int64(got) < n {
			return fmt.Errorf("%d of %d bytes at %d: %w", got, n, off, err)
		}
		binary.LittleEndian.PutUint32(buf, uint32(number))
		binary.LittleEndian.PutUint64(buf[4:], uint64(off))
		p.snapshots.pace.wait(ctx, int(n))
		if err := sh.stream.Send(buf[:chunkHeaderSize+n]); err != nil {
			return err
		}
		p.metrics.Sent.SnapshotBytes.Add(uint64(n))
		sh.moved(n)
	}
	return nil
}

// appendSnapshotHeader appends the message that comes before the files.
func appendSnapshotHeader(dst []byte, s *raftnode.Snapshot) []byte {
	dst = appendEnvelope(dst, &s.Envelope)
	dst = binary.LittleEndian.AppendUint64(dst, s.Manifest.Index)
	dst = binary.LittleEndian.AppendUint64(dst, s.Manifest.Term)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s.Manifest.Files)))
	for _, f := range s.Manifest.Files {
		dst = appendShort(dst, f.Name)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(f.Size))
		dst = binary.LittleEndian.AppendUint32(dst, f.CRC)
	}
	return dst
}

// decodeSnapshotHeader reads what appendSnapshotHeader wrote. File names are
// plain names, each once, and sizes are not negative.
func decodeSnapshotHeader(b []byte) (raftnode.Snapshot, error) {
	d := decoder{b: b}
	var s raftnode.Snapshot
	s.Envelope = raftnode.Envelope{Group: dsdb.GroupID(d.u64()), From: dsdb.ReplicaID(d.u64()), To: dsdb.ReplicaID(d.u64())}
	raw := d.bytes(uint64(d.u32()))
	s.Manifest.Index, s.Manifest.Term = d.u64(), d.u64()
	n := d.u32()
	if d.err == nil && uint64(n)*13 > uint64(len(d.b)) || n > maxFiles {
		return s, dsdb.Errorf(dsdb.KindCorrupt, "snapshot: %d files in %d bytes", n, len(d.b))
	}
	if d.err != nil {
		return s, fmt.Errorf("snapshot: %w", d.err)
	}
	seen := make(map[string]bool, n)
	for range n {
		f := dsdb.ManifestFile{Name: d.short(), Size: int64(d.u64()), CRC: d.u32()}
		if d.err == nil && (!plain(f.Name) || seen[f.Name] || f.Size < 0) {
			return s, dsdb.Errorf(dsdb.KindCorrupt, "snapshot: file %q of %d bytes", f.Name, f.Size)
		}
		seen[f.Name] = true
		s.Manifest.Files = append(s.Manifest.Files, f)
	}
	if d.err != nil || len(d.b) > 0 {
		return s, dsdb.Errorf(dsdb.KindCorrupt, "snapshot: the list of files is cut or too long")
	}
	m, err := raftnode.DecodeMessage(raw)
	if err != nil {
		return s, fmt.Errorf("snapshot: %w", err)
	}
	s.Envelope.Message = m
	return s, nil
}

// plain reports whether a name names a file in a folder, and nothing elsewhere.
func plain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c == '/' || c == '\\' || c < ' ' {
			return false
		}
	}
	return name != "" && name != "." && name != ".."
}
