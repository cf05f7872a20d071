package chaos

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Proxy stands between the nodes: Forward opens the address at which the others
// reach one node. Each byte from one node to another passes it, so that it can
// be delayed, or held up in one direction only.
type Proxy struct {
	names map[string]int // address → node

	mu    sync.Mutex
	rand  *rand.Rand            // guarded by mu
	delay time.Duration         // guarded by mu; each piece of data waits up to twice as long
	cut   map[[2]int]bool       // guarded by mu; from, to
	conns map[net.Conn]struct{} // guarded by mu
	lns   []net.Listener
	wg    sync.WaitGroup
}

// NewProxy makes a proxy for the nodes of n. seed decides its delays.
func NewProxy(n *Network, seed uint64) *Proxy {
	p := &Proxy{names: map[string]int{}, rand: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]int]bool{}, conns: map[net.Conn]struct{}{}}
	for i := 1; i <= n.nodes; i++ {
		p.names[n.Addr(i)] = i
	}
	return p
}

// Forward takes connections at listen and passes them on to target, an address of node to.
func (p *Proxy) Forward(listen, target string, to int) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	p.lns = append(p.lns, ln)
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c, target, to) })
		}
	})
	return nil
}

// SetDelay makes each piece of data wait up to twice d, by chance.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut holds up what node from sends to node to, without a sign to either; or
// lets it pass again.
func (p *Proxy) Cut(from, to int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut[[2]int{from, to}] = cut
}

// Reset breaks all connections.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Close ends the proxy.
func (p *Proxy) Close() error {
	var errs []error
	for _, ln := range p.lns {
		errs = append(errs, ln.Close())
	}
	p.mu.Lock()
	clear(p.cut)
	p.mu.Unlock()
	p.Reset()
	p.wg.Wait()
	return errors.Join(errs...)
}

func (p *Proxy) serve(in net.Conn, target string, to int) {
	host, _, _ := net.SplitHostPort(in.RemoteAddr().String())
	from := p.names[host]
	for p.held(from, to) {
		time.Sleep(10 * time.Millisecond)
	}
	out, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		if tcp, ok := in.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a refused connection, as the node itself would have answered
		}
		_ = in.Close()
		return
	}
	p.mu.Lock()
	p.conns[in], p.conns[out] = struct{}{}, struct{}{}
	p.mu.Unlock()
	p.wg.Go(func() { p.pump(out, in, to, from) })
	p.pump(in, out, from, to)
}

// pump passes data from src, the node from's end, on to dst.
func (p *Proxy) pump(src, dst net.Conn, from, to int) {
	defer func() {
		_, _ = src.Close(), dst.Close()
		p.mu.Lock()
		delete(p.conns, src)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.wait(from, to)
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if tcp, ok := dst.(*net.TCPConn); ok && !errors.Is(err, io.EOF) {
				_ = tcp.SetLinger(0)
			}
			return
		}
	}
}

// wait returns when data from one node may go on to the other.
func (p *Proxy) wait(from, to int) {
	p.mu.Lock()
	d := time.Duration(0)
	if p.delay > 0 {
		d = time.Duration(p.rand.Int64N(int64(2 * p.delay)))
	}
	p.mu.Unlock()
	time.Sleep(d)
	for p.held(from, to) {
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *Proxy) held(from, to int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut[[2]int{from, to}]
}
