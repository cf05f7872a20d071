package rpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/raftnode"
)

func TestAFrameThatChangedOnItsWayIsFound(t *testing.T) {
	good := appendFrame(nil, kindData, []byte("what was sent"))
	for bit := range 8 * len(good) {
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		f, err := readFrame(bufio.NewReader(bytes.NewReader(b)), 1000)
		if err == nil {
			t.Fatalf("bit %d: %v %q", bit, f.kind, f.body)
		}
	}
	for n := range good {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(good[:n])), 1000); err != io.EOF && n == 0 || err != io.ErrUnexpectedEOF && n > 0 {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestRaftFramesHoldWhatFits(t *testing.T) {
	var msgs []raftnode.Envelope
	for g := range 40 {
		msgs = append(msgs, appendMessage(dsdb.GroupID(g), 100<<10), heartbeat(dsdb.GroupID(g)))
	}
	var got []raftnode.Envelope
	frames := 0
	for rest := msgs; len(rest) > 0; frames++ {
		b, n := appendRaftFrame(nil, rest)
		rest = rest[n:]
		f, err := readFrame(bufio.NewReader(bytes.NewReader(b)), maxRaftFrame)
		if err != nil || f.kind != kindRaft || f.count != n {
			t.Fatal(f.kind, f.count, n, err)
		}
		part, err := decodeEnvelopes(f.body, f.count)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part...)
	}
	if frames != 4 || len(got) != len(msgs) {
		t.Fatal(frames, len(got))
	}
	for i := range got {
		if got[i].Group != msgs[i].Group || !proto.Equal(got[i].Message, msgs[i].Message) {
			t.Fatalf("message %d: %v", i, got[i].Message)
		}
	}
}

// Raft keeps entries in memory for a while. One that came in a frame with much
// else does not keep the frame.
func TestSmallEntriesDoNotKeepTheirFrame(t *testing.T) {
	small, large := appendMessage(1, 100), appendMessage(2, 500<<10)
	small.Message.Entries = append(small.Message.Entries, &raftpb.Entry{Index: new(uint64(10))}, appendMessage(1, 7).Message.Entries[0])
	sent := []raftnode.Envelope{small, large, small}
	frame, _ := appendRaftFrame(nil, sent)
	body := frame[headerSize:]
	got, err := decodeEnvelopes(body, len(sent))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sent {
		if !proto.Equal(got[i].Message, sent[i].Message) {
			t.Fatalf("message %d: %v", i, got[i].Message)
		}
	}
	clear(body)
	for _, i := range []int{0, 2} {
		if !proto.Equal(got[i].Message, small.Message) {
			t.Errorf("message %d lies in the frame", i)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, c := range []struct {
		err  error
		want dsdb.Error
	}{
		{errors.New("plain"), dsdb.Error{Kind: dsdb.KindInternal, Text: "plain"}},
		{dsdb.Errorf(dsdb.KindNotFound, "no %d", 7), dsdb.Error{Kind: dsdb.KindNotFound, Text: "no 7"}},
		{fmt.Errorf("x: %w", &dsdb.Error{Kind: dsdb.KindNotLeader, Text: "y", Leader: 3}), dsdb.Error{Kind: dsdb.KindNotLeader, Text: "x: y", Leader: 3}},
		{context.Canceled, dsdb.Error{Kind: dsdb.KindTimeout, Text: "timeout: context canceled"}},
	} {
		if got := decodeFailure(appendFailure(nil, c.err)).(*dsdb.Error); *got != c.want {
			t.Errorf("%v arrives as %+v", c.err, got)
		}
	}
	if err := decodeFailure([]byte{200, 0, 0, 0, 0, 0, 0, 0, 0, 'z'}); dsdb.KindOf(err) != dsdb.KindInternal || err.Error() != "z" {
		t.Error(err)
	}
}

func FuzzFrame(f *testing.F) {
	raft, _ := appendRaftFrame(nil, []raftnode.Envelope{heartbeat(1), appendMessage(2, 10)})
	f.Add(raft)
	f.Add(appendFrame(appendFrame(nil, kindRequest, []byte("x")), kindEnd, nil))
	f.Add(append(appendFrame(nil, kindFailure, appendFailure(nil, io.EOF)), 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			fr, err := readFrame(r, 1<<16)
			if err != nil {
				if err != io.EOF && err != io.ErrUnexpectedEOF && dsdb.KindOf(err) != dsdb.KindCorrupt {
					t.Fatal(err)
				}
				return
			}
			if fr.kind != kindRaft {
				continue
			}
			checkEnvelopes(t, fr.body, fr.count)
		}
	})
}

// FuzzEnvelopes feeds the decoder behind the checksum.
func FuzzEnvelopes(f *testing.F) {
	raft, _ := appendRaftFrame(nil, []raftnode.Envelope{heartbeat(1), appendMessage(2, 10)})
	f.Add(raft[headerSize:], uint16(2))
	f.Add(raft[headerSize:], uint16(60000))
	f.Fuzz(func(t *testing.T, b []byte, count uint16) { checkEnvelopes(t, b, int(count)) })
}

func checkEnvelopes(t *testing.T, b []byte, count int) {
	msgs, err := decodeEnvelopes(b, count)
	if err != nil && dsdb.KindOf(err) != dsdb.KindCorrupt {
		t.Fatal(err)
	}
	if err == nil && len(msgs) != count {
		t.Fatalf("%d messages, want %d", len(msgs), count)
	}
}

func BenchmarkCall(b *testing.B) {
	for _, size := range []int{64, 100 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := start(b, 1), start(b, 2)
			acquaint(x, y)
			y.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body[:64], nil })
			body := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := x.Call(context.Background(), 21, "echo", body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkCallAlone has one call at a time: nothing to batch.
func BenchmarkCallAlone(b *testing.B) {
	x, y := start(b, 1), start(b, 2)
	acquaint(x, y)
	y.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
	body := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Call(context.Background(), 21, "echo", body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRaftMessages(b *testing.B) {
	for _, m := range []raftnode.Envelope{heartbeat(1), appendMessage(1, 64<<10)} {
		size := max(weight(&m), 1)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := start(b, 1), start(b, 2)
			acquaint(x, y)
			eventually(b, "connected", func() bool { return x.up(2) })
			b.SetBytes(int64(size))
			b.ReportAllocs()
			batch := []raftnode.Envelope{m, m, m, m, m, m, m, m}
			want := 0
			for b.Loop() {
				if want%8 == 0 {
					for want-y.raft.count() > 64 {
						runtime.Gosched()
					}
					x.Send(21, batch)
				}
				want++
			}
		})
	}
}

func BenchmarkStream(b *testing.B) {
	x, y := start(b, 1), start(b, 2)
	acquaint(x, y)
	y.HandleStream("drain", func(_ context.Context, _ Process, s *Stream) error {
		for {
			if _, err := s.Recv(); err != nil {
				return nil
			}
		}
	})
	for _, size := range []int{16 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, err := x.Open(context.Background(), 21, "drain")
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			m := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Send(m); err != nil {
					b.Fatal(err)
				}
			}
			s.CloseSend()
			if _, err := s.Recv(); err != io.EOF {
				b.Fatal(err)
			}
		})
	}
}

// A frame that announces more than comes takes no memory for it, and one of any
// length is read whole.
func TestTSEC9FramesTakeMemoryAsTheyCome(t *testing.T) {
	for _, n := range []int{0, 1, firstRead - 1, firstRead, firstRead + 1, 2 * firstRead, 5*firstRead + 7} {
		body := bytes.Repeat([]byte{1, 2, 3}, n/3+1)[:n]
		f, err := readFrame(bufio.NewReader(bytes.NewReader(appendFrame(nil, kindData, body))), maxDataFrame)
		if err != nil || !bytes.Equal(f.body, body) {
			t.Errorf("%d bytes: %d came, error %v", n, len(f.body), err)
		}
	}
	large := appendFrame(nil, kindData, make([]byte, maxDataFrame))[:headerSize+100]
	before, after := runtime.MemStats{}, runtime.MemStats{}
	runtime.ReadMemStats(&before)
	if _, err := readFrame(bufio.NewReader(bytes.NewReader(large)), maxDataFrame); err != io.ErrUnexpectedEOF {
		t.Errorf("a frame that is cut off: %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 2*firstRead {
		t.Errorf("%d bytes for a frame of which 100 came", took)
	}
}
