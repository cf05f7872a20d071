package meta

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/dasudian/dsdb"
)

// TestScripts runs the scripts in testdata. A command of the catalogue is
// applied and answers "ok" or the refusal; `show` prints what there is.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") || strings.Contains(path, "controller") {
			return // a corpus, and scripts of TestControllerScripts
		}
		d := NewData()
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			s := script{t, td}
			if c := s.command(); c != nil {
				next, verdict := d.Apply(Encode(dsdb.ProposalID{}, c))
				d = next
				if err := verdict.Err(); err != nil {
					return "error: " + err.Error() + "\n"
				}
				return strings.TrimSpace("ok "+string(verdict.Value)) + "\n"
			}
			return s.read(d)
		})
	})
}

type script struct {
	t  *testing.T
	td *datadriven.TestData
}

func (s script) str(key string) string {
	for _, a := range s.td.CmdArgs {
		if a.Key == key && len(a.Vals) == 1 {
			return a.Vals[0]
		}
	}
	return ""
}

func (s script) has(key string) bool { return s.td.HasArg(key) }

func (s script) number(key string) uint64 {
	n, err := strconv.ParseUint(s.str(key), 10, 64)
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.td.Pos, key, err)
	}
	return n
}

// optional is number, 0 if the key is not there.
func (s script) optional(key string) uint64 {
	if !s.has(key) {
		return 0
	}
	return s.number(key)
}

// numbers reads a list like 3+5; none if the key is not there.
func numbers[T ~uint64](s script, key string) (list []T) {
	for _, v := range strings.FieldsFunc(s.str(key), func(r rune) bool { return r == '+' }) {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			s.t.Fatalf("%s: %s: %v", s.td.Pos, key, err)
		}
		list = append(list, T(n))
	}
	return list
}

// duration parses 1h, or 7d, which Go does not know.
func (s script) duration(key string) *time.Duration {
	if !s.has(key) {
		return nil
	}
	text, unit := s.str(key), time.Duration(1)
	if days, found := strings.CutSuffix(text, "d"); found {
		text, unit = days+"h", 24
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.td.Pos, key, err)
	}
	d *= unit
	return &d
}

func (s script) replicas() *int {
	if !s.has("replicas") {
		return nil
	}
	n, err := strconv.Atoi(s.str("replicas"))
	if err != nil {
		s.t.Fatalf("%s: %v", s.td.Pos, err)
	}
	return &n
}

// times parses dates, moments like 2016-01-04T12:00:00Z, and min and max.
func (s script) times(key string) []int64 {
	var times []int64
	for _, a := range s.td.CmdArgs {
		if a.Key != key {
			continue
		}
		for _, v := range a.Vals {
			times = append(times, s.moment(v))
		}
	}
	return times
}

func (s script) moment(v string) int64 {
	switch v {
	case "min":
		return dsdb.MinTime
	case "max":
		return dsdb.MaxTime
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano} {
		if at, err := time.Parse(layout, v); err == nil {
			return at.UnixNano()
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		s.t.Fatalf("%s: no time: %s", s.td.Pos, v)
	}
	return n
}

func (s script) now() int64 {
	if !s.has("now") {
		return 0
	}
	return s.times("now")[0]
}

func (s script) spec() PolicySpec {
	p := PolicySpec{Name: s.str("rp"), Duration: s.duration("duration"), ReplicaN: s.replicas()}
	if d := s.duration("shard-duration"); d != nil {
		p.ShardGroupDuration = *d
	}
	return p
}

func (s script) fields() []Field {
	var fields []Field
	for _, line := range strings.Fields(s.td.Input) {
		name, typ, _ := strings.Cut(line, ":")
		f := Field{Name: name}
		for ft := dsdb.Float; ft <= dsdb.String; ft++ {
			if ft.String() == typ {
				f.Type = ft
			}
		}
		fields = append(fields, f)
	}
	return fields
}

// command returns the command that a line of a script stands for, nil for one that only reads.
func (s script) command() Command {
	db, rp := s.str("db"), s.str("rp")
	switch s.td.Cmd {
	case "create-cluster":
		return &CreateCluster{ID: s.number("id")}
	case "create-database":
		c := &CreateDatabase{Name: s.str("name"), NoPolicy: s.has("no-policy")}
		if s.has("with") {
			p := s.spec()
			c.Policy = &p
		}
		return c
	case "drop-database":
		return &DropDatabase{Name: s.str("name")}
	case "create-policy":
		return &CreateRetentionPolicy{Database: db, Policy: s.spec(), Default: s.has("default")}
	case "alter-policy":
		return &UpdateRetentionPolicy{Database: db, Name: rp, Duration: s.duration("duration"), ReplicaN: s.replicas(),
			ShardGroupDuration: s.duration("shard-duration"), Default: s.has("default")}
	case "drop-policy":
		return &DropRetentionPolicy{Database: db, Name: rp}
	case "ensure":
		c := &EnsureShardGroups{Database: db, Policy: rp, Times: s.times("times"), Now: s.now(), Witness: s.has("witness"), Limit: int(s.optional("limit"))}
		if s.has("avoid") {
			c.Avoid = []dsdb.NodeID{dsdb.NodeID(s.number("avoid"))}
		}
		return c
	case "delete-group":
		return &DeleteShardGroup{Database: db, Policy: rp, ID: s.number("id"), Now: s.now()}
	case "drop-shard":
		return &DropShard{ID: dsdb.ShardID(s.number("id")), Now: s.now()}
	case "prune":
		return &PruneShardGroups{Before: s.times("before")[0]}
	case "register":
		return &RegisterFields{Database: db, Policy: rp, Sets: []NewFields{{Measurement: s.str("m"), Times: s.times("times"), Fields: s.fields()}}}
	case "drop-measurement":
		return &DropMeasurement{Database: db, Measurement: s.str("m"), Since: s.optional("since")}
	case "revoke":
		return &RevokeFields{Database: db, Measurements: strings.Split(s.str("m"), "/")}
	}
	if c := s.memberCommand(); c != nil {
		return c
	}
	return s.userCommand()
}

// memberCommand returns the commands about processes and replicas. A process is
// known by its host name, which its addresses have too unless host= says another.
func (s script) memberCommand() Command {
	uuid, host := s.str("uuid"), s.str("host")
	if host == "" {
		host = uuid
	}
	group, replica, node := dsdb.GroupID(s.optional("group")), dsdb.ReplicaID(s.optional("replica")), dsdb.NodeID(s.optional("node"))
	switch s.td.Cmd {
	case "join":
		return &JoinCluster{UUID: uuid, Meta: s.has("meta"), Data: s.has("data"), Addresses: addresses(host),
			Epoch: s.optional("epoch"), Nonce: s.optional("nonce"), Replace: dsdb.NodeID(s.optional("replace"))}
	case "boot":
		return &BootNode{UUID: uuid, Addresses: addresses(host), Epoch: s.optional("epoch"), Nonce: s.optional("nonce"), Found: s.has("found")}
	case "drop-node":
		return &DropNode{ID: node, Kind: NodeKind(s.str("kind")), Force: s.has("force"), Lost: s.has("force"), Now: s.now()}
	case "succeed-shard":
		return &SucceedShard{ID: dsdb.ShardID(s.number("id")), Replica: dsdb.ReplicaID(s.number("replica"))}
	case "succeed-catalogue":
		return &SucceedCatalogue{UUID: s.str("uuid"), Lost: numbers[dsdb.NodeID](s, "lost")}
	case "set-roles":
		return &SetRoles{UUID: uuid, Meta: s.has("meta"), Data: s.has("data")}
	case "remove-node":
		return &RemoveNode{ID: node}
	case "add-replica":
		return &AddReplica{Group: group, Node: node, Witness: s.has("witness")}
	case "promote":
		return &PromoteReplica{Group: group, Replica: replica}
	case "demote":
		return &DemoteReplica{Replica: replica}
	case "retire":
		return &RetireReplica{Group: group, Replica: replica}
	case "failed":
		return &ReplicaFailed{Group: group, Replica: replica, Reason: "log"}
	case "remove-replica":
		return &RemoveReplica{Group: group, Replica: replica}
	}
	return nil
}

func (s script) userCommand() Command {
	name := s.str("name")
	switch s.td.Cmd {
	case "create-user":
		return &CreateUser{Name: name, Hash: s.str("hash"), Admin: s.has("admin")}
	case "drop-user":
		return &DropUser{Name: name}
	case "set-password":
		return &SetPassword{Name: name, Hash: s.str("hash")}
	case "set-admin":
		return &SetAdmin{Name: name, Admin: s.str("to") == "true"}
	case "set-privilege":
		for p := NoPrivileges; p <= AllPrivileges; p++ {
			if p.String() == strings.ReplaceAll(s.str("to"), "_", " ") {
				return &SetPrivilege{User: name, Database: s.str("db"), Privilege: p}
			}
		}
	}
	return nil
}

// read answers the commands of a script that change nothing.
func (s script) read(d *Data) string {
	var b strings.Builder
	switch s.td.Cmd {
	case "show-nodes":
		for _, kind := range []NodeKind{DataNode, MetaNode} {
			for _, n := range d.NodesOf(kind) {
				fmt.Fprintf(&b, "%s %d %s %s %s\n", kind, n.ID, n.HTTPAddr, n.TCPAddr, n.State)
			}
		}
	case "show-meta-replicas":
		for _, r := range d.MetaReplicas {
			fmt.Fprintf(&b, "%d@%d %s\n", r.ID, r.Node, r.Role)
		}
	case "show-databases":
		for _, db := range d.DatabasesByAge() {
			fmt.Fprintf(&b, "%s default=%q\n", db.Name, db.DefaultPolicy)
			for _, rp := range db.Policies {
				fmt.Fprintf(&b, "  %s duration=%s shard=%s replicas=%d\n", rp.Name, rp.Duration, rp.ShardGroupDuration, rp.ReplicaN)
			}
		}
	case "show-groups":
		for _, ref := range d.Groups() {
			fmt.Fprintf(&b, "%s.%s %s\n", ref.Database.Name, ref.Policy.Name, showGroup(ref.Group))
		}
	case "show-deleted":
		for _, db := range d.DatabasesByAge() {
			for _, rp := range db.Policies {
				for _, g := range rp.Deleted {
					fmt.Fprintf(&b, "%s.%s %s\n", db.Name, rp.Name, showGroup(g))
				}
			}
		}
	case "expired":
		for _, ref := range d.ExpiredGroups(s.now()) {
			fmt.Fprintf(&b, "%s.%s %d\n", ref.Database.Name, ref.Policy.Name, ref.Group.ID)
		}
	case "show-fields":
		s.showFields(d, &b)
	case "show-users":
		for _, u := range d.Users {
			fmt.Fprintf(&b, "%s hash=%s admin=%v", u.Name, u.Hash, u.Admin)
			for _, g := range u.Privileges {
				fmt.Fprintf(&b, " %s:%s", g.Database, g.Privilege)
			}
			b.WriteString("\n")
		}
	case "policy":
		rp, err := d.Policy(s.str("db"), s.str("rp"))
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		return rp.Name + "\n"
	case "shard":
		ref, found := d.Shard(dsdb.ShardID(s.number("id")))
		if !found {
			return fmt.Sprintf("not found, dropped=%v\n", d.ShardDropped(dsdb.ShardID(s.number("id"))))
		}
		return fmt.Sprintf("%s.%s group %d\n", ref.Database.Name, ref.Policy.Name, ref.Group.ID)
	case "shard-birth":
		ref, _ := d.Shard(dsdb.ShardID(s.number("id")))
		fmt.Fprintf(&b, "born %v, now %v, owners %d\n", plain(ref.Shard.Birth()), plain(ref.Shard.Replicas), ref.Shard.Owners())
	default:
		s.t.Fatalf("%s: unknown command %s", s.td.Pos, s.td.Cmd)
	}
	if b.Len() == 0 {
		return "none\n"
	}
	return b.String()
}

// showGroup prints shard:replica@node,replica@node for each shard; w is a witness.
func showGroup(g *ShardGroup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", g.ID, g.Range)
	for _, s := range g.Shards {
		for i, r := range s.Replicas {
			sep := ","
			if i == 0 {
				sep = fmt.Sprintf(" %d:", s.ID)
			}
			fmt.Fprintf(&b, "%s%d@%d", sep, r.ID, r.Node)
			if r.Role != Voter {
				fmt.Fprintf(&b, "(%s)", r.Role)
			}
			if r.Witness {
				b.WriteString("w")
			}
		}
	}
	return b.String()
}

func (s script) showFields(d *Data, b *strings.Builder) {
	groups, err := d.GroupsIn(s.str("db"), s.str("rp"), dsdb.AllTime)
	if err != nil {
		fmt.Fprintln(b, "error:", err)
		return
	}
	fmt.Fprintf(b, "all: %s\n", strings.Join(Measurements(groups), " "))
	for _, g := range groups {
		fmt.Fprintf(b, "group %d:", g.ID)
		for _, m := range g.Measurements() {
			fmt.Fprintf(b, " %s(", m)
			for i, f := range g.Fields(m) {
				if i > 0 {
					b.WriteString(" ")
				}
				fmt.Fprintf(b, "%s:%s", f.Name, f.Type)
			}
			b.WriteString(")")
		}
		b.WriteString("\n")
	}
	for _, r := range d.Database(s.str("db")).Revocations {
		fmt.Fprintf(b, "revoked: %s at %d\n", r.Measurement, r.At)
	}
}

// plain prints replicas as {id node role}, witnesses as such.
func plain(replicas []Replica) []string {
	var out []string
	for _, r := range replicas {
		text := fmt.Sprintf("{%d %d %s}", r.ID, r.Node, r.Role)
		if r.Witness {
			text = fmt.Sprintf("{%d %d %s, witness}", r.ID, r.Node, r.Role)
		}
		out = append(out, text)
	}
	return out
}
