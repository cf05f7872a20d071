package server

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/raftnode"
	"github.com/dasudian/dsdb/wal"
)

// Loss is what a node has to go on without, since its log is damaged, or a folder of it
// is gone, and nobody else has what was in it.
type Loss struct {
	Points    string // the folder of the points, if that is gone
	Log       string // the folder of the log, if that is gone
	Damage    []wal.Range
	Catalogue *raftnode.Prefix // nil: it is whole, or comes from other nodes
	Shards    []ShardLoss
	Apart     []ApartShard
	Left      []string // what stays out of service, and why
}

// ShardLoss is a shard of which this node has the only copy.
type ShardLoss struct {
	ID               dsdb.ShardID
	Database, Policy string
	Range            dsdb.TimeRange
	raftnode.Prefix
}

// ApartShard is a shard of which the catalogue, as it goes on, knows nothing: nobody
// can tell whose points it holds.
type ApartShard struct {
	ID     dsdb.ShardID
	Folder string // where its files are put
}

// Any reports whether there is something that the node goes on without.
func (l *Loss) Any() bool {
	return l.Points+l.Log != "" || l.Catalogue != nil || len(l.Shards)+len(l.Apart) > 0
}

// Lines tells it, a line for each thing.
func (l *Loss) Lines() []string {
	var out []string
	if l.Points != "" {
		out = append(out, fmt.Sprintf("the folder of the points, %s, is gone: copies come from the other nodes, as far as these have some", l.Points))
	}
	if l.Log != "" {
		out = append(out, fmt.Sprintf("the log in %s is gone: what was not flushed into files is lost", l.Log))
	}
	for _, r := range l.Damage {
		out = append(out, "damage: "+r.String())
	}
	if l.Catalogue != nil {
		out = append(out, "the catalogue (databases, policies, users, time groups): "+prefixText(*l.Catalogue))
	}
	for _, s := range l.Shards {
		out = append(out, fmt.Sprintf("shard %d (database %q, policy %q, %s): %s", s.ID, s.Database, s.Policy, rangeText(s.Range), prefixText(s.Prefix)))
	}
	for _, a := range l.Apart {
		out = append(out, fmt.Sprintf("shard %d: the catalogue has lost whose it is; its points are put into %s, where dsdbd inspect segment reads them", a.ID, a.Folder))
	}
	for _, text := range l.Left {
		out = append(out, "left as it is: "+text)
	}
	return out
}

// prefixText says how far a group goes on, and what is lost of it.
func prefixText(p raftnode.Prefix) string {
	if p.Done {
		return "was brought to where it goes on before"
	}
	text := fmt.Sprintf("goes on from entry %d", p.Last)
	switch {
	case p.Known == p.Last+1:
		text += fmt.Sprintf("; entry %d is lost", p.Known)
	case p.Known > p.Last:
		text += fmt.Sprintf("; entries %d to %d are lost", p.Last+1, p.Known)
		if p.Given > 0 {
			text += fmt.Sprintf(", %d of them given up since they follow on missing ones", p.Given)
		}
	case p.Ends:
		return text + "; nothing is lost"
	}
	if !p.Ends {
		text += "; later ones may have been lost, too"
	}
	return text
}

// rangeText is a range of times for people.
func rangeText(r dsdb.TimeRange) string {
	at := func(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339) }
	return at(r.Start) + " to " + at(r.End)
}

// acceptedLoss, in the folder of the log, is the record of what the node went on
// without. It is for people: whoever has taken note of it may move it away.
const acceptedLoss = "ACCEPTED-LOSS"

// record adds to that file, durably.
func (n *Node) record(text string) error {
	name := path.Join(n.cfg.Data.WALDir, acceptedLoss)
	b, err := vfs.ReadFile(n.fs, name)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return vfs.WriteFileAtomic(n.fs, name, append(b, text...))
}

// lossAccepted ends each entry of the record.
const lossAccepted = "  done: the node can be started\n"

// endRecord ends the last entry of the record, if that is still to be done.
func (n *Node) endRecord() error {
	b, err := vfs.ReadFile(n.fs, path.Join(n.cfg.Data.WALDir, acceptedLoss))
	if errors.Is(err, iofs.ErrNotExist) || err == nil && strings.HasSuffix(string(b), lossAccepted) {
		return nil
	}
	return errors.Join(err, n.record(lossAccepted))
}

// warnOfLoss says at each start what the node goes on without, as long as the record
// of it is there.
func (n *Node) warnOfLoss() {
	name := path.Join(n.cfg.Data.WALDir, acceptedLoss)
	b, err := vfs.ReadFile(n.fs, name)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
	case err != nil:
		n.log.Error("the record of accepted losses cannot be read", "file", name, "err", err)
	default:
		n.log.Warn("THIS NODE GOES ON WITHOUT WHAT WAS LOST WITH A PART OF ITS LOG, as an operator has accepted. To be told no more, move the record away", "file", name, "record", string(b))
	}
}

// block is the entry of a loss in the record.
func (l *Loss) block(o LossOptions, id meta.Identity) string {
	return fmt.Sprintf("%s dsdbd %s recover -accept-loss, node %s\n  %s\n",
		o.Now.UTC().Format(time.RFC3339), o.Version, id.UUID, strings.Join(l.Lines(), "\n  "))
}
