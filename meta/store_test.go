package meta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entries returns a log of n random commands, with an empty entry now and then.
func entries(seed uint64, n int) []dsdb.Entry {
	r := rand.New(rand.NewPCG(seed, 9))
	log := make([]dsdb.Entry, n)
	for i := range log {
		log[i] = dsdb.Entry{Index: uint64(i + 1), Term: 1 + uint64(i)/10}
		if r.IntN(10) > 0 {
			log[i].Data = Encode(dsdb.ProposalID{}, randomCommand(r))
		}
	}
	return log
}

func openStore(t *testing.T, fs vfs.FS, dir string) *Store {
	t.Helper()
	s, err := Open(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t *testing.T, s *Store, log []dsdb.Entry) {
	t.Helper()
	verdicts, err := s.Apply(log)
	if err != nil || len(verdicts) != len(log) {
		t.Fatalf("%d verdicts for %d entries, error %v", len(verdicts), len(log), err)
	}
}

// image returns what tells two catalogues apart.
func image(s *Store) string { return string(s.View().AppendSnapshot(nil)) }

func TestStoreReopensAtWhatWasFlushed(t *testing.T) {
	mem := vfs.NewMem(1)
	log := entries(1, 100)
	s := openStore(t, mem, "meta")
	apply(t, s, log[:60])
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	apply(t, s, log[60:])
	if got := s.FlushedIndex(); got != 60 {
		t.Fatalf("flushed index %d, want 60", got)
	}
	again := openStore(t, mem, "meta")
	if v := again.View(); v.Index != 60 || v.Term != log[59].Term || again.FlushedIndex() != 60 {
		t.Fatalf("reopened at entry %d of term %d, flushed index %d", v.Index, v.Term, again.FlushedIndex())
	}
	apply(t, again, log[60:])
	if image(again) != image(s) {
		t.Error("after the same log the catalogues differ")
	}
}

// TestStoreSurvivesAnyCrash cuts the power after each operation on the disk: what
// Flush had promised is there, whatever happened to bytes and names that were not synced.
func TestStoreSurvivesAnyCrash(t *testing.T) {
	log := entries(2, 60)
	images := map[uint64]string{0: string(NewData().AppendSnapshot(nil))}
	s := openStore(t, vfs.NewMem(1), "meta")
	for _, e := range log {
		apply(t, s, []dsdb.Entry{e})
		images[e.Index] = image(s)
	}
	errPower := errors.New("power cut")
	for stop := 1; ; stop++ {
		mem, ops := vfs.NewMem(uint64(stop)), 0
		faulty := vfs.Faulty(mem, func(op, path string) error {
			if ops++; ops > stop {
				return errPower
			}
			return nil
		})
		promised, finished := runUntilPowerCut(t, faulty, log)
		for _, percent := range []int{0, 50, 100} {
			after := mem.CrashClone(percent, uint64(percent))
			s, err := Open(after, "meta")
			if err != nil {
				t.Fatalf("crash after operation %d, %d%% unsynced kept: %v", stop, percent, err)
			}
			if index := s.View().Index; index < promised || image(s) != images[index] {
				t.Fatalf("crash after operation %d, %d%% unsynced kept: at entry %d, promised %d", stop, percent, index, promised)
			}
		}
		if finished {
			return
		}
	}
}

// runUntilPowerCut applies and flushes until an operation fails; it returns
// the last index that was promised to be durable and whether nothing failed.
func runUntilPowerCut(t *testing.T, fs vfs.FS, log []dsdb.Entry) (promised uint64, finished bool) {
	s, err := Open(fs, "meta")
	if err != nil {
		return 0, false
	}
	for i := 0; i < len(log); i += 10 {
		apply(t, s, log[i:i+10])
		if err := s.Flush(); err != nil {
			return s.FlushedIndex(), false
		}
	}
	return s.FlushedIndex(), true
}

func TestStoreRefusesDamagedSnapshot(t *testing.T) {
	mem := vfs.NewMem(1)
	s := openStore(t, mem, "meta")
	apply(t, s, entries(3, 20))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	name := path.Join("meta", snapshotName(20))
	good, err := vfs.ReadFile(mem, name)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		if err := vfs.WriteFileAtomic(mem, path.Join("meta", snapshotName(20)), b); err != nil {
			t.Fatal(err)
		}
		_, err := Open(mem, "meta")
		if dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), name+": offset ") {
			t.Fatalf("%s: error %v", what, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		check(fmt.Sprintf("bit flipped in byte %d", i), bad)
	}
	for n := range good {
		if n%7 == 0 {
			check(fmt.Sprintf("cut to %d bytes", n), good[:n])
		}
	}
	check("another index", func() []byte { d := *s.View(); d.Index = 19; return d.AppendSnapshot(nil) }())
}

func TestStoreSnapshotStaysWhilePinned(t *testing.T) {
	mem := vfs.NewMem(1)
	log := entries(4, 90)
	s := openStore(t, mem, "meta")
	apply(t, s, log[:30])
	m, release, err := s.Snapshot() // no file yet: one is written
	if err != nil || m.Index != 30 || len(m.Files) != 1 {
		t.Fatalf("manifest %+v, error %v", m, err)
	}
	want := image(s)
	for i := 30; i < 90; i += 30 {
		apply(t, s, log[i:i+30])
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := vfs.ReadFile(mem, path.Join("meta", m.Files[0].Name))
	if err != nil || string(b) != want || int64(len(b)) != m.Files[0].Size || checksum(b) != m.Files[0].CRC {
		t.Fatalf("the pinned file is not the snapshot: %v", err)
	}
	release()
	release()
	names, err := mem.List("meta")
	if err != nil || len(names) != 1 || names[0] != snapshotName(90) {
		t.Errorf("files after release: %v, error %v", names, err)
	}
}

func TestStoreInstall(t *testing.T) {
	mem := vfs.NewMem(1)
	log := entries(5, 80)
	leader, follower := openStore(t, mem, "leader"), openStore(t, mem, "follower")
	apply(t, leader, log[:50])
	if err := leader.Flush(); err != nil {
		t.Fatal(err)
	}
	apply(t, follower, log[:10])
	if err := follower.Flush(); err != nil {
		t.Fatal(err)
	}
	m, release, err := leader.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	bad := m
	bad.Files = []dsdb.ManifestFile{m.Files[0]}
	bad.Files[0].CRC++
	if err := follower.Install(bad, "leader"); dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Errorf("wrong checksum in the manifest: error %v", err)
	}
	changed := follower.Watch()
	if err := follower.Install(m, "leader"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the installed catalogue")
	}
	if image(follower) != image(leader) || follower.FlushedIndex() != 50 {
		t.Errorf("installed at %d, flushed %d", follower.View().Index, follower.FlushedIndex())
	}
	apply(t, follower, log[50:])
	if image(openStore(t, mem, "follower")) != image(leader) {
		t.Error("the installed catalogue is not the one that is opened")
	}
}

// A command that only a newer program knows ends what is applied, right before it,
// and is no refusal: who has the program applies it.
func TestNewerCommandIsNotPassedOver(t *testing.T) {
	known := Encode(dsdb.ProposalID{}, &CreateDatabase{Name: "a"})
	version := bytes.Clone(known)
	version[0]++
	for name, newer := range map[string][]byte{
		"version": version,
		"command": bytes.Replace(known, []byte(`"op":"`), []byte(`"op":"re`), 1),
		"member":  bytes.Replace(known, []byte(`"args":{`), []byte(`"args":{"Colour":"red",`), 1),
	} {
		s := openStore(t, vfs.NewMem(1), "meta")
		verdicts, err := s.Apply([]dsdb.Entry{{Index: 1, Term: 1, Data: known}, {Index: 2, Term: 1, Data: newer}, {Index: 3, Term: 1, Data: known}})
		if !errors.Is(err, dsdb.ErrNewer) || verdicts != nil || s.View().Index != 1 || s.View().Database("a") == nil {
			t.Errorf("%s: %v, %v, the catalogue is at %d", name, err, verdicts, s.View().Index)
		}
	}
	b := NewData().AppendSnapshot(nil)
	binary.LittleEndian.PutUint32(b[len(snapshotMagic):], snapshotVersion+1)
	binary.LittleEndian.PutUint32(b[len(b)-4:], checksum(b[:len(b)-4]))
	if _, err := DecodeSnapshot("f", b); !errors.Is(err, dsdb.ErrNewer) {
		t.Errorf("snapshot: %v", err)
	}
}

func TestStoreWait(t *testing.T) {
	s := openStore(t, vfs.NewMem(1), "meta")
	log := entries(6, 10)
	done := make(chan error)
	go func() { done <- s.Wait(context.Background(), 10) }()
	apply(t, s, log[:9])
	select {
	case err := <-done:
		t.Fatalf("Wait for entry 10 ended at entry 9: %v", err)
	default:
	}
	apply(t, s, log[9:])
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, 11); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestStoreFlushDuringApply: readers, Apply and Flush at once leave a file
// that holds some version of the catalogue, whole.
func TestStoreFlushDuringApply(t *testing.T) {
	mem := vfs.NewMem(1)
	s := openStore(t, mem, "meta")
	log := entries(7, 300)
	done := make(chan error)
	go func() {
		var err error
		for err == nil && s.View().Index < 300 {
			err = s.Flush()
		}
		done <- err
	}()
	for i := range log {
		apply(t, s, log[i:i+1])
		s.View().ShardDropped(1)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	reopened := openStore(t, mem, "meta")
	apply(t, reopened, log[reopened.View().Index:])
	if image(reopened) != image(s) {
		t.Error("the file and the rest of the log make another catalogue")
	}
}

func TestIdentity(t *testing.T) {
	mem := vfs.NewMem(1)
	if err := mem.MkdirAll("meta"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIdentity(mem, "meta"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	want := Identity{ClusterID: 77, UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", MetaID: 1, DataID: 2, Replica: 3, Epoch: 4}
	if err := WriteIdentity(mem, "meta", want); err != nil {
		t.Fatal(err)
	}
	mem.Crash(0)
	if got, err := ReadIdentity(mem, "meta"); err != nil || got != want {
		t.Fatalf("read %+v, error %v", got, err)
	}
	good, err := vfs.ReadFile(mem, "meta/node.json")
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(good) - 1 { // the last byte is the end of the line
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if id, err := DecodeIdentity("meta/node.json", bad); err == nil && id != want ||
			err != nil && (dsdb.KindOf(err) != dsdb.KindCorrupt || !strings.Contains(err.Error(), "meta/node.json: ")) {
			t.Errorf("byte %d damaged: identity %+v, error %v", i, id, err)
		}
	}
}

// What a node of the first version wrote is read; what a newer one wrote is not.
func TestIdentityVersions(t *testing.T) {
	file := func(identity string) []byte {
		return []byte(`{"identity":` + identity + `,"crc32c":"` + crcText([]byte(identity)) + `"}`)
	}
	id, err := DecodeIdentity("node.json", file(`{"cluster":7,"uuid":"u","meta_id":1,"data_id":2}`))
	if want := (Identity{ClusterID: 7, UUID: "u", MetaID: 1, DataID: 2, Replica: 1}); err != nil || id != want {
		t.Errorf("version 1: %+v, error %v", id, err)
	}
	_, err = DecodeIdentity("node.json", file(`{"version":3,"cluster":7,"uuid":"u","meta_id":1,"data_id":2}`))
	if dsdb.KindOf(err) != dsdb.KindInvalid || !strings.Contains(err.Error(), "newer") {
		t.Errorf("version 3: error %v", err)
	}
}

func FuzzDecodeIdentity(f *testing.F) {
	f.Add([]byte(`{"identity":{"cluster":1,"uuid":"u","meta_id":1,"data_id":2},"crc32c":"00000000"}`))
	f.Add([]byte(`{"identity":{},"crc32c":"` + crcText([]byte("{}")) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := DecodeIdentity("node.json", b); err != nil && dsdb.KindOf(err) != dsdb.KindCorrupt && dsdb.KindOf(err) != dsdb.KindInvalid {
			t.Fatal(err)
		}
	})
}

// A disk that is full when a snapshot has its name, or is about to: nobody is told
// that the catalogue is as it was, as that may not be so after a crash.
func TestFullDiskAtTheEndOfAnInstall(t *testing.T) {
	log := entries(2, 20)
	from := openStore(t, vfs.NewMem(1), "meta")
	apply(t, from, log)
	m, release, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b, err := vfs.ReadFile(from.fs, path.Join("meta", m.Files[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{vfs.OpRename, vfs.OpSyncDir} {
		mem, full := vfs.NewMem(1), false
		if err := errors.Join(mem.MkdirAll("incoming"), vfs.WriteFile(mem, path.Join("incoming", m.Files[0].Name), b)); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, vfs.Faulty(mem, func(op, _ string) error {
			if full && op == at {
				return syscall.ENOSPC
			}
			return nil
		}), "meta")
		full = true
		if err := s.Install(m, "incoming"); err == nil || vfs.NoSpace(err) {
			t.Errorf("%s: %v", at, err)
		}
	}
}
