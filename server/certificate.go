package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/dasudian/dsdb"
)

// Nodes that do not trust each other's certificates find that out in the handshake of
// TLS, where neither learns much: it looks like a broken network. So each says what is
// wrong with its own certificate, and whose it has refused or was refused by.

// expiresSoon is how long before a certificate expires its node warns of that.
const expiresSoon = 14 * 24 * time.Hour

// certificateEvery is how often a node looks at its certificates.
const certificateEvery = 24 * time.Hour

// warnOfCertificates logs what keeps others from trusting this node, or will soon.
func (n *Node) warnOfCertificates(now time.Time) {
	told := map[string]bool{}
	warn := func(secure *tls.Config, hosts []string, where ...any) {
		if secure == nil {
			return
		}
		for _, what := range distrusted(secure.Certificates[0].Leaf, hosts, now) {
			if !told[what] {
				n.log.Warn("look at the certificate of this node: "+what, where...)
			}
			told[what] = true
		}
	}
	for _, g := range n.door.gates {
		warn(g.secure, g.hosts(), "listener", g.address)
	}
	warn(n.door.outgoing, nil)
}

// hosts are the names and addresses at which other nodes look for a gate, if they do.
func (g *gate) hosts() (hosts []string) {
	addrs := g.door.n.addrs
	for _, a := range []struct {
		purpose purpose
		address string
	}{{forPeers, addrs.TCP}, {forJoining, addrs.MetaHTTP}} {
		if host, _, err := net.SplitHostPort(a.address); err == nil && g.purpose&a.purpose != 0 {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// distrusted lists why others do not trust a certificate at one of the hosts, or will
// not soon.
func distrusted(c *x509.Certificate, hosts []string, now time.Time) (why []string) {
	switch {
	case now.Before(c.NotBefore):
		why = append(why, "it is not valid before "+c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		why = append(why, "it has expired on "+c.NotAfter.UTC().Format(time.RFC3339))
	case c.NotAfter.Sub(now) < expiresSoon:
		why = append(why, "it expires on "+c.NotAfter.UTC().Format(time.RFC3339))
	}
	for i, host := range hosts {
		if err := c.VerifyHostname(host); err != nil && (i == 0 || host != hosts[i-1]) {
			why = append(why, fmt.Sprintf("other nodes look for it at %s: %v", host, err))
		}
	}
	return why
}

// fits makes sure that the node at the other end of a connection to a host shows a
// certificate that is good there, by a handshake of TLS.
func fits(ctx context.Context, c net.Conn, secure *tls.Config, host string) error {
	secure = secure.Clone()
	secure.ServerName = host
	err := tls.Client(c, secure).HandshakeContext(ctx)
	var v *tls.CertificateVerificationError
	if errors.As(err, &v) {
		return dsdb.Errorf(dsdb.KindConflict, "the node says that it is reached at %s, and the other nodes do not trust the certificate that it shows there: %w", c.RemoteAddr(), v.Err)
	}
	if err != nil {
		return dsdb.Errorf(dsdb.KindUnavailable, "TLS with the node at %s, which it says is its address: %w", c.RemoteAddr(), err)
	}
	return nil
}

// maxHandshakes bounds the causes of failed handshakes that are remembered.
const maxHandshakes = 1024

// handshakes is the error log of a gate. The handshakes of TLS that fail, of which
// net/http tells nowhere else, are picked from it and logged: those with other nodes
// that are about a certificate, once for each address and cause.
type handshakes struct {
	gate *gate
	log  *slog.Logger

	mu   sync.Mutex // guards told
	told map[string]bool
}

// Write takes a line of the error log.
func (h *handshakes) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	rest, failed := strings.CutPrefix(text, "http: TLS handshake error from ")
	from, cause, _ := strings.Cut(rest, ": ")
	host, _, err := net.SplitHostPort(from)
	if !failed || err != nil || h.gate.purpose&(forPeers|forJoining) == 0 || !strings.Contains(cause, "certificate") {
		h.log.Debug(text)
		return len(line), nil
	}
	cause, refused := strings.CutPrefix(cause, "remote error: ")
	lasting, _, _ := strings.Cut(cause, ": current time")
	key := fmt.Sprint(host, refused, lasting)
	h.mu.Lock()
	first := !h.told[key] && len(h.told) < maxHandshakes
	if first {
		h.told[key] = true
	}
	h.mu.Unlock()
	switch {
	case !first:
	case refused:
		h.log.Warn("the certificate of this node is refused", "by", host, "listener", h.gate.address, "err", cause)
	default:
		h.log.Warn("the certificate of another node is refused", "from", host, "listener", h.gate.address, "err", cause)
	}
	return len(line), nil
}
