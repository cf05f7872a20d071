package sim

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// incomingDir is where the files of snapshots arrive; what a crash leaves there
// is removed at the next start.
const incomingDir = "incoming"

// errShip is why a snapshot did not arrive.
var errShip = errors.New("the connection is gone")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// shipment is a snapshot on its way: as the transport does in production, it
// brings the files piece by piece to a folder of the receiver, checks their sums,
// syncs them, has the receiver's core install them, and tells the sender's core.
type shipment struct {
	task     raftnode.SendTask
	from, to *process
	source   string // folders
	dir      string
	message  []byte        // the encoded message of the envelope
	piece    int           // bytes that travel at once
	pace     time.Duration // between pieces, at most
	file     int           // that travels
	sent     int64         // bytes of it
	waits    int           // for the network, in a row
	watch    *watch        // of the receiver
}

// ship sends a snapshot.
func (p *process) ship(t raftnode.SendTask) {
	c := p.node.cluster
	e := t.Snapshot.Envelope
	to := c.node(t.Node)
	c.count("snapshots sent")
	c.Note("snapshot", uint64(p.node.Index), uint64(t.Node), uint64(e.Group), t.Snapshot.Manifest.Index)
	s := &shipment{task: t, from: p, source: c.options.Dir(e.Group, e.From),
		dir:     path.Join(incomingDir, fmt.Sprintf("%d-%d", e.Group, c.Rand.Uint64())),
		message: raftnode.AppendMessage(nil, e.Message),
		piece:   1024 + c.Rand.IntN(8192), pace: c.Between(time.Millisecond, 80*time.Millisecond)}
	if to == nil || to.run == nil {
		s.end(errShip)
		return
	}
	s.to = to.run
	s.watch = s.to.watch(func() { s.end(errShip) })
	c.shipments = append(c.shipments, s)
	c.ship(p.node, t)
	s.next(s.begin)
}

// next lets f go on in the receiver after a while, if both sides are still there.
func (s *shipment) next(f func() error) {
	from, to, c := s.from.node, s.to.node, s.from.node.cluster
	c.After(c.Between(0, s.pace), func() {
		switch {
		case from.run != s.from: // nobody is to be told
			s.fail(errShip)
		case to.run != s.to: // the sender knows
		case from.pausing || c.network.cut[[2]int{from.Index, to.Index}] || c.network.cut[[2]int{to.Index, from.Index}]:
			if s.waits++; s.waits > 20 {
				s.fail(errShip)
				return
			}
			s.next(f)
		default:
			s.waits = 0
			to.do(s.to, func() {
				if err := f(); err != nil {
					s.fail(err)
				}
			})
		}
	})
}

// arrived is how many percent of the bytes have arrived.
func (s *shipment) arrived() int64 {
	var sum, have int64
	for i, f := range s.task.Snapshot.Manifest.Files {
		if sum += f.Size; i < s.file {
			have += f.Size
		}
	}
	return (have + s.sent) * 100 / max(1, sum)
}

// begin makes the folder.
func (s *shipment) begin() error {
	if err := s.to.node.disk.MkdirAll(s.dir); err != nil {
		return err
	}
	for _, f := range s.task.Snapshot.Manifest.Files {
		file, err := s.to.node.disk.Create(path.Join(s.dir, f.Name))
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			return err
		}
	}
	s.next(s.bring)
	return nil
}

// bring copies the next piece.
func (s *shipment) bring() error {
	files := s.task.Snapshot.Manifest.Files
	if s.file == len(files) {
		if err := s.to.node.disk.SyncDir(s.dir); err != nil {
			return err
		}
		s.next(s.install)
		return nil
	}
	f := files[s.file]
	n := min(int64(s.piece), f.Size-s.sent)
	err := copyPiece(s.from.node.disk, path.Join(s.source, f.Name), s.to.node.disk, path.Join(s.dir, f.Name), s.sent, n)
	if err != nil {
		return err
	}
	if s.sent += n; s.sent == f.Size {
		if err := s.verify(f); err != nil {
			return err
		}
		s.file, s.sent = s.file+1, 0
	}
	s.next(s.bring)
	return nil
}

// copyPiece copies n bytes at off from one disk to another.
func copyPiece(from vfs.FS, source string, to vfs.FS, target string, off, n int64) error {
	b := make([]byte, n)
	src, err := from.Open(source)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.ReadAt(b, off); err != nil {
		return err
	}
	dst, err := to.OpenReadWrite(target)
	if err != nil {
		return err
	}
	defer dst.Close()
	_, err = dst.WriteAt(b, off)
	return err
}

// verify checks and syncs a file that is there.
func (s *shipment) verify(f dsdb.ManifestFile) error {
	name := path.Join(s.dir, f.Name)
	file, err := s.to.node.disk.OpenReadWrite(name)
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, f.Size)
	if _, err := file.ReadAt(b, 0); err != nil {
		return err
	}
	if crc32.Checksum(b, castagnoli) != f.CRC {
		return s.from.node.cluster.torn(s.from.node, name)
	}
	return file.SyncData()
}

// install gives the snapshot to the receiver's core, as the bytes that arrived.
func (s *shipment) install() error {
	m, err := raftnode.DecodeMessage(bytes.Clone(s.message))
	if err != nil {
		s.from.node.cluster.fail("the message of a snapshot cannot be decoded: %v", err)
	}
	snapshot := s.task.Snapshot
	snapshot.Envelope.Message = m
	s.to.core.Install(raftnode.Sender{Node: s.from.node.name(snapshot.Envelope.Group)}, snapshot, s.dir, waiter(func(_ dsdb.Verdict, err error) {
		if err != nil {
			s.to.uninstalled(snapshot.Envelope.Group)
		}
		s.to.node.do(s.to, func() {
			s.clean()
			s.end(err)
		})
	}))
	s.to.wake()
	s.to.node.cluster.put(s.to.node)
	return nil
}

func (s *shipment) fail(err error) {
	s.clean()
	s.end(err)
}

// clean removes what has arrived.
func (s *shipment) clean() {
	if s.to.node.run == s.to {
		_ = s.to.node.disk.RemoveAll(s.dir) // the next start does it otherwise
	}
}

// end tells the sender, if it is still there.
func (s *shipment) end(err error) {
	c := s.from.node.cluster
	if s.watch != nil {
		s.watch.off = true
	}
	c.shipments = slices.DeleteFunc(c.shipments, func(o *shipment) bool { return o == s })
	if err != nil {
		c.count("snapshots that did not arrive")
	}
	c.After(c.network.latency(), func() {
		s.from.node.do(s.from, func() {
			s.from.core.SnapshotSent(s.task, err)
			s.from.wake()
		})
	})
}
