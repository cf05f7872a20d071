package server

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/shard"
)

// survey finds out what is lost. It changes the catalogue in memory only.
func (p *lossPlan) survey() error {
	n := p.n
	if n.unbegun() {
		return dsdb.Errorf(dsdb.KindConflict, "this node's copy of the catalogue is still to come from the other nodes: start dsdbd")
	}
	bad, _, err := n.suspected(dsdb.MetaGroup, n.id.Replica, n.catalogueDir())
	if err != nil {
		return err
	}
	prefix, err := raftnode.PrefixOf(n.wal, dsdb.MetaGroup, n.meta.FlushedIndex())
	if err != nil {
		return fmt.Errorf("catalogue: %w: move %s away and have dsdbd recover make it anew from what %s knows of it, and then this again", err, n.cfg.Meta.Dir, n.cfg.Data.Dir)
	}
	state, known := n.wal.State(dsdb.MetaGroup)
	lone, upTo := n.loneCatalogue(), state.HardState.Commit
	if lone == nil {
		upTo = prefix.Last
	}
	if lone == nil || !bad {
		if err := raftnode.Replay(n.wal, dsdb.MetaGroup, n.meta, upTo); err != nil {
			return err
		}
	}
	bad = bad || prefix.Short || !known && (n.id.Begun || n.id.Replica != founder)
	if lone == nil {
		if err := p.surveyUnknown(); err != nil {
			return err
		}
		if bad || len(p.loss.Apart) > 0 {
			p.loss.Catalogue = &prefix
		}
	} else if bad {
		p.loss.Left = append(p.loss.Left, fmt.Sprintf("the catalogue (%v): start dsdbd, and it comes from the other nodes", lone))
	}
	return p.surveyShards()
}

// loneCatalogue reports why this node's replica of the catalogue is not known to be
// the only one; nil if it is.
func (n *Node) loneCatalogue() error {
	if err := raftnode.OnlyVoter(n.wal, dsdb.MetaGroup, n.id.Replica); err != nil {
		return err
	}
	view := n.meta.View()
	for _, r := range view.MetaReplicas {
		if r.ID != n.id.Replica {
			return dsdb.Errorf(dsdb.KindConflict, "%s has a copy of it", nodeName(view, r.Node))
		}
	}
	return nil
}

// surveyUnknown finds the shards that the catalogue does not know yet.
func (p *lossPlan) surveyUnknown() error {
	n, view := p.n, p.n.meta.View()
	names, err := n.fs.List(n.shards.root())
	if err != nil {
		return err
	}
	for _, name := range names {
		if id, _, ok := parseFolder(name); ok {
			p.shard = max(p.shard, id)
			if id > view.Counters.Shard {
				p.loss.Apart = append(p.loss.Apart, ApartShard{id, p.apartFolder(name)})
			}
		}
	}
	for _, g := range n.wal.Groups() {
		id := dsdb.ShardID(g)
		found := slices.ContainsFunc(p.loss.Apart, func(a ApartShard) bool { return a.ID == id })
		if g != dsdb.MetaGroup && id > view.Counters.Shard && !found {
			p.loss.Apart = append(p.loss.Apart, ApartShard{id, p.apartFolder(strconv.FormatUint(uint64(id), 10))})
		}
	}
	return nil
}

// filesLost says what helps a shard whose log is whole and begins behind its files.
func filesLost(id dsdb.ShardID) string {
	return fmt.Sprintf("put its folder back from a copy, or give its points up by DROP SHARD %d", id)
}

// lostFolder, in the folder of the points, is where shards are put that belong to
// nobody any more.
const lostFolder = "lost"

func (p *lossPlan) apartFolder(name string) string {
	return path.Join(p.n.cfg.Data.Dir, lostFolder, name)
}

// surveyShards finds the shards that the log may have lost entries of.
func (p *lossPlan) surveyShards() error {
	n, view := p.n, p.n.meta.View()
	for _, g := range view.Groups() {
		for _, sh := range g.Group.Shards {
			r, placed := sh.On(n.dataID)
			if !placed || r.Witness {
				continue
			}
			s := resumedShard{meta.ShardRef{GroupRef: g, Shard: sh}, r.ID, n.shards.dir(sh, r.ID)}
			if err := p.surveyShard(s); err != nil {
				p.loss.Left = append(p.loss.Left, fmt.Sprintf("shard %d: %v", sh.ID, err))
			}
		}
	}
	return nil
}

// surveyShard adds a shard to the plan if it is damaged. The error says why nothing
// is to be done about it.
func (p *lossPlan) surveyShard(s resumedShard) error {
	n, g := p.n, s.Shard.ID.Group()
	bad, _, err := n.suspected(g, s.replica, s.dir)
	if err != nil {
		return err
	}
	flushed, err := shard.FlushedIndexIn(n.fs, s.dir)
	if err != nil {
		return err
	}
	prefix, lost := raftnode.PrefixOf(n.wal, g, flushed)
	if lost == nil && !bad && !prefix.Short {
		return nil
	}
	for _, r := range s.Shard.Replicas {
		if r.ID != s.replica {
			return fmt.Errorf("%s has a copy of it, from which this one is made anew", nodeName(n.meta.View(), r.Node))
		}
	}
	if lost != nil {
		return fmt.Errorf("%w; %s", lost, filesLost(s.Shard.ID))
	}
	if err := raftnode.OnlyVoter(n.wal, g, s.replica); err != nil {
		return err
	}
	if s.replica <= n.wal.Removed(g) {
		return errors.New("it was dropped, by a change of the catalogue that is lost: drop it again")
	}
	p.resume = append(p.resume, s)
	p.loss.Shards = append(p.loss.Shards, ShardLoss{s.Shard.ID, s.Database.Name, s.Policy.Name, s.Group.Range, prefix})
	return nil
}
