package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

const week = int64(7 * day)

// newTestData returns a catalogue with n data nodes and database db.
func newTestData(t testing.TB, n int) *Data {
	d := mustApply(t, NewData(), &CreateCluster{ID: 7})
	for i := range n {
		d = mustApply(t, d, join(fmt.Sprintf("n%d", i)))
	}
	return mustApply(t, d, &CreateDatabase{Name: "db"})
}

// join returns the command by which a meta and data node of that name joins.
func join(name string) *JoinCluster {
	return &JoinCluster{UUID: name, Meta: true, Data: true, Addresses: addresses(name), Epoch: 1}
}

func addresses(host string) Addresses {
	return Addresses{HTTPAddr: host + ":8086", MetaHTTPAddr: host + ":8091", TCPAddr: host + ":8088"}
}

func mustApply(t testing.TB, d *Data, c Command) *Data {
	t.Helper()
	next, verdict := d.Apply(Encode(dsdb.ProposalID{}, c))
	if err := verdict.Err(); err != nil {
		t.Fatalf("%s: %v", c.op(), err)
	}
	return next
}

// randomCommand returns a command over a few names, so that commands meet.
func randomCommand(r *rand.Rand) Command {
	pick := func(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, r.IntN(n)) }
	db, rp, user := pick("db", 3), pick("rp", 2), pick("u", 3)
	if r.IntN(2) == 0 {
		rp = ""
	}
	moment := func() int64 { return r.Int64N(60*week) - 5*week }
	now := 40 * week
	hours := time.Duration(r.IntN(50)) * time.Hour
	replicas := r.IntN(4)
	switch r.IntN(20) {
	case 0, 1, 2:
		return randomMembership(r)
	case 3, 4:
		return &CreateDatabase{Name: db}
	case 5:
		if r.IntN(4) > 0 {
			return &DropShard{ID: dsdb.ShardID(r.IntN(200)), Now: now}
		}
		return &DropDatabase{Name: db}
	case 6:
		return &CreateRetentionPolicy{Database: db, Policy: PolicySpec{Name: rp, Duration: &hours, ReplicaN: &replicas}, Default: r.IntN(2) == 0}
	case 7:
		return &UpdateRetentionPolicy{Database: db, Name: "autogen", ReplicaN: &replicas, ShardGroupDuration: &hours}
	case 8:
		return &DropRetentionPolicy{Database: db, Name: rp}
	case 9, 10, 11:
		return &EnsureShardGroups{Database: db, Policy: rp, Times: []int64{moment(), moment(), moment()}, Now: now, Witness: r.IntN(2) == 0}
	case 12:
		return &DeleteShardGroup{Database: db, Policy: rp, ID: uint64(r.IntN(60)), Now: now}
	case 13:
		return &PruneShardGroups{Before: now + r.Int64N(2)}
	case 14, 15:
		return &RegisterFields{Database: db, Policy: rp, Sets: []NewFields{
			{Measurement: pick("m", 3), Times: []int64{moment(), moment(), moment()},
				Fields: []Field{{pick("f", 4), dsdb.FieldType(1 + r.IntN(5))}, {"bytes\xff\xfe", dsdb.Float}}},
			{Measurement: pick("m", 3), Times: []int64{moment()}, Fields: []Field{{pick("f", 4), dsdb.FieldType(1 + r.IntN(5))}}},
		}}
	case 16:
		return &DropMeasurement{Database: db, Measurement: pick("m", 3)}
	case 17:
		return &DropMeasurement{Database: db, Measurement: pick("m", 3), Since: uint64(r.IntN(200))}
	case 18:
		return &RevokeFields{Database: db, Measurements: []string{pick("m", 3), "bytes\xff"}}
	}
	return []Command{
		&CreateUser{Name: user, Hash: pick("h", 2), Admin: r.IntN(2) == 0},
		&DropUser{Name: user},
		&SetPassword{Name: user, Hash: pick("h", 2)},
		&SetAdmin{Name: user, Admin: r.IntN(2) == 0},
		&SetPrivilege{User: user, Database: db, Privilege: Privilege(r.IntN(4))},
		&CreateCluster{ID: 7},
	}[r.IntN(6)]
}

// randomMembership returns a command about processes and replicas.
func randomMembership(r *rand.Rand) Command {
	uuid, node := fmt.Sprint("n", r.IntN(6)), dsdb.NodeID(r.IntN(10))
	at, epoch := addresses(fmt.Sprint("a", r.IntN(7))), uint64(r.IntN(5))
	group, replica := dsdb.GroupID(r.IntN(60)), dsdb.ReplicaID(r.IntN(120))
	if r.IntN(3) == 0 {
		group, replica = dsdb.MetaGroup, dsdb.ReplicaID(r.IntN(8))
	}
	kind := []NodeKind{MetaNode, DataNode}[r.IntN(2)]
	switch r.IntN(19) {
	case 0, 1, 2:
		return &JoinCluster{UUID: uuid, Meta: r.IntN(3) > 0, Data: r.IntN(3) > 0, Addresses: at, Epoch: epoch}
	case 3:
		data := r.IntN(2) == 0
		return &JoinCluster{UUID: uuid, Meta: !data, Data: data, Addresses: at, Epoch: epoch, Replace: node}
	case 4:
		return &BootNode{UUID: uuid, Addresses: at, Epoch: epoch, Nonce: uint64(r.IntN(2)), Found: r.IntN(4) == 0}
	case 5:
		return &DropNode{ID: node, Kind: kind, Force: r.IntN(2) == 0, Lost: r.IntN(2) == 0, Now: 1}
	case 6:
		return &RemoveNode{ID: node}
	case 7:
		return &AddReplica{Group: group, Node: node, Witness: r.IntN(2) == 0}
	case 8:
		return &PromoteReplica{Group: group, Replica: replica}
	case 9:
		return &DemoteReplica{Replica: replica}
	case 10:
		return &RetireReplica{Group: group, Replica: replica}
	case 11:
		return &ReplicaFailed{Group: group, Replica: replica, Reason: "log"}
	case 12:
		return &SetRoles{UUID: uuid, Meta: r.IntN(2) == 0, Data: r.IntN(2) == 0}
	case 13:
		return &SucceedShard{ID: dsdb.ShardID(r.IntN(60)), Replica: replica}
	case 14:
		return &SucceedCatalogue{UUID: uuid, Lost: []dsdb.NodeID{node}}
	case 15:
		return &NoteDisk{Node: node, Full: r.IntN(2) == 0}
	case 16:
		return &ResumeCatalogue{Shard: dsdb.ShardID(group), Replica: replica}
	case 17:
		return &NoteReturn{Node: node}
	}
	return &RemoveReplica{Group: group, Replica: replica}
}

// TestApplyLeavesOldVersionsAlone applies random commands and then compares
// every version with what it was when it was made.
func TestApplyLeavesOldVersionsAlone(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := NewData()
		var versions []*Data
		var images [][]byte
		for range 300 {
			versions = append(versions, d)
			images = append(images, d.AppendSnapshot(nil))
			d, _ = d.Apply(Encode(dsdb.ProposalID{}, randomCommand(r)))
			checkInvariants(t, d)
		}
		for i, v := range versions {
			if !bytes.Equal(v.AppendSnapshot(nil), images[i]) {
				t.Fatalf("seed %d: version %d changed after it was published", seed, i)
			}
		}
	}
}

// TestReplayFromSnapshot cuts a log anywhere: the snapshot of the first part
// and the rest of the log make the same catalogue as the whole log, with the
// same verdicts.
func TestReplayFromSnapshot(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		log := make([][]byte, 200)
		for i := range log {
			log[i] = Encode(dsdb.ProposalID{}, randomCommand(r))
		}
		cut := r.IntN(len(log))
		d, restored := NewData(), NewData()
		for i, entry := range log {
			if i == cut {
				var err error
				if restored, err = DecodeSnapshot("test", d.AppendSnapshot(nil)); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			var want, got dsdb.Verdict
			d, want = d.Apply(entry)
			if i >= cut {
				restored, got = restored.Apply(entry)
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("seed %d: entry %d: verdict %v after a snapshot, %v without", seed, i, got, want)
				}
			}
		}
		if !bytes.Equal(d.AppendSnapshot(nil), restored.AppendSnapshot(nil)) {
			t.Fatalf("seed %d: cut at %d: the catalogues differ", seed, cut)
		}
	}
}

// checkInvariants checks what must hold for every catalogue, the slow way.
func checkInvariants(t testing.TB, d *Data) {
	t.Helper()
	if err := d.check(); err != nil {
		t.Fatal(err)
	}
	shards := make(map[dsdb.ShardID]bool)
	replicas := make(map[dsdb.ReplicaID]bool)
	for _, ref := range d.Groups() {
		g := ref.Group
		if ref.Policy.GroupFor(g.Range.Start) != g || ref.Policy.GroupFor(g.Range.End-1) != g {
			t.Fatalf("group %d is not found at the ends of %v", g.ID, g.Range)
		}
		if g.ID > d.Counters.ShardGroup || len(g.Shards) == 0 {
			t.Fatalf("group %d: above the counter or without shards", g.ID)
		}
		for _, s := range g.Shards {
			if shards[s.ID] || s.ID > d.Counters.Shard {
				t.Fatalf("shard id %d twice or above the counter", s.ID)
			}
			shards[s.ID] = true
			if at, found := d.Shard(s.ID); !found || at.Group != g || at.Shard.ID != s.ID {
				t.Fatalf("shard %d is not found in group %d", s.ID, g.ID)
			}
			nodes := make(map[dsdb.NodeID]bool)
			for _, rep := range s.Replicas {
				if replicas[rep.ID] || rep.ID > d.Counters.Replica || nodes[rep.Node] {
					t.Fatalf("replica id %d twice, above the counter, or two on node %d", rep.ID, rep.Node)
				}
				replicas[rep.ID], nodes[rep.Node] = true, true
			}
			if !slices.ContainsFunc(s.Replicas, Replica.Whole) {
				t.Fatalf("shard %d has no whole replica: %v", s.ID, s.Replicas)
			}
		}
	}
	for id := range d.Counters.Shard {
		if id++; d.ShardDropped(id) == shards[id] {
			t.Fatalf("shard %d: dropped is %v", id, shards[id])
		}
	}
}

// TestGroupSpanAgreesWithTimeTruncate compares with the rule as InfluxDB states
// it, for times far enough from the ends.
func TestGroupSpanAgreesWithTimeTruncate(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 20_000 {
		d := time.Hour + time.Duration(r.Int64N(int64(400*day)))
		at := r.Int64() - r.Int64()
		if !(dsdb.TimeRange{Start: dsdb.MinTime + int64(d), End: dsdb.MaxTime - int64(d)}).Contains(at) {
			continue
		}
		start := time.Unix(0, at).UTC().Truncate(d)
		want := dsdb.TimeRange{Start: start.UnixNano(), End: start.Add(d).UnixNano()}
		if got := groupSpan(at, d); got != want {
			t.Fatalf("group of %d with duration %s: %v, want %v", at, d, got, want)
		}
	}
}

func TestGroupSpanAtTheEnds(t *testing.T) {
	for _, d := range []time.Duration{time.Hour, 7 * day, 100_000 * day, 1<<63 - 1} {
		for _, at := range []int64{dsdb.MinTime, dsdb.MinTime + 1, -1, 0, dsdb.MaxTime - 1, dsdb.MaxTime} {
			span := groupSpan(at, d)
			whole := span.Start > dsdb.MinTime && span.End < dsdb.MaxTime+1
			length := uint64(span.End) - uint64(span.Start)
			if !span.Contains(at) || span.Start < dsdb.MinTime || span.End > dsdb.MaxTime+1 || length > uint64(d) || whole && length != uint64(d) {
				t.Errorf("group of %d with duration %d: %d to %d", at, d, span.Start, span.End)
			}
		}
	}
}

func TestLookupsAgreeWithLinearSearch(t *testing.T) {
	d := newTestData(t, 3)
	r := rand.New(rand.NewPCG(4, 4))
	var times []int64
	for range 60 {
		times = append(times, r.Int64N(100*week)-20*week)
	}
	d = mustApply(t, d, &EnsureShardGroups{Database: "db", Times: times})
	rp, err := d.Policy("db", "")
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		at := r.Int64N(120*week) - 30*week
		span := dsdb.TimeRange{Start: at, End: at + r.Int64N(10*week) - week}
		var holds *ShardGroup
		var meets []*ShardGroup
		for _, g := range rp.ShardGroups {
			if g.Range.Contains(at) {
				holds = g
			}
			if g.Range.Overlaps(span) {
				meets = append(meets, g)
			}
		}
		if got := rp.GroupFor(at); got != holds {
			t.Fatalf("GroupFor(%d) = %v, want %v", at, got, holds)
		}
		if got := rp.GroupsIn(span); !slices.Equal(got, meets) {
			t.Fatalf("GroupsIn(%v) = %v, want %v", span, got, meets)
		}
	}
}

func TestPartitionIsFNV1a(t *testing.T) {
	g := &ShardGroup{Shards: make([]Shard, 7)}
	for i := range 100 {
		key := fmt.Appendf(nil, "cpu,host=%d", i)
		h := fnv.New64a()
		h.Write(key)
		if got, want := g.Partition(key), int(h.Sum64()%7); got != want {
			t.Errorf("Partition(%s) = %d, want %d", key, got, want)
		}
	}
}

// TestPlacementIsEven: replicas and first-listed replicas of one group, and
// replicas of many groups, lie on all nodes as evenly as they can.
func TestPlacementIsEven(t *testing.T) {
	for nodes := 1; nodes <= 10; nodes++ {
		for replicas := 1; replicas <= nodes+1; replicas++ {
			d := newTestData(t, nodes)
			d = mustApply(t, d, &UpdateRetentionPolicy{Database: "db", Name: AutoPolicy, ReplicaN: &replicas})
			d = mustApply(t, d, &EnsureShardGroups{Database: "db", Times: []int64{100 * week}, Witness: true})
			what := fmt.Sprintf("%d nodes, %d replicas", nodes, replicas)
			checkSpread(t, d, what+", one group", 1)
			if g := d.GroupFor("db", "", 100*week); len(g.Shards) != min(nodes, 8) || len(g.Shards[0].Owners()) != min(nodes, replicas) {
				t.Errorf("%s: %d shards of %d replicas", what, len(g.Shards), len(g.Shards[0].Owners()))
			}
			var times []int64
			for i := range int64(50) {
				times = append(times, i*week)
			}
			d = mustApply(t, d, &EnsureShardGroups{Database: "db", Times: times, Now: 90 * week, Witness: true})
			checkSpread(t, d, what+", many groups", 2)
		}
	}
}

// checkSpread reports nodes whose number of replicas differs by more than tolerance.
func checkSpread(t *testing.T, d *Data, what string, tolerance int) {
	t.Helper()
	held, first, watched := make(map[dsdb.NodeID]int), make(map[dsdb.NodeID]int), make(map[dsdb.NodeID]int)
	for _, ref := range d.Groups() {
		for _, s := range ref.Group.Shards {
			first[s.Replicas[0].Node]++
			for i, r := range s.Replicas {
				if r.Witness != (i == 2 && ref.Policy.ReplicaN == 2) {
					t.Errorf("%s: shard %d: %+v", what, s.ID, s.Replicas)
				}
				if r.Witness {
					watched[r.Node]++
				} else {
					held[r.Node]++
				}
			}
		}
	}
	spread := func(counts map[dsdb.NodeID]int) int {
		least, most := 1<<30, 0
		for _, n := range d.NodesOf(DataNode) {
			least, most = min(least, counts[n.ID]), max(most, counts[n.ID])
		}
		return most - least
	}
	if spread(held) > tolerance {
		t.Errorf("%s: uneven replicas: %v", what, held)
	}
	if tolerance == 1 && spread(first) > 1 {
		t.Errorf("%s: uneven first replicas: %v", what, first)
	}
}

// TestDroppedDatabasesLeaveNothing creates and drops a full database many times.
func TestDroppedDatabasesLeaveNothing(t *testing.T) {
	d := newTestData(t, 3)
	cycle := func() {
		d = mustApply(t, d, &CreateDatabase{Name: "tmp"})
		d = mustApply(t, d, &CreateUser{Name: "tmp", Hash: "h"})
		d = mustApply(t, d, &SetPrivilege{User: "tmp", Database: "tmp", Privilege: ReadPrivilege})
		d = mustApply(t, d, &EnsureShardGroups{Database: "tmp", Times: []int64{0, week}})
		d = mustApply(t, d, &RegisterFields{Database: "tmp", Sets: []NewFields{{"cpu", []int64{0}, []Field{{"usage", dsdb.Float}}}}})
		d = mustApply(t, d, &DropDatabase{Name: "tmp"})
		d = mustApply(t, d, &DropUser{Name: "tmp"})
	}
	cycle()
	before := len(d.AppendSnapshot(nil))
	for range 2000 {
		cycle()
	}
	const moreDigits = 20 // the counters have grown
	if after := len(d.AppendSnapshot(nil)); after > before+moreDigits {
		t.Errorf("the snapshot grew from %d to %d bytes", before, after)
	}
}

// TestSchemasStayShared: groups that got the same fields by the same commands
// hold them once, also after a restart.
func TestSchemasStayShared(t *testing.T) {
	d := newTestData(t, 1)
	var times []int64
	for i := range int64(100) {
		times = append(times, i*week)
	}
	d = mustApply(t, d, &EnsureShardGroups{Database: "db", Times: times, Now: 200 * week})
	for i := range 5 {
		d = mustApply(t, d, &RegisterFields{Database: "db", Sets: []NewFields{
			{"cpu", times, []Field{{fmt.Sprint("f", i), dsdb.Float}}},
			{"mem", times[:50], []Field{{fmt.Sprint("f", i), dsdb.Float}}},
		}})
	}
	restored, err := DecodeSnapshot("test", d.AppendSnapshot(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Data{d, restored} {
		distinct := make(map[*schema]bool)
		for _, ref := range d.Groups() {
			distinct[ref.Group.schema] = true
		}
		if len(distinct) != 2 {
			t.Errorf("%d schemas, want 2", len(distinct))
		}
	}
}

func FuzzApply(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 60 {
		f.Add(Encode(dsdb.ProposalID{}, randomCommand(r)))
	}
	f.Add(Encode(dsdb.ProposalID{Node: 1, Epoch: 2, Seq: 3}, &DropUser{Name: "nobody"}))
	f.Add([]byte("\x02{\"op\":\"EnsureShardGroups\",\"args\":{\"db\":\"db\",\"times\":[9223372036854775806]}}"))
	f.Add([]byte("\x01{}"))
	base := newTestData(f, 3)
	base = mustApply(f, base, &EnsureShardGroups{Database: "db", Times: []int64{0, week, 50 * week}, Now: 10 * week})
	image := base.AppendSnapshot(nil)
	f.Fuzz(func(t *testing.T, cmd []byte) {
		next, verdict := base.Apply(cmd)
		id, c, err := Decode(cmd)
		if remembered := err == nil && id != (dsdb.ProposalID{}); !remembered && (next == base) != (verdict.Err() != nil) {
			t.Fatalf("refused: %v, but a new version: %v", verdict.Err(), next != base)
		}
		if !bytes.Equal(base.AppendSnapshot(nil), image) {
			t.Fatal("Apply changed the version before")
		}
		checkInvariants(t, next)
		if err == nil {
			again, _ := base.Apply(Encode(id, c))
			if !bytes.Equal(again.AppendSnapshot(nil), next.AppendSnapshot(nil)) {
				t.Fatal("a command that is decoded and encoded does something else")
			}
		}
		if _, err := DecodeSnapshot("fuzz", next.AppendSnapshot(nil)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeSnapshot puts fuzzed bodies behind a right header and checksum, so
// that the fuzzer gets past them.
func FuzzDecodeSnapshot(f *testing.F) {
	d := newTestData(f, 2)
	d = mustApply(f, d, &EnsureShardGroups{Database: "db", Times: []int64{0, week}})
	d = mustApply(f, d, &RegisterFields{Database: "db", Sets: []NewFields{{"m\xff", []int64{0}, []Field{{"f", dsdb.Float}}}}})
	d = mustApply(f, d, &CreateUser{Name: "ann", Hash: "h"})
	good := d.AppendSnapshot(nil)
	f.Add(good[snapshotHeader : len(good)-4])
	f.Add([]byte(`{"users":[null]}`))
	f.Add([]byte(`{"databases":[{"policies":[{"replicas":1,"shardDuration":3600000000000,"groups":[{"schema":5}]}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := DecodeSnapshot("fuzz", body); err == nil {
			t.Fatal("a body is no file")
		}
		d, err := DecodeSnapshot("fuzz", frame(body))
		if err != nil {
			if dsdb.KindOf(err) != dsdb.KindCorrupt {
				t.Fatalf("kind %d: %v", dsdb.KindOf(err), err)
			}
			return
		}
		again, err := DecodeSnapshot("fuzz", d.AppendSnapshot(nil))
		if err != nil || !bytes.Equal(again.AppendSnapshot(nil), d.AppendSnapshot(nil)) {
			t.Fatalf("a catalogue that was read is not written as it is: %v", err)
		}
		for _, ref := range d.Groups() {
			d.Shard(ref.Group.Shards[0].ID)
			ref.Policy.GroupFor(ref.Group.Range.Start)
		}
	})
}

// frame puts a header and a checksum around the body of a snapshot.
func frame(body []byte) []byte {
	b := append([]byte(snapshotMagic), snapshotVersion, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(body)))
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

func manyWeeks(n int64) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = int64(i) * week
	}
	return times
}

func BenchmarkRegisterFields1040Groups(b *testing.B) {
	times := manyWeeks(1040)
	d := mustApply(b, newTestData(b, 3), &EnsureShardGroups{Database: "db", Times: times, Now: 900 * week})
	var fields []Field
	for i := range 10 {
		fields = append(fields, Field{fmt.Sprint("field", i), dsdb.Float})
	}
	cmd := Encode(dsdb.ProposalID{}, &RegisterFields{Database: "db", Sets: []NewFields{{"cpu", times, fields}, {"mem", times, fields}}})
	b.SetBytes(int64(len(cmd)))
	b.ReportAllocs()
	for b.Loop() {
		d.Apply(cmd)
	}
}

func BenchmarkEnsure1040Groups(b *testing.B) {
	d := newTestData(b, 3)
	cmd := Encode(dsdb.ProposalID{}, &EnsureShardGroups{Database: "db", Times: manyWeeks(1040), Now: 900 * week})
	b.SetBytes(int64(len(cmd)))
	b.ReportAllocs()
	for b.Loop() {
		d.Apply(cmd)
	}
}

func BenchmarkGroupFor(b *testing.B) {
	times := manyWeeks(1040)
	d := mustApply(b, newTestData(b, 3), &EnsureShardGroups{Database: "db", Times: times, Now: 900 * week})
	rp, _ := d.Policy("db", "")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if rp.GroupFor(times[i%len(times)]) == nil {
			b.Fatal("no group")
		}
		i += 37
	}
}

func BenchmarkSnapshot1040Groups(b *testing.B) {
	times := manyWeeks(1040)
	d := mustApply(b, newTestData(b, 3), &EnsureShardGroups{Database: "db", Times: times, Now: 900 * week})
	b.SetBytes(int64(len(d.AppendSnapshot(nil))))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSnapshot("bench", d.AppendSnapshot(nil)); err != nil {
			b.Fatal(err)
		}
	}
}
