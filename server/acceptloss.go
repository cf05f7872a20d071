package server

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"math"
	"path"
	"strconv"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/shard"
	"github.com/dasudian/dsdb/wal"
)

// A node whose log is damaged may be the only one that had what was in it. Then
// there is nobody to get it from, and an operator may have the node go on without:
// each group of which its replica is the only voter goes on from its files and
// those entries that follow on them without a gap. This is done in steps, each of
// which may be the last before a crash; until the log is written the groups stay
// out of service, and the same call goes on:
//
//  1. What is going to happen is written into the record.
//  2. The shards apply what is whole, and flush it.
//  3. Shards that the catalogue will not know are put apart, before their ids could
//     be taken for those of dropped ones.
//  4. The catalogue applies what is whole, and flushes it.
//  5. The log is told where the groups go on, of all of them at once.
//  6. The folder of the points, if it was lost, says again whose it is.

// LossOptions are how a loss is to be accepted.
type LossOptions struct {
	Accept  bool // else only what would happen is found out, and nothing is changed
	Now     time.Time
	Version string
}

// AcceptLoss has a node that does not run go on without what it alone had and is
// lost with its log, and returns what that is. Groups that have other voters are
// left as they are: they get it from those.
func AcceptLoss(ctx context.Context, cfg config.Config, fs vfs.FS, o LossOptions) (l *Loss, err error) {
	n := &Node{cfg: cfg, fs: fs, log: slog.New(slog.DiscardHandler), logSyncs: newLogSyncs()}
	n.shards = newShards(n)
	defer func() { err = errors.Join(err, n.undo()) }()
	if err := n.lockFolders(); err != nil {
		return nil, err
	}
	p := &lossPlan{n: n}
	n.id, err = n.identity()
	if errors.Is(err, errPointsLost) && o.Accept {
		p.loss.Points, err = cfg.Data.Dir, nil
	}
	if err != nil {
		return nil, err
	}
	if n.dataID = n.id.DataID; n.id.ClusterID == 0 {
		return nil, fmt.Errorf("%s is not that of a node that has started before", cfg.Meta.Dir)
	}
	if n.logGone(n.id) {
		if !n.lastOne(n.id) {
			return nil, n.lostLog(n.id)
		}
		p.loss.Log = cfg.Data.WALDir
	}
	open := n.readLog
	if o.Accept {
		open = n.openLog
	}
	if err := open(n.id); err != nil {
		return nil, err
	}
	if n.meta, err = meta.Open(fs, n.catalogueDir()); err != nil {
		return nil, fmt.Errorf("%w; %s, and then this again", err, n.wayOut())
	}
	p.loss.Damage = n.damage.lost
	if err := p.survey(); err != nil {
		return nil, err
	}
	switch {
	case o.Accept && p.loss.Any():
		err = p.carryOut(ctx, o)
	case o.Accept:
		err = n.endRecord() // of one that a crash cut short at the very end
	}
	return &p.loss, err
}

// lossPlan is what AcceptLoss does.
type lossPlan struct {
	n      *Node
	loss   Loss
	resume []resumedShard
	shard  dsdb.ShardID // the highest id of a folder
	write  []wal.Update // what the log is to be told
}

// resumedShard is a shard that is to go on.
type resumedShard struct {
	meta.ShardRef
	replica dsdb.ReplicaID
	dir     string
}

// carryOut does what was found to be done.
func (p *lossPlan) carryOut(ctx context.Context, o LossOptions) error {
	n := p.n
	if p.loss.Catalogue != nil {
		if err := n.nobodyElse(ctx); err != nil {
			return err
		}
	}
	if err := n.record(p.loss.block(o, n.id)); err != nil {
		return err
	}
	for _, s := range p.resume {
		if err := p.resumeShard(s); err != nil {
			return fmt.Errorf("shard %d: %w", s.Shard.ID, err)
		}
	}
	for _, a := range p.loss.Apart {
		if err := p.putApart(a); err != nil {
			return fmt.Errorf("shard %d: %w", a.ID, err)
		}
	}
	if p.loss.Catalogue != nil {
		if err := p.resumeCatalogue(); err != nil {
			return fmt.Errorf("catalogue: %w", err)
		}
	}
	if err := n.wal.Write(p.write, true); err != nil {
		return err
	}
	if err := p.unmark(); err != nil {
		return err
	}
	if p.loss.Points != "" { // its shards come from others, or stay out of service
		if err := meta.WriteIdentity(n.fs, p.loss.Points, n.id); err != nil {
			return err
		}
	}
	return n.endRecord()
}

// nobodyElse reports an error if another node of the cluster answers where one was.
func (n *Node) nobodyElse(ctx context.Context) error {
	list, err := n.others()
	if err != nil {
		return err
	}
	n.door = &door{n: n}
	if _, _, err := n.door.certificates(); err != nil {
		return err
	}
	c := newPeerClient(n.door.outgoing)
	defer c.CloseIdleConnections()
	for _, address := range list {
		s, err := c.status(ctx, address, starter{})
		if err == nil && s.UUID != n.id.UUID && s.Cluster == strconv.FormatUint(n.id.ClusterID, 10) {
			return dsdb.Errorf(dsdb.KindConflict, "another node of the cluster answers at %s, and has the catalogue: start dsdbd, and it comes from there", address)
		}
	}
	return nil
}

// resumeShard has a shard take up what is whole.
func (p *lossPlan) resumeShard(s resumedShard) error {
	n, g := p.n, s.Shard.ID.Group()
	sh, err := shard.Open(shard.Options{FS: n.fs, Dir: s.dir, ID: s.Shard.ID, Range: s.Group.Range, Logger: n.log})
	if err != nil {
		return err
	}
	end, _, err := raftnode.Resume(n.wal, g, sh, nil, func() error { _, err := sh.Flush(); return err })
	p.write = append(p.write, raftnode.Resumed(n.wal, g, raftnode.Peer{Replica: s.replica, Node: n.dataID}, end))
	return errors.Join(err, sh.Close())
}

// putApart has a shard that belongs to nobody take up what is whole, and moves its
// folder to where no node looks for it.
func (p *lossPlan) putApart(a ApartShard) error {
	n, g := p.n, a.ID.Group()
	if _, known := n.wal.State(g); known {
		p.write = append(p.write, wal.Update{Group: g, Remove: true})
	}
	from := path.Join(n.shards.root(), path.Base(a.Folder))
	if _, err := n.fs.Stat(a.Folder); err == nil {
		if _, err := n.fs.Stat(from); errors.Is(err, iofs.ErrNotExist) {
			return nil // a crash came in between
		}
	}
	err := p.fill(a.ID, from)
	if _, damaged := unfit(err); err != nil && !damaged { // files that are damaged are put apart as they are
		return err
	}
	if err := n.fs.MkdirAll(path.Dir(a.Folder)); err != nil {
		return err
	}
	if err := n.fs.Rename(from, a.Folder); err != nil {
		return err
	}
	return errors.Join(n.fs.SyncDir(path.Dir(a.Folder)), n.fs.SyncDir(n.shards.root()))
}

// fill flushes into a folder what the log has of a shard.
func (p *lossPlan) fill(id dsdb.ShardID, dir string) error {
	sh, err := shard.Open(shard.Options{FS: p.n.fs, Dir: dir, ID: id, Range: dsdb.AllTime, Logger: p.n.log})
	if err != nil {
		return err
	}
	if err = raftnode.Replay(p.n.wal, id.Group(), sh, math.MaxUint64); err == nil {
		_, err = sh.Flush()
	}
	return errors.Join(err, sh.Close())
}

// resumeCatalogue has the catalogue take up what is whole, and what the shards tell
// of the rest.
func (p *lossPlan) resumeCatalogue() error {
	n := p.n
	fields, err := p.unknownFields()
	if err != nil {
		return err
	}
	if n.meta, err = meta.Open(n.fs, n.catalogueDir()); err != nil { // as it was before the survey
		return err
	}
	g, replica := n.wal.Highest()
	c := &meta.ResumeCatalogue{Shard: max(p.shard, dsdb.ShardID(g)), Replica: replica, Fields: fields}
	end, v, err := raftnode.Resume(n.wal, dsdb.MetaGroup, n.meta, meta.Encode(dsdb.ProposalID{}, c), n.meta.Flush)
	if err = errors.Join(err, v.Err()); err != nil {
		return err
	}
	p.write = append(p.write, raftnode.Resumed(n.wal, dsdb.MetaGroup, raftnode.Peer{Replica: n.id.Replica, Node: n.id.Peer()}, end))
	return n.meta.WriteCopy(n.cfg.Data.Dir)
}

// unknownFields returns the fields that shards here hold and the catalogue does not
// know: their points could not be queried.
func (p *lossPlan) unknownFields() (out []meta.RegisterFields, err error) {
	for _, g := range p.n.meta.View().Groups() {
		var sets []meta.NewFields
		for _, sh := range g.Group.Shards {
			if r, placed := sh.On(p.n.dataID); placed && !r.Witness {
				more, err := p.fieldsOf(meta.ShardRef{GroupRef: g, Shard: sh}, p.n.shards.dir(sh, r.ID))
				if _, damaged := unfit(err); err != nil && !damaged {
					return nil, fmt.Errorf("fields of shard %d: %w", sh.ID, err)
				}
				sets = append(sets, more...)
			}
		}
		if len(sets) > 0 {
			out = append(out, meta.RegisterFields{Database: g.Database.Name, Policy: g.Policy.Name, Sets: sets})
		}
	}
	return out, nil
}

// fieldsOf is unknownFields for one shard.
func (p *lossPlan) fieldsOf(ref meta.ShardRef, dir string) (out []meta.NewFields, err error) {
	sh, err := shard.Open(shard.Options{FS: p.n.fs, Dir: dir, ID: ref.Shard.ID, Range: ref.Group.Range, Logger: p.n.log})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sh.Close()) }()
	if err := raftnode.Replay(p.n.wal, ref.Shard.ID.Group(), sh, math.MaxUint64); err != nil {
		return nil, err
	}
	src, err := sh.Source()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	names, err := src.Measurements(context.Background())
	for _, name := range names {
		known := ref.Group.Fields(name)
		set := meta.NewFields{Measurement: name, Times: []int64{ref.Group.Range.Start}}
		fields, types := src.Fields(name)
		for i, field := range fields {
			if known.Type(field) == dsdb.NoType {
				set.Fields = append(set.Fields, meta.Field{Name: field, Type: types[i]})
			}
		}
		if len(set.Fields) > 0 {
			out = append(out, set)
		}
	}
	return out, err
}

// unmark removes the files that keep what goes on out of service.
func (p *lossPlan) unmark() error {
	var dirs []string
	if p.loss.Catalogue != nil {
		dirs = append(dirs, p.n.catalogueDir())
	}
	for _, s := range p.resume {
		dirs = append(dirs, s.dir)
	}
	for _, dir := range dirs {
		err := p.n.fs.Remove(path.Join(dir, quarantineFile))
		if err == nil {
			err = p.n.fs.SyncDir(dir)
		}
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
	}
	return nil
}
