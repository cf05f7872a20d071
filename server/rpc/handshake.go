package rpc

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/mutant"
)

// The versions of the protocol that this program speaks.
const (
	oldestProtocol = 1
	newestProtocol = 1
)

// upgrade is the protocol that a connection is upgraded to. The version in it
// names the way of the handshake; what follows is agreed on in the handshake.
const upgrade = "dsdb-peer/1"

const (
	nonceSize = 32
	macSize   = sha256.Size
)

// class is what a connection carries.
type class uint8

// The classes of connections.
const (
	control class = iota // raft messages without entries
	bulk                 // raft messages with entries
	calling
	streaming
	classes
)

func (c class) String() string {
	return [...]string{"control", "bulk", "call", "stream"}[c]
}

// greeting is what each side says of itself: the dialer in its hello, the
// accepter in its challenge. They differ in the kind of their frames alone.
type greeting struct {
	oldest, newest uint16 // protocol; in a challenge both are the one chosen
	class          class
	secret         bool // the sender wants proof, and gives it
	instance       uint64
	nonce          [nonceSize]byte
	process        Process
}

// appendGreeting appends the body of a hello or challenge. The first four bytes
// keep their place in all versions.
func appendGreeting(dst []byte, g *greeting) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, g.oldest)
	dst = binary.LittleEndian.AppendUint16(dst, g.newest)
	dst = append(dst, byte(g.class), 0)
	if g.secret {
		dst[len(dst)-1] = 1
	}
	dst = binary.LittleEndian.AppendUint64(dst, g.instance)
	dst = append(dst, g.nonce[:]...)
	p := &g.process
	for _, v := range [...]uint64{p.Cluster, uint64(p.MetaID), uint64(p.DataID), p.Epoch} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = appendShort(dst, p.UUID)
	dst = appendShort(dst, p.Addr)
	return appendShort(dst, p.Version)
}

// decodeGreeting reads a greeting. Of one of another protocol only the versions are set.
func decodeGreeting(b []byte) (greeting, error) {
	d := decoder{b: b}
	g := greeting{oldest: d.u16(), newest: d.u16()}
	if d.err == nil && (g.oldest > newestProtocol || g.newest < oldestProtocol) {
		return g, nil
	}
	g.class = class(d.u8())
	g.secret = d.u8() != 0
	g.instance = d.u64()
	copy(g.nonce[:], d.bytes(nonceSize))
	g.process = Process{Cluster: d.u64(), MetaID: dsdb.NodeID(d.u64()), DataID: dsdb.NodeID(d.u64()), Epoch: d.u64()}
	g.process.UUID, g.process.Addr, g.process.Version = d.short(), d.short(), d.short()
	if d.err != nil {
		return greeting{}, fmt.Errorf("handshake: %w", d.err)
	}
	if g.class >= classes || len(d.b) > 0 {
		return greeting{}, dsdb.Errorf(dsdb.KindCorrupt, "handshake: class %d, %d bytes too many", g.class, len(d.b))
	}
	return g, nil
}

// proof is the HMAC-SHA256 with which one side shows that it has the secret. It
// covers both greetings: identities, nonces, class and versions.
func proof(secret []byte, side string, hello, challenge []byte) []byte {
	m := hmac.New(sha256.New, secret)
	fmt.Fprintf(m, "%s %s %d %d ", upgrade, side, len(hello), len(challenge))
	m.Write(hello)
	m.Write(challenge)
	return m.Sum(nil)
}

// The sides of a proof. They differ so that no proof can be sent back.
const (
	sideDialer   = "dialer"
	sideAccepter = "accepter"
)

// greeted is the outcome of a handshake.
type greeted struct {
	greeting
	proved bool // the other side has shown that it has the secret
}

// verdict decides about the greeting of the other side, before it has proved
// anything (proved false) and when it is about to be believed (proved true).
type verdict func(g *greeting, proved bool) error

// exchange is one handshake: its connection and this side's greeting.
type exchange struct {
	r      *bufio.Reader
	w      io.Writer
	self   greeting
	secret []byte
	judge  verdict
}

// dial does the dialer's part. An error of the type refusal was sent by the other side.
func (x *exchange) dial() (greeted, error) {
	hello := appendGreeting(nil, &x.self)
	if err := x.send(kindHello, hello); err != nil {
		return greeted{}, err
	}
	challenge, err := x.receive(kindChallenge)
	if err != nil {
		return greeted{}, err
	}
	g, err := decodeGreeting(challenge)
	if err == nil {
		err = x.check(&g)
	}
	if err != nil {
		return greeted{}, x.refuse(err)
	}
	var mac []byte
	if len(x.secret) > 0 {
		mac = proof(x.secret, sideDialer, hello, challenge)
	}
	if err := x.send(kindProof, mac); err != nil {
		return greeted{}, err
	}
	answer, err := x.receive(kindReady)
	if err != nil {
		return greeted{}, err
	}
	return x.believe(g, answer, proof(x.secret, sideAccepter, hello, challenge))
}

// accept does the accepter's part up to where it believes the dialer; ready is
// to be sent once there is a place for the connection.
func (x *exchange) accept() (g greeted, ready []byte, err error) {
	hello, err := x.receive(kindHello)
	if err != nil {
		return greeted{}, nil, err
	}
	them, err := decodeGreeting(hello)
	if err == nil {
		err = x.check(&them)
	}
	if err != nil {
		return greeted{}, nil, x.refuse(err)
	}
	x.self.class = them.class
	x.self.oldest = min(newestProtocol, them.newest)
	x.self.newest = x.self.oldest
	challenge := appendGreeting(nil, &x.self)
	if err := x.send(kindChallenge, challenge); err != nil {
		return greeted{}, nil, err
	}
	answer, err := x.receive(kindProof)
	if err != nil {
		return greeted{}, nil, err
	}
	g, err = x.believe(them, answer, proof(x.secret, sideDialer, hello, challenge))
	if err == nil && len(x.secret) > 0 {
		ready = proof(x.secret, sideAccepter, hello, challenge)
	}
	return g, ready, err
}

// check refuses what a greeting alone shows to be wrong.
func (x *exchange) check(g *greeting) error {
	switch {
	case g.oldest > newestProtocol || g.newest < oldestProtocol:
		return refusef(badProtocol, "the other process speaks protocol %d to %d, this one %d to %d: one of them needs another program",
			g.oldest, g.newest, oldestProtocol, newestProtocol)
	case g.process.Cluster != x.self.process.Cluster:
		return refusef(badCluster, "the process at %s is of cluster %d, this one of %d: if they were of one before, one of them has lost its folders, or their disk is not mounted",
			g.process.Addr, g.process.Cluster, x.self.process.Cluster)
	case mutant.VersionsMustMatch && g.process.Version != x.self.process.Version:
		return refusef(badProtocol, "the process at %s is of version %s", g.process.Addr, g.process.Version)
	case g.secret && len(x.secret) == 0:
		return refusef(badSecret, "one process has a shared secret, the one at %s has none", x.self.process.Addr)
	case !g.secret && len(x.secret) > 0:
		return refusef(badSecret, "one process has a shared secret, the one at %s has none", g.process.Addr)
	}
	return x.judge(g, false)
}

// believe checks the other side's proof and asks for the last judgement on it.
func (x *exchange) believe(g greeting, mac, want []byte) (greeted, error) {
	proved := len(x.secret) > 0
	if proved && !hmac.Equal(mac, want) && !mutant.StrangerAccepted {
		return greeted{}, x.refuse(refusef(badSecret,
			"the process at %s has another shared secret, or repeats an old handshake", g.process.Addr))
	}
	if err := x.judge(&g, true); err != nil {
		return greeted{}, x.refuse(err)
	}
	return greeted{greeting: g, proved: proved}, nil
}

func (x *exchange) send(k kind, body []byte) error {
	if _, err := x.w.Write(appendFrame(nil, k, body)); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return nil
}

// receive returns the body of the next frame, which must be of kind k.
func (x *exchange) receive(k kind) ([]byte, error) {
	f, err := readFrame(x.r, maxGreeting)
	switch {
	case err != nil:
		return nil, fmt.Errorf("handshake: %w", err)
	case f.kind == kindRefuse:
		return nil, decodeRefusal(f.body)
	case f.kind != k:
		return nil, dsdb.Errorf(dsdb.KindCorrupt, "handshake: frame of kind %d where %d should be", f.kind, k)
	}
	return f.body, nil
}

// refuse tells the other side why and returns the error.
func (x *exchange) refuse(err error) error {
	_ = x.send(kindRefuse, appendRefusal(nil, err))
	return err
}

// reason is a class of refusals; each is logged once for each process.
type reason uint8

// The reasons to refuse a process.
const (
	badHandshake reason = iota // not a handshake at all
	badProtocol
	badCluster
	badSecret
	badIdentity
	badEpoch
	badSelf
	badRemoved
	badCrowd
	badCertificate // or none, before the handshake begins
	reasons
)

// refusal is an error that ended a handshake for good.
type refusal struct {
	reason reason
	text   string
	remote bool // it was the other side that refused
}

func (r *refusal) Error() string {
	if r.remote {
		return "refused by the peer: " + r.text
	}
	return "refused: " + r.text
}

// cause tells refusals of a process apart: those for one reason are alike, but that
// certificates are refused for many.
func (r *refusal) cause() string {
	if r.reason != badCertificate {
		return fmt.Sprint(r.reason, r.remote)
	}
	lasting, _, _ := strings.Cut(r.text, ": current time")
	return fmt.Sprint(r.reason, r.remote, lasting)
}

func refusef(r reason, format string, args ...any) error {
	return &refusal{reason: r, text: fmt.Sprintf(format, args...)}
}

func appendRefusal(dst []byte, err error) []byte {
	if r, ok := err.(*refusal); ok {
		return append(append(dst, byte(r.reason)), r.text...)
	}
	return append(append(dst, byte(badHandshake)), err.Error()...)
}

// decodeRefusal reads what appendRefusal wrote; anything is a refusal.
func decodeRefusal(b []byte) error {
	r := &refusal{remote: true}
	if len(b) > 0 {
		r.reason, r.text = min(reason(b[0]), reasons), string(bytes.ToValidUTF8(b[1:min(len(b), 1<<10)], []byte("?")))
	}
	return r
}
