package raftnode

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func randomMessage(rng *rand.Rand) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MessageType(rng.IntN(24)).Enum()}
	for _, p := range []**uint64{&m.To, &m.From, &m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.Vote, &m.RejectHint} {
		if rng.IntN(2) == 0 {
			*p = new(rng.Uint64() >> rng.IntN(64))
		}
	}
	switch rng.IntN(4) {
	case 0:
		m.Reject = new(rng.IntN(2) == 0)
	case 1:
		m.Context = make([]byte, rng.IntN(20))
	case 2:
		for i := range uint64(rng.IntN(5)) {
			e := randomEntry(rng, i, i)
			if rng.IntN(5) == 0 {
				e = &raftpb.Entry{}
			}
			if rng.IntN(5) == 0 {
				e.Data = []byte{}
			}
			m.Entries = append(m.Entries, e)
		}
	case 3:
		m.Snapshot = &raftpb.Snapshot{Data: []byte("members"), Metadata: &raftpb.SnapshotMetadata{Index: new(rng.Uint64()), Term: new(uint64(7)),
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{3}, Learners: []uint64{4}, LearnersNext: []uint64{5}, AutoLeave: new(true)}}}
	}
	return m
}

func TestMessagesComeBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 5000 {
		m := randomMessage(rng)
		b := AppendMessage([]byte("before"), m)[6:]
		back, err := DecodeMessage(b)
		if err != nil || !proto.Equal(m, back) {
			t.Fatalf("%v came back as %v, %v", m, back, err)
		}
		for i, e := range back.GetEntries() {
			if entrySize(e) != entrySize(m.Entries[i]) {
				t.Fatalf("%v measures otherwise than %v", e, m.Entries[i])
			}
		}
		for n := range b {
			if _, err := DecodeMessage(b[:n]); err == nil {
				t.Fatalf("%v: %d of %d bytes are taken for a message", m, n, len(b))
			}
		}
	}
}

// A message is encoded by another goroutine than that which made it: it is left as it is.
func TestMessagesAreOnlyRead(t *testing.T) {
	for _, conf := range []*raftpb.ConfState{nil, {Voters: []uint64{1}}} {
		m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf}}}
		before := proto.Clone(m)
		if _, err := DecodeMessage(AppendMessage(nil, m)); err != nil || !proto.Equal(m, before) {
			t.Errorf("%v became %v, %v", before, m, err)
		}
	}
}

func TestEntriesAliasTheBuffer(t *testing.T) {
	b := AppendMessage(nil, &raftpb.Message{Entries: []*raftpb.Entry{{Data: []byte("data")}}})
	m, err := DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("data"))] = 'D'
	if got := string(m.Entries[0].Data); got != "Data" {
		t.Errorf("%q", got)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	rng := rand.New(rand.NewPCG(4, 4))
	f.Add([]byte{})
	for range 20 {
		f.Add(AppendMessage(nil, randomMessage(rng)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMessage(data)
		if err == nil && !bytes.Equal(AppendMessage(nil, m), data) {
			t.Errorf("%x: %v goes back as %x", data, m, AppendMessage(nil, m))
		}
	})
}

func benchMessages() map[string]*raftpb.Message {
	n := func(v uint64) *uint64 { return &v }
	app := &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: n(12), From: n(11), Term: n(7), LogTerm: n(7), Index: n(123456), Commit: n(123450)}
	for i := range uint64(16) {
		app.Entries = append(app.Entries, &raftpb.Entry{Term: n(7), Index: n(123457 + i), Data: make([]byte, 4096)})
	}
	return map[string]*raftpb.Message{"append16x4KiB": app,
		"heartbeat": {Type: raftpb.MsgHeartbeat.Enum(), To: n(12), From: n(11), Term: n(7), Commit: n(123450)}}
}

func BenchmarkMessage(b *testing.B) {
	for name, m := range benchMessages() {
		own, pb := AppendMessage(nil, m), []byte(nil)
		pb, err := proto.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 0, 2*len(own))
		for _, c := range []struct {
			name string
			run  func() error
		}{
			{"encode/own", func() error { buf = AppendMessage(buf[:0], m); return nil }},
			{"encode/proto", func() error { _, err := proto.MarshalOptions{}.MarshalAppend(buf[:0], m); return err }},
			{"decode/own", func() error { _, err := DecodeMessage(own); return err }},
			{"decode/proto", func() error { return proto.Unmarshal(pb, new(raftpb.Message)) }},
		} {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(own)))
				for b.Loop() {
					if err := c.run(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// What a newer version wrote into the log, or sends, is refused by name.
func TestNewerFormatIsRefused(t *testing.T) {
	entry := appendProposal(nil, 1, 2, []byte("x"))
	entry[0]++
	if _, _, _, err := openProposal(entry); err == nil || !strings.Contains(err.Error(), "format 2, this program reads 1") {
		t.Errorf("entry: %v", err)
	}
	message := AppendMessage(nil, &raftpb.Message{})
	message[0]++
	if _, err := DecodeMessage(message); err == nil || !strings.Contains(err.Error(), "not of version 1") {
		t.Errorf("message: %v", err)
	}
}
