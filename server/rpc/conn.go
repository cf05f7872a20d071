package rpc

import (
	"bufio"
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dasudian/dsdb"
)

// Time limits of connections.
const (
	handshakeTime = 5 * time.Second
	connectTime   = 1500 * time.Millisecond // one SYN may be lost
	ackTime       = 3 * time.Second         // that sent bytes may stay unacknowledged
	writeTime     = 5 * time.Second         // of a write to a peer that reads all the time
	streamTime    = 2 * time.Minute         // as ackTime, for streams, whose readers may take their time
	firstRetry    = 50 * time.Millisecond
	lastRetry     = time.Second
)

// readBuffer is the size of a connection's buffer; what is larger is read around it.
const readBuffer = 16 << 10

// conn is a connection after its handshake. It is read by one goroutine.
type conn struct {
	net.Conn
	r        *bufio.Reader
	peer     *peer
	from     Process // who is at the other end, as it said when the connection began
	class    class
	incoming bool
	auth     string
	uncut    func() bool // ends the watch of the peer's ctx
}

// read returns the next frame.
func (c *conn) read(limit int) (frame, error) {
	f, err := readFrame(c.r, limit)
	if err != nil {
		return f, fmt.Errorf("peer %s: %w", c.RemoteAddr(), err)
	}
	m := &c.peer.owner.metrics.Received
	m.Frames.Add(1)
	m.Bytes.Add(uint64(headerSize + len(f.body)))
	return f, nil
}

// write writes b, which holds so many frames, within d and a second for each MiB.
func (c *conn) write(b []byte, frames int, d time.Duration) error {
	if err := c.SetWriteDeadline(time.Now().Add(d + time.Duration(len(b)>>20)*time.Second)); err != nil {
		return err
	}
	m := &c.peer.owner.metrics.Sent
	m.Frames.Add(uint64(frames))
	m.Bytes.Add(uint64(len(b)))
	_, err := c.Write(b)
	return err
}

// end closes the connection, and the peer forgets it.
func (c *conn) end() {
	c.uncut()
	c.Close()
	c.peer.detach(c)
}

// connect opens a TCP connection, or what Options.Dial gives.
func (p *Peers) connect(ctx context.Context, addr string) (net.Conn, error) {
	if p.opt.Dial != nil {
		return p.opt.Dial(ctx, addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// dial opens a connection of a class to the peer.
func (q *peer) dial(ctx context.Context, cl class) (*conn, error) {
	addr := q.addr()
	if addr == "" {
		return nil, errors.New("it is not known where it is")
	}
	c, err := q.dialAt(ctx, addr, cl)
	if err != nil {
		q.refused(err)
	}
	return c, err
}

// dialAt opens a connection to the peer at an address where it may be.
func (q *peer) dialAt(ctx context.Context, addr string, cl class) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	short, done := context.WithTimeout(ctx, connectTime)
	raw, err := q.owner.connect(short, addr)
	done()
	if err != nil {
		return nil, err
	}
	tune(raw, cl)
	c, err := q.greet(ctx, raw, addr, cl)
	if err != nil {
		q.owner.refusals.note(q.owner, q.uuid, err)
		return nil, err
	}
	return c, nil
}

// greet upgrades a new connection. It is closed if that fails.
func (q *peer) greet(ctx context.Context, raw net.Conn, addr string, cl class) (*conn, error) {
	p := q.owner
	if p.opt.TLS != nil {
		raw = tls.Client(raw, clientConfig(p.opt.TLS, addr))
	}
	end := func() { raw.Close() }
	given, removed := context.AfterFunc(ctx, end), context.AfterFunc(q.ctx, end)
	defer removed()
	c, err := q.upgrade(raw, addr, cl)
	if !given() && err == nil {
		c.end()
		return nil, ctx.Err()
	}
	if err != nil {
		raw.Close()
		return nil, distrust(err, addr)
	}
	return c, nil
}

func (q *peer) upgrade(raw net.Conn, addr string, cl class) (*conn, error) {
	p := q.owner
	if err := raw.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, class: cl}
	c.r = bufio.NewReaderSize(ear{raw, c}, readBuffer)
	if err := request(c, addr); err != nil {
		return nil, err
	}
	x := p.exchange(c, q)
	x.self.class = cl
	g, err := x.dial()
	if err != nil {
		return nil, err
	}
	c.auth = g.how(raw)
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return c, p.admit(c, &g, q)
}

// Starting is what a process says that listens and does not talk to others yet.
const Starting = "this node is starting"

// errStarting is that the other side said so.
var errStarting = errors.New(Starting)

// request asks for the upgrade and reads the answer.
func request(c *conn, addr string) error {
	_, err := fmt.Fprintf(c, "GET /peer HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", addr, upgrade)
	if err != nil {
		return err
	}
	status, err := c.r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("answer to the upgrade: %w", err)
	}
	proto, text, _ := strings.Cut(strings.TrimSpace(string(status)), " ")
	for range 64 {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("answer to the upgrade: %w", err)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			continue
		}
		if strings.HasPrefix(text, "400 ") || strings.HasPrefix(text, "401 ") { // it wants TLS, or a certificate
			why, _ := c.r.ReadSlice('\n')
			return &refusal{reason: badCertificate, remote: true, text: fmt.Sprintf("%.200s", bytes.ToValidUTF8(bytes.TrimSpace(why), []byte("?")))}
		}
		if strings.HasPrefix(proto, "HTTP/1.") && strings.HasPrefix(text, "101 ") {
			return nil
		}
		body, _ := c.r.ReadSlice('\n')
		if string(bytes.TrimSpace(body)) == Starting {
			return errStarting
		}
		return fmt.Errorf("answer to the upgrade: %.100q %.200q", text, bytes.TrimSpace(body))
	}
	return errors.New("answer to the upgrade: too many header lines")
}

func clientConfig(c *tls.Config, addr string) *tls.Config {
	c = c.Clone()
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(addr)
	}
	c.NextProtos = []string{"http/1.1"}
	return c
}

// exchange makes the handshake of a connection to want, nil if it comes in.
func (p *Peers) exchange(c *conn, want *peer) *exchange {
	x := &exchange{r: c.r, w: c.Conn, secret: p.opt.Secret}
	x.self = greeting{oldest: oldestProtocol, newest: newestProtocol, secret: len(p.opt.Secret) > 0, instance: p.instance, process: p.opt.Self}
	_, _ = crand.Read(x.self.nonce[:]) // never fails, as crypto/rand says
	x.judge = func(g *greeting, proved bool) error {
		err := Certified(secured(c.Conn), g.process.UUID)
		if err == nil {
			err = p.judge(g, want)
		}
		if err == nil && proved {
			err = p.contest(g)
		}
		return err
	}
	return x
}

// how says by what the other side has proved who it is. A certificate counts
// if it was verified and names the UUID.
func (g *greeted) how(c net.Conn) string {
	if g.proved {
		return "secret"
	}
	if s := secured(c); s != nil && len(s.VerifiedChains) > 0 {
		cert := s.PeerCertificates[0]
		if slices.Contains(cert.DNSNames, g.process.UUID) || slices.Contains(namedBy(cert), strings.ToLower(g.process.UUID)) {
			return "certificate"
		}
	}
	return "none"
}

// ServeHTTP upgrades a request of a peer and serves the connection until it
// ends. It takes the connection away from the HTTP server, whose time limits no
// longer hold for it.
func (p *Peers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), upgrade) {
		w.Header().Set("Upgrade", upgrade)
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "this address is for peers: upgrade to "+upgrade, http.StatusUpgradeRequired)
		return
	}
	place := p.handshakes.enter(p.ctx, r.RemoteAddr)
	if place == nil {
		http.Error(w, "too many handshakes at once", http.StatusServiceUnavailable)
		return
	}
	raw, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		place.leave()
		http.Error(w, "this connection cannot be upgraded", http.StatusInternalServerError)
		return
	}
	done := make(chan struct{})
	started := p.start(func() {
		defer close(done)
		p.serve(place, raw, rest.Reader)
	})
	if !started {
		place.leave()
		raw.Close()
		return
	}
	<-done
}

// serve greets an incoming connection and serves it until it ends.
func (p *Peers) serve(place *place, raw net.Conn, rest *bufio.Reader) {
	c, err := p.welcome(place.ctx, raw, rest)
	place.leave()
	if err != nil {
		p.refusals.note(p, raw.RemoteAddr().String(), err)
		raw.Close()
		return
	}
	defer c.end()
	switch c.class {
	case control, bulk:
		c.serveRaft()
	case calling:
		c.serveCalls()
	case streaming:
		c.serveStreams()
	}
}

// welcome does the handshake of an incoming connection. It is not closed if
// that fails, but when ctx ends.
func (p *Peers) welcome(ctx context.Context, raw net.Conn, rest *bufio.Reader) (*conn, error) {
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if err := raw.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, err
	}
	early, err := rest.Peek(rest.Buffered()) // what the peer sent without waiting
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, incoming: true}
	c.r = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(early)), ear{raw, c}), readBuffer)
	_, err = fmt.Fprintf(raw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade)
	if err != nil {
		return nil, err
	}
	x := p.exchange(c, nil)
	g, ready, err := x.accept()
	if err != nil {
		return nil, err
	}
	c.class, c.auth = g.class, g.how(raw)
	tune(raw, c.class)
	if err := p.admit(c, &g, nil); err != nil {
		return nil, x.refuse(err)
	}
	if err = x.send(kindReady, ready); err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// tune makes a connection notice that the other end has gone silent: probes
// while it rests, and a limit on bytes that nobody acknowledges.
func tune(c net.Conn, cl class) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	limit := ackTime
	if cl == streaming {
		limit = streamTime
	}
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3})
	if raw, err := t.SyscallConn(); err == nil {
		const tcpUserTimeout = 18 // TCP_USER_TIMEOUT of linux/tcp.h, in milliseconds
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(limit.Milliseconds()))
		})
	}
}

// refusals record the handshakes that fail.
type refusals struct {
	mu     sync.Mutex
	logged map[string]bool // what has been logged, at most 1024
}

// note counts a handshake that failed for good and logs it, once for each
// cause and process. who is a UUID, or an address of which the host is taken.
func (r *refusals) note(p *Peers, who string, err error) {
	var x *refusal
	if !errors.As(err, &x) {
		p.opt.Logger.Debug("peer handshake failed", "peer", who, "error", err)
		return
	}
	p.metrics.Refused.Add(1)
	if host, _, err := net.SplitHostPort(who); err == nil {
		who = host
	}
	key := x.cause() + " " + who
	r.mu.Lock()
	first := !r.logged[key] && len(r.logged) < 1024
	if first {
		r.logged[key] = true
	}
	r.mu.Unlock()
	if first {
		p.opt.Logger.Warn("peer refused", "peer", who, "error", err)
	}
}

// backoff paces attempts that fail. It is used under its owner's lock.
type backoff struct{ wait time.Duration }

// next returns how long to wait after another failure.
func (b *backoff) next() time.Duration {
	b.wait = min(max(2*b.wait, firstRetry), lastRetry)
	return b.wait/2 + rand.N(b.wait/2) // so that peers do not come back in step
}

// broken logs why reading a connection ended, if it was not just closed.
func (c *conn) broken(err error) {
	if dsdb.KindOf(err) == dsdb.KindCorrupt {
		c.peer.owner.opt.Logger.Error("peer connection is damaged", "peer", c.peer.uuid, "class", c.class, "error", err)
	}
}

func unexpected(k kind) error {
	return dsdb.Errorf(dsdb.KindCorrupt, "frame of kind %d out of place", k)
}
