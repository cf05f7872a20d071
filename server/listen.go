package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dasudian/dsdb/internal/mutant"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
	"github.com/dasudian/dsdb/server/rpc"
)

// purpose is a set of what one listener serves.
type purpose uint8

// The purposes of listeners. Those that are configured with one address share it.
const (
	forClients purpose = 1 << iota // the API of [http]
	forPeers                       // the connections of other nodes
	forJoining                     // the API of [meta]: join, status, peers, snapshot
)

// door is where requests come in. It is there before the node is: until the
// parts behind it are, it says that the node is starting.
type door struct {
	n        *Node
	instance uint64      // random, of this start
	outgoing *tls.Config // of connections to other nodes; nil: plain
	gates    []*gate
	admitter *admitter
	failed   chan error // why a listener ended
	stopping context.Context
	stop     context.CancelFunc // ends stopping: requests that wait for something are to end

	api     atomic.Pointer[httpd.Handler]
	peers   atomic.Pointer[rpc.Peers]
	serving sync.WaitGroup
	closing sync.Once
}

// gate is one listener.
type gate struct {
	door    *door
	purpose purpose
	address string // as configured
	listen  net.Listener
	server  *http.Server
	secure  *tls.Config  // nil: plain
	prove   bool         // other nodes must show a certificate
	limit   int64        // connections of clients; 0: none
	open    atomic.Int64 // connections that are not another node's
}

// openDoor opens the listeners and serves them.
func (n *Node) openDoor(id meta.Identity) error {
	d := &door{n: n, instance: randomID(), failed: make(chan error, 3)}
	d.stopping, d.stop = context.WithCancel(context.Background())
	n.door = d
	n.onClose(func() error { d.close(); return nil })
	d.admitter = newAdmitter(n, id)
	if err := d.listenAll(); err != nil {
		return err
	}
	addrs, err := n.cfg.Advertised(os.Hostname)
	if err != nil {
		return err
	}
	n.addrs = addrs
	n.warnOfCertificates(time.Now())
	for _, g := range d.gates {
		d.serving.Add(1)
		go func() {
			defer d.serving.Done()
			if err := g.server.Serve(g.listen); !errors.Is(err, http.ErrServerClosed) {
				d.failed <- fmt.Errorf("listener %s: %w", g.address, err)
			}
		}()
	}
	return nil
}

// listenAll makes a gate for each address that is configured. A port 0 becomes
// the one that was found, in the configuration too.
func (d *door) listenAll() error {
	c := &d.n.cfg
	client, peer, err := d.certificates()
	if err != nil {
		return err
	}
	for _, a := range []struct {
		key     string
		address *string
		purpose purpose
		secure  *tls.Config
	}{
		{"[http] bind-address", &c.HTTP.BindAddress, forClients, client},
		{"[meta] bind-address", &c.Meta.BindAddress, forPeers, peer},
		{"[meta] http-bind-address", &c.Meta.HTTPBindAddress, forJoining, peer},
	} {
		if *a.address == "" || a.purpose == forClients && !c.HTTP.Enabled {
			continue
		}
		if g := d.sharing(*a.address); g != nil {
			if (g.secure == nil) != (a.secure == nil) {
				return fmt.Errorf("%s %s is the address of %s too: set https-enabled in both [http] and [meta] or in neither", a.key, *a.address, g.address)
			}
			if g.purpose |= a.purpose; peer != nil {
				g.secure.ClientAuth, g.secure.ClientCAs = peer.ClientAuth, peer.ClientCAs
			}
			continue
		}
		ln, err := d.listen(a.key, *a.address)
		if d.mayDoWithout(err, a.purpose, *a.address) {
			d.n.log.Warn("this node cannot be joined by others", "err", err)
			*a.address = ""
			continue
		}
		if err != nil {
			return err
		}
		*a.address = withPort(*a.address, ln.Addr())
		d.add(*a.address, a.purpose, ln, a.secure)
	}
	return nil
}

// mayDoWithout reports whether a node that is alone can be so without an
// address that nobody has asked for.
func (d *door) mayDoWithout(err error, p purpose, address string) bool {
	return errors.Is(err, syscall.EADDRINUSE) && p != forClients && d.n.cfg.Meta.Join == "" &&
		(address == "127.0.0.1:8088" || address == "127.0.0.1:8091")
}

// add makes a gate of a listener.
func (d *door) add(address string, p purpose, ln net.Listener, secure *tls.Config) {
	g := &gate{door: d, purpose: p, address: address, secure: secure, listen: ln,
		prove: d.n.cfg.Meta.CA != "", limit: int64(d.n.cfg.HTTP.MaxConnections)}
	if secure != nil {
		g.listen = tls.NewListener(ln, secure)
	}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ConnState: g.count,
		ErrorLog: log.New(&handshakes{gate: g, log: d.n.log, told: map[string]bool{}}, "", 0)}
	d.gates = append(d.gates, g)
}

// sharing returns the gate that has the address already, nil if none has.
func (d *door) sharing(address string) *gate {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return nil
	}
	for _, g := range d.gates {
		h, p, _ := net.SplitHostPort(g.address)
		if p == port && (strings.EqualFold(h, host) || everyAddress(h)) {
			return g
		}
	}
	return nil
}

// everyAddress reports whether a host to listen on stands for all addresses.
func everyAddress(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// withPort replaces port 0 of an address by that of a listener.
func withPort(address string, got net.Addr) string {
	host, port, err := net.SplitHostPort(address)
	if a, ok := got.(*net.TCPAddr); ok && err == nil && port == "0" {
		return net.JoinHostPort(host, strconv.Itoa(a.Port))
	}
	return address
}

// listen opens one listener; key names it in errors.
func (d *door) listen(key, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, address, err)
	}
	at, err := listenHost(host, lookup)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, address, err)
	}
	if at == "" && host != "" {
		d.n.log.Warn("the name of this machine stands for loopback here, where others cannot reach it: listening on every address instead", "name", host, "port", port)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(at, port))
	if errors.Is(err, syscall.EADDRINUSE) {
		variable := "DSDB_" + strings.NewReplacer("[", "", "] ", "_", "-", "_").Replace(strings.ToUpper(key))
		return nil, fmt.Errorf("%w: another server has the address: set %s or %s", err, key, variable)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, address, err)
	}
	return ln, nil
}

// listenHost returns where to listen for a host: itself, but every address for a
// name that only this machine itself would find there, as Debian's 127.0.1.1
// for the name of the machine. find resolves a name.
func listenHost(host string, find func(name string) ([]netip.Addr, error)) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.EqualFold(host, "localhost") {
		return host, nil
	}
	ips, err := find(host)
	if err != nil {
		return "", fmt.Errorf("this machine does not know the name: %w", err)
	}
	loopback := func(ip netip.Addr) bool { return ip.Unmap().IsLoopback() }
	if !slices.ContainsFunc(ips, loopback) {
		return host, nil
	}
	if ips = slices.DeleteFunc(ips, loopback); len(ips) > 0 {
		return ips[0].Unmap().String(), nil
	}
	return "", nil
}

// lookup resolves a name.
func lookup(name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// certificates returns the TLS of clients and of other nodes; nil: plain.
func (d *door) certificates() (client, peer *tls.Config, err error) {
	h, m := d.n.cfg.HTTP, d.n.cfg.Meta
	if h.Enabled && h.HTTPS {
		if client, err = secured(h.Certificate, h.PrivateKey); err != nil {
			return nil, nil, fmt.Errorf("http: certificate: %w", err)
		}
	}
	if !m.HTTPS {
		return client, nil, nil
	}
	if peer, err = secured(m.Certificate, m.PrivateKey); err != nil {
		return nil, nil, fmt.Errorf("meta: certificate: %w", err)
	}
	d.outgoing = &tls.Config{Certificates: peer.Certificates, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if m.CA != "" {
		pem, err := os.ReadFile(m.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("meta: https-ca: %w", err)
		}
		peer.ClientCAs = x509.NewCertPool()
		if !peer.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("meta: https-ca %s holds no certificate", m.CA)
		}
		peer.ClientAuth = tls.VerifyClientCertIfGiven
		d.outgoing.RootCAs = peer.ClientCAs
	}
	return client, peer, nil
}

// secured returns the TLS of a listener; key "" means that cert holds it too.
func secured(cert, key string) (*tls.Config, error) {
	if key == "" {
		key = cert
	}
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

// count counts the connections that clients have open.
func (g *gate) count(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		g.open.Add(1)
	case http.StateHijacked, http.StateClosed: // what is hijacked is another node's
		g.open.Add(-1)
	}
}

// ServeHTTP passes a request on to what it is for. Other nodes stand outside the
// limits on clients.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d, path := g.door, r.URL.Path
	mine := path == "/join" || path == "/peers" || path == "/ping" || path == "/status"
	if g.purpose&forClients != 0 {
		mine = path == "/join" || path == "/peers" || path == "/status" && r.URL.Query().Has("cluster")
	}
	switch {
	case path == "/peer" && g.purpose&forPeers != 0:
		if g.proven(w, r) {
			d.servePeer(w, r)
		}
	case mine && g.purpose&forJoining != 0:
		if path != "/join" || g.proven(w, r) {
			d.admitter.ServeHTTP(w, r)
		}
	case g.purpose&forClients == 0 && mutant.HTTPUnanswered:
		panic(http.ErrAbortHandler)
	case path == "/snapshot" && g.purpose&forJoining != 0:
		d.serveAPI(w, r)
	case g.purpose&forClients == 0:
		w.Header().Set("X-Dsdb-Version", d.n.opt.Version)
		http.Error(w, fmt.Sprintf("this address is for the nodes of the cluster; clients are served at %s", d.n.addrs.HTTP), http.StatusNotFound)
	case g.limit > 0 && g.open.Load() > g.limit:
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", "1")
		http.Error(w, `{"error":"too many connections"}`, http.StatusServiceUnavailable)
	default:
		d.serveAPI(w, r)
	}
}

// serveAPI passes a request to the API for clients, which also knows who is an admin.
func (d *door) serveAPI(w http.ResponseWriter, r *http.Request) {
	if h := d.api.Load(); h != nil {
		h.ServeHTTP(w, r)
		return
	}
	httpd.Starting(d.n.opt.Version, d.n.phase.err).ServeHTTP(w, r)
}

// proven reports whether a node that calls has shown a certificate, if it must.
func (g *gate) proven(w http.ResponseWriter, r *http.Request) bool {
	if !g.prove || r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	http.Error(w, "nodes of this cluster show a certificate", http.StatusUnauthorized)
	return false
}

func (d *door) servePeer(w http.ResponseWriter, r *http.Request) {
	if p := d.peers.Load(); p != nil {
		p.ServeHTTP(w, r)
		return
	}
	http.Error(w, rpc.Starting, http.StatusServiceUnavailable)
}

// admitPeers lets other nodes in.
func (d *door) admitPeers(p *rpc.Peers) { d.peers.Store(p) }

// open lets clients in.
func (d *door) open(h *httpd.Handler) { d.api.Store(h) }

// client returns the address of the API for clients; it is not valid if that is off.
func (d *door) client() netip.AddrPort {
	for _, g := range d.gates {
		if a, ok := g.listen.Addr().(*net.TCPAddr); ok && g.purpose&forClients != 0 {
			return a.AddrPort()
		}
	}
	return netip.AddrPort{}
}

// shutdown stops taking requests and returns when those that run have ended.
func (d *door) shutdown(ctx context.Context) error {
	d.stop()
	var errs []error
	for _, g := range d.gates {
		if err := g.server.Shutdown(ctx); err != nil {
			errs = append(errs, err, g.server.Close())
		}
	}
	return errors.Join(errs...)
}

// close ends all listeners and their connections, but for those of other nodes.
func (d *door) close() {
	d.closing.Do(func() {
		d.stop()
		for _, g := range d.gates {
			_ = g.server.Close()
			_ = g.listen.Close()
		}
		d.serving.Wait()
	})
}

// instanceText is how a start of a node is told from others over HTTP.
func instanceText(instance uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], instance)
	return fmt.Sprintf("%x", b)
}
