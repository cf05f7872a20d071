package meta

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dasudian/dsdb/internal/vfs"
)

// Inspect prints what the snapshot file at path holds, for people to read.
func Inspect(fs vfs.FS, path string, w io.Writer) error {
	b, err := vfs.ReadFile(fs, path)
	if err != nil {
		return fmt.Errorf("meta: inspect: %w", err)
	}
	d, err := DecodeSnapshot(path, b)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "catalogue %s: %d bytes, cluster %d, as of entry %d of term %d\n", path, len(b), d.ClusterID, d.Index, d.Term)
	fmt.Fprintf(out, "last ids: node %d, database %d, shard group %d, shard %d, replica %d\n",
		d.Counters.Node, d.Counters.Database, d.Counters.ShardGroup, d.Counters.Shard, d.Counters.Replica)
	d.inspectProcesses(out)
	d.inspectDatabases(out)
	return out.Flush()
}

func (d *Data) inspectProcesses(w io.Writer) {
	for i := range d.Processes {
		p := &d.Processes[i]
		fmt.Fprintf(w, "process %s:", p.UUID)
		for _, kind := range kinds {
			if id, state := p.role(kind); id != 0 {
				fmt.Fprintf(w, " %s node %d (%s)", kind, id, state)
			}
		}
		fmt.Fprintf(w, ", http %s, meta %s, tcp %s, start %d\n", p.HTTPAddr, p.MetaHTTPAddr, p.TCPAddr, p.Epoch)
	}
	fmt.Fprintf(w, "replicas of the catalogue:%s\n", inspectReplicas(d.MetaReplicas))
	for _, u := range d.Users {
		fmt.Fprintf(w, "user %q", u.Name)
		if u.Admin {
			fmt.Fprint(w, ", admin")
		}
		for _, g := range u.Privileges {
			fmt.Fprintf(w, ", %s on %q", g.Privilege, g.Database)
		}
		fmt.Fprintln(w)
	}
}

// inspectReplicas lists replicas as id@node, with the role of those that are not voters.
func inspectReplicas(replicas []Replica) string {
	var b strings.Builder
	for _, r := range replicas {
		fmt.Fprintf(&b, " %d@%d", r.ID, r.Node)
		if r.Role != Voter {
			fmt.Fprintf(&b, " (%s)", r.Role)
		}
	}
	return b.String()
}

func (d *Data) inspectDatabases(w io.Writer) {
	at := func(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339Nano) }
	for _, db := range d.DatabasesByAge() {
		fmt.Fprintf(w, "database %q, default policy %q\n", db.Name, db.DefaultPolicy)
		for _, rp := range db.Policies {
			fmt.Fprintf(w, "  policy %q: %d replicas, duration %s, shard duration %s, %d deleted time groups\n",
				rp.Name, rp.ReplicaN, rp.Duration, rp.ShardGroupDuration, len(rp.Deleted))
			for _, g := range rp.ShardGroups {
				fmt.Fprintf(w, "    time group %d from %s to %s\n", g.ID, at(g.Range.Start), at(g.Range.End))
				for i := range g.Shards {
					fmt.Fprintf(w, "      shard %d:%s\n", g.Shards[i].ID, inspectReplicas(g.Shards[i].Replicas))
				}
				for _, m := range g.Measurements() {
					fmt.Fprintf(w, "      measurement %q:", m)
					for _, f := range g.Fields(m) {
						fmt.Fprintf(w, " %s %s", f.Name, f.Type)
					}
					fmt.Fprintln(w)
				}
			}
		}
	}
}

// WithoutHashes returns the catalogue without the hashes of passwords, with which
// whoever reads it could guess at them.
func (d *Data) WithoutHashes() *Data {
	out := *d
	out.Users = make([]*User, len(d.Users))
	for i, u := range d.Users {
		bare := *u
		bare.Hash = ""
		out.Users[i] = &bare
	}
	return &out
}
