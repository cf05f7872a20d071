package rpc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/raftnode"
)

// incomingPrefix begins the names of the folders for arriving snapshots.
const incomingPrefix = "incoming-"

// Sweep removes from dir what arriving snapshots left there when the process
// ended. No snapshot may be arriving. It is no error if there is no dir.
func Sweep(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if err == nil && strings.HasPrefix(name, incomingPrefix) {
			err = fsys.RemoveAll(path.Join(dir, name))
		}
	}
	if err != nil {
		return fmt.Errorf("sweep of arrived snapshots: %w", err)
	}
	return nil
}

// receive is the handler of arriving snapshots. What it returns is what the
// sender is told.
func (p *Peers) receive(ctx context.Context, from Process, s *Stream) error {
	s.within(stallTime, stallTime)
	err := p.takeSnapshot(ctx, &from, s)
	if err != nil {
		p.metrics.SnapshotsFailed.Add(1)
		p.opt.Logger.Warn("arriving snapshot failed", "peer", from.UUID, "error", err)
		return err
	}
	p.metrics.Received.Snapshots.Add(1)
	return nil
}

func (p *Peers) takeSnapshot(ctx context.Context, from *Process, s *Stream) error {
	b, err := s.Recv()
	if err != nil {
		return answered(err)
	}
	snap, err := decodeSnapshotHeader(b)
	if err != nil {
		return err
	}
	turn, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	if !enter(turn, p.snapshots.in) {
		return dsdb.Errorf(dsdb.KindUnavailable, "%d other snapshots are arriving", maxTransfers)
	}
	defer func() { <-p.snapshots.in }()
	raft := p.raft()
	if raft == nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "the node is starting")
	}
	fsys, parent, err := p.opt.Incoming(snap.Envelope.Group)
	if err != nil {
		return err
	}
	dir := path.Join(parent, incomingPrefix+rand.Text())
	defer func() { _ = fsys.RemoveAll(dir) }() // or Sweep does at the next start
	if err := prepare(fsys, dir, snap.Manifest.Files); err != nil {
		return err
	}
	if err := s.Send(nil); err != nil {
		return err
	}
	if err := p.receiveFiles(s, fsys, dir, snap.Manifest.Files); err != nil {
		return fmt.Errorf("group %d: %w", snap.Envelope.Group, err)
	}
	return raft.Install(ctx, from.sender(snap.Envelope.Group), snap, dir)
}

// prepare makes the folder for the files of a manifest if there is room for them.
func prepare(fsys vfs.FS, dir string, files []dsdb.ManifestFile) error {
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	free, _, err := fsys.Free(dir)
	if err != nil {
		return err
	}
	need := uint64(0)
	for _, f := range files {
		if need += uint64(f.Size); need > free {
			return dsdb.Errorf(dsdb.KindUnavailable, "snapshot of more than %d bytes: %d are free", need, free)
		}
	}
	return nil
}

// receiveFiles writes the files of a manifest, as they arrive, into dir and
// makes them durable. It returns after the sender's end.
func (p *Peers) receiveFiles(s *Stream, fsys vfs.FS, dir string, files []dsdb.ManifestFile) error {
	for i := range files {
		f, err := fsys.Create(path.Join(dir, files[i].Name))
		if err != nil {
			return err
		}
		err = p.receiveFile(s, f, i, &files[i])
		if err = firstError(err, f.Close()); err != nil {
			return fmt.Errorf("file %s: %w", files[i].Name, err)
		}
	}
	if _, err := s.Recv(); err != io.EOF {
		return firstError(err, dsdb.Errorf(dsdb.KindCorrupt, "more follows the last file"))
	}
	return fsys.SyncDir(dir)
}

// receiveFile writes one file and compares it with what the manifest says of it.
func (p *Peers) receiveFile(s *Stream, f vfs.File, number int, want *dsdb.ManifestFile) error {
	sum := uint32(0)
	for off := int64(0); off < want.Size; {
		b, err := s.Recv()
		if err != nil {
			return answered(err)
		}
		if len(b) <= chunkHeaderSize || binary.LittleEndian.Uint32(b) != uint32(number) ||
			binary.LittleEndian.Uint64(b[4:]) != uint64(off) || int64(len(b)-chunkHeaderSize) > want.Size-off {
			return dsdb.Errorf(dsdb.KindCorrupt, "chunk of %d bytes out of place at %d", len(b), off)
		}
		b = b[chunkHeaderSize:]
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
		p.metrics.Received.SnapshotBytes.Add(uint64(len(b)))
		sum = crc32.Update(sum, castagnoli, b)
		off += int64(len(b))
	}
	if sum != want.CRC && !mutant.SnapshotUnchecked {
		return dsdb.Errorf(dsdb.KindCorrupt, "checksum %08x, the manifest says %08x", sum, want.CRC)
	}
	if mutant.SnapshotWithoutSync {
		return nil
	}
	return f.SyncData()
}

var _ raftnode.Transport = (*Peers)(nil)
