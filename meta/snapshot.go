package meta

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/dasudian/dsdb"
)

const (
	snapshotMagic   = "DSDBMETA"
	snapshotVersion = 2
	snapshotHeader  = len(snapshotMagic) + 4 + 8
	noSchema        = -1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The body of a snapshot. See FORMAT.md.
type (
	snapData struct {
		Index     uint64         `json:"index"`
		Term      uint64         `json:"term"`
		ClusterID uint64         `json:"cluster"`
		Counters  snapCounters   `json:"counters"`
		Processes []Process      `json:"processes"`
		Replicas  []Replica      `json:"replicas"`
		Users     []*User        `json:"users"`
		Databases []snapDatabase `json:"databases"`
		Sets      []FieldSet     `json:"sets"`
		Schemas   [][]snapFields `json:"schemas"`
		Proposals []byte         `json:"proposals"`
	}
	snapCounters struct {
		Node       dsdb.NodeID    `json:"node"`
		Database   uint64         `json:"database"`
		ShardGroup uint64         `json:"group"`
		Shard      dsdb.ShardID   `json:"shard"`
		Replica    dsdb.ReplicaID `json:"replica"`
	}
	snapDatabase struct {
		Name     string       `json:"name"`
		Created  uint64       `json:"created"`
		Default  string       `json:"default"`
		Policies []snapPolicy `json:"policies"`
		Fence    uint64       `json:"fence,omitempty"`
		Revoked  []Revocation `json:"revoked,omitempty"`
	}
	snapPolicy struct {
		Name          string        `json:"name"`
		ReplicaN      int           `json:"replicas"`
		Duration      time.Duration `json:"duration"`
		ShardDuration time.Duration `json:"shardDuration"`
		Groups        []snapGroup   `json:"groups"`
		Deleted       []snapGroup   `json:"deleted"`
	}
	snapGroup struct {
		ID        uint64  `json:"id"`
		Start     int64   `json:"start"`
		End       int64   `json:"end"`
		DeletedAt int64   `json:"deletedAt,omitempty"`
		Shards    []Shard `json:"shards"`
		Schema    int     `json:"schema"`
	}
	snapFields struct {
		Measurement text `json:"m"`
		Set         int  `json:"f"`
	}
)

// AppendSnapshot appends the catalogue as the bytes of a snapshot file.
func (d *Data) AppendSnapshot(dst []byte) []byte {
	w := snapWriter{
		out: snapData{Index: d.Index, Term: d.Term, ClusterID: d.ClusterID, Counters: snapCounters(d.Counters),
			Processes: d.Processes, Replicas: d.MetaReplicas, Users: d.Users, Proposals: d.proposals.Append(nil)},
		sets:    make(map[*Field]int),
		schemas: make(map[*schema]int),
	}
	for _, db := range d.Databases {
		out := snapDatabase{Name: db.Name, Created: db.Created, Default: db.DefaultPolicy, Fence: db.Fence, Revoked: db.Revocations}
		for _, rp := range db.Policies {
			out.Policies = append(out.Policies, snapPolicy{rp.Name, rp.ReplicaN, rp.Duration, rp.ShardGroupDuration,
				w.groups(rp.ShardGroups), w.groups(rp.Deleted)})
		}
		w.out.Databases = append(w.out.Databases, out)
	}
	body, err := json.Marshal(&w.out)
	if err != nil {
		panic("BUG: meta snapshot: " + err.Error())
	}
	start := len(dst)
	dst = append(dst, snapshotMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, snapshotVersion)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(body)))
	dst = append(dst, body...)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:]))
}

// snapWriter numbers the field sets and schemas that groups share.
type snapWriter struct {
	out     snapData
	sets    map[*Field]int // by first element
	schemas map[*schema]int
}

func (w *snapWriter) groups(groups []*ShardGroup) []snapGroup {
	out := make([]snapGroup, len(groups))
	for i, g := range groups {
		out[i] = snapGroup{g.ID, g.Range.Start, g.Range.End, g.DeletedAt, g.Shards, w.schema(g.schema)}
	}
	return out
}

func (w *snapWriter) schema(s *schema) int {
	if s == nil {
		return noSchema
	}
	if i, found := w.schemas[s]; found {
		return i
	}
	fields := make([]snapFields, len(s.names))
	for i, name := range s.names {
		fields[i] = snapFields{text(name), w.set(s.sets[i])}
	}
	w.out.Schemas = append(w.out.Schemas, fields)
	w.schemas[s] = len(w.out.Schemas) - 1
	return w.schemas[s]
}

func (w *snapWriter) set(s FieldSet) int {
	if i, found := w.sets[&s[0]]; found {
		return i
	}
	w.out.Sets = append(w.out.Sets, s)
	w.sets[&s[0]] = len(w.out.Sets) - 1
	return w.sets[&s[0]]
}

// DecodeSnapshot is the inverse of AppendSnapshot. An error has KindCorrupt
// and says at which offset, or KindInvalid if the file is of another version;
// file is the name that it mentions.
func DecodeSnapshot(file string, b []byte) (*Data, error) {
	corrupt := func(offset int, format string, args ...any) error {
		return dsdb.Errorf(dsdb.KindCorrupt, "%s: offset %d: %w", file, offset, fmt.Errorf(format, args...))
	}
	if len(b) < snapshotHeader+4 || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return nil, corrupt(0, "no catalogue snapshot")
	}
	if sum := binary.LittleEndian.Uint32(b[len(b)-4:]); sum != checksum(b[:len(b)-4]) {
		return nil, corrupt(len(b)-4, "checksum %08x does not match", sum)
	}
	switch v := binary.LittleEndian.Uint32(b[len(snapshotMagic):]); {
	case v > snapshotVersion:
		return nil, dsdb.Errorf(dsdb.KindInvalid, "%s has format version %d, this program knows version %d: %w", file, v, snapshotVersion, dsdb.ErrNewer)
	case v < snapshotVersion:
		return nil, dsdb.Errorf(dsdb.KindInvalid, "%s has format version %d, this program knows version %d only", file, v, snapshotVersion)
	}
	body := b[snapshotHeader : len(b)-4]
	if n := binary.LittleEndian.Uint64(b[len(snapshotMagic)+4:]); n != uint64(len(body)) {
		return nil, corrupt(len(snapshotMagic)+4, "length %d, but %d bytes follow", n, len(body))
	}
	d, err := decodeBody(body)
	if err != nil {
		return nil, corrupt(snapshotHeader, "%w", err)
	}
	return d, nil
}

func decodeBody(body []byte) (*Data, error) {
	var in snapData
	if err := unmarshalStrict(body, &in); err != nil {
		return nil, err
	}
	r := snapReader{in: &in}
	if err := r.readSchemas(); err != nil {
		return nil, err
	}
	d := NewData()
	d.Index, d.Term, d.ClusterID, d.Counters = in.Index, in.Term, in.ClusterID, Counters(in.Counters)
	d.Processes, d.MetaReplicas, d.Users = in.Processes, in.Replicas, in.Users
	if err := d.proposals.Load(in.Proposals); err != nil {
		return nil, fmt.Errorf("proposals: %w", err)
	}
	for _, in := range in.Databases {
		db := &Database{Name: in.Name, Created: in.Created, DefaultPolicy: in.Default, Fence: in.Fence, Revocations: in.Revoked}
		for _, in := range in.Policies {
			rp, err := r.policy(&in)
			if err != nil {
				return nil, fmt.Errorf("database %q: policy %q: %w", db.Name, in.Name, err)
			}
			db.Policies = append(db.Policies, rp)
		}
		d.Databases = append(d.Databases, db)
	}
	return d, d.check()
}

// snapReader rebuilds what snapWriter numbered.
type snapReader struct {
	in      *snapData
	schemas []*schema
}

func (r *snapReader) readSchemas() error {
	for i, set := range r.in.Sets {
		if len(set) == 0 || !ascending(set, func(a, b Field) int { return strings.Compare(a.Name, b.Name) }) {
			return fmt.Errorf("field set %d is empty or not in order", i)
		}
	}
	for i, fields := range r.in.Schemas {
		s := &schema{}
		for _, f := range fields {
			if f.Set < 0 || f.Set >= len(r.in.Sets) {
				return fmt.Errorf("schema %d: no field set %d", i, f.Set)
			}
			s.names = append(s.names, string(f.Measurement))
			s.sets = append(s.sets, r.in.Sets[f.Set])
		}
		if !ascending(s.names, strings.Compare) {
			return fmt.Errorf("schema %d is not in order", i)
		}
		r.schemas = append(r.schemas, s)
	}
	return nil
}

func (r *snapReader) policy(in *snapPolicy) (*RetentionPolicy, error) {
	rp := &RetentionPolicy{Name: in.Name, ReplicaN: in.ReplicaN, Duration: in.Duration, ShardGroupDuration: in.ShardDuration}
	if rp.ReplicaN < 1 || rp.Duration < 0 || rp.ShardGroupDuration < MinPolicyDuration {
		return nil, fmt.Errorf("%d replicas, duration %s, shard duration %s", rp.ReplicaN, rp.Duration, rp.ShardGroupDuration)
	}
	var err error
	if rp.ShardGroups, err = r.groups(in.Groups); err != nil {
		return nil, err
	}
	if rp.Deleted, err = r.groups(in.Deleted); err != nil {
		return nil, err
	}
	if !ascending(rp.ShardGroups, func(a, b *ShardGroup) int { return cmp.Compare(a.Range.End, b.Range.Start+1) }) ||
		!ascending(rp.Deleted, func(a, b *ShardGroup) int { return cmp.Compare(a.ID, b.ID) }) {
		return nil, fmt.Errorf("time groups overlap or are not in order")
	}
	return rp, nil
}

func (r *snapReader) groups(in []snapGroup) ([]*ShardGroup, error) {
	var out []*ShardGroup
	for _, g := range in {
		if g.Schema < noSchema || g.Schema >= len(r.schemas) {
			return nil, fmt.Errorf("time group %d: no schema %d", g.ID, g.Schema)
		}
		if g.Start < dsdb.MinTime || g.Start >= g.End || len(g.Shards) == 0 {
			return nil, fmt.Errorf("time group %d: empty range or no shard", g.ID)
		}
		group := &ShardGroup{ID: g.ID, Range: dsdb.TimeRange{Start: g.Start, End: g.End}, DeletedAt: g.DeletedAt, Shards: g.Shards}
		if g.Schema != noSchema {
			group.schema = r.schemas[g.Schema]
		}
		out = append(out, group)
	}
	return out, nil
}

// check reports an order that lookups rely on and that is not there.
func (d *Data) check() error {
	if !ascending(d.MetaReplicas, func(a, b Replica) int { return cmp.Compare(a.ID, b.ID) }) {
		return fmt.Errorf("replicas are not in order")
	}
	if slices.Contains(d.Users, nil) || !ascending(d.Users, func(a, b *User) int { return strings.Compare(a.Name, b.Name) }) {
		return fmt.Errorf("users are not in order")
	}
	for _, u := range d.Users {
		if !ascending(u.Privileges, func(a, b Grant) int { return strings.Compare(a.Database, b.Database) }) {
			return fmt.Errorf("privileges of user %q are not in order", u.Name)
		}
	}
	if !ascending(d.Databases, func(a, b *Database) int { return strings.Compare(a.Name, b.Name) }) {
		return fmt.Errorf("databases are not in order")
	}
	for _, db := range d.Databases {
		if !db.checkRevocations() {
			return fmt.Errorf("revocations of database %q are not in order", db.Name)
		}
	}
	return nil
}

// ascending reports whether each element compares below the next.
func ascending[T any](s []T, compare func(a, b T) int) bool {
	for i := 1; i < len(s); i++ {
		if compare(s[i-1], s[i]) >= 0 {
			return false
		}
	}
	return true
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
