package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/server/config"
)

// authority signs certificates of nodes. file has its own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, cert: valid()}
	a.cert.IsCA, a.cert.BasicConstraintsValid, a.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	var der []byte
	der, a.key = a.sign(a.cert, nil)
	a.file = writePEM(t, pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func valid() *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(2 * expiresSoon)}
}

func (a *authority) sign(c *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue writes a certificate with its key for 127.0.0.1, as change makes it.
func (a *authority) issue(change func(*x509.Certificate)) (file string) {
	a.t.Helper()
	c := valid()
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	change(c)
	der, key := a.sign(c, a.key)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return writePEM(a.t, pem.Block{Type: "CERTIFICATE", Bytes: der}, pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func writePEM(t *testing.T, blocks ...pem.Block) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "some.pem")
	var b []byte
	for i := range blocks {
		b = append(b, pem.EncodeToMemory(&blocks[i])...)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// certificates writes an authority and, signed by it, a certificate with its key
// for 127.0.0.1, and names if there are any; it returns the files.
func certificates(t *testing.T, names ...string) (ca, cert string) {
	t.Helper()
	a := newAuthority(t)
	return a.file, a.issue(func(c *x509.Certificate) { c.DNSNames = names })
}

// trusts makes a node show a certificate, and trust those of an authority.
func trusts(a *authority, cert string) func(*config.Config) {
	return func(c *config.Config) { c.Meta.HTTPS, c.Meta.CA, c.Meta.Certificate = true, a.file, cert }
}

// A node that others will not find at its address by the certificate that it shows
// there is not admitted, and it and the cluster say why.
func TestNodeWhoseCertificateDoesNotFitIsNotAdmitted(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	first := newMachine(t, trusts(a, a.issue(func(*x509.Certificate) {}))).start()
	other := a.issue(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 67, 1, 9)} })
	const misfit = "x509: certificate is valid for 10.67.1.9, not 127.0.0.1"
	m := newMachine(t, joins(first), trusts(a, other))
	m.refused("refuses this node: ", "the other nodes do not trust the certificate that it shows there: "+misfit)
	for what, log := range map[string]*logBook{"the node": m.log, "the cluster": first.log} {
		if !strings.Contains(log.String(), misfit) {
			t.Errorf("%s does not tell: %s", what, log)
		}
	}
	if servers := first.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 1 {
		t.Errorf("it is a member: %s", servers)
	}
}

// A member that comes back with an expired certificate says so, and what it waits for;
// so do those that it calls.
func TestExpiredCertificateIsTold(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	nodes := newCluster(t, 3, trusts(a, a.issue(func(*x509.Certificate) {})))
	m := nodes[2]
	m.halt()
	m.cfg.Meta.Certificate = a.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	m.launch()
	for words, at := range map[string]*machine{
		"look at the certificate of this node: it has expired on ":                      m,
		"(refused by the peer: the certificate of this node: tls: expired certificate)": m,
		"the certificate of another node is refused\" from=127.0.0.1":                   nodes[0],
		"is not good: x509: certificate has expired or is not yet valid":                nodes[1],
		"the certificate of this node is refused\" by=127.0.0.1 ":                       m,
	} {
		eventually(t, words, func() bool { return strings.Contains(at.log.String(), words) })
	}
	m.halt()
	m.cfg.Meta.Certificate = nodes[0].cfg.Meta.Certificate
	m.start()
	agree(t, nodes...)
}

func TestCertificatesThatAreNotTrusted(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		from, to int // days from now
		hosts    []string
		want     []string
	}{
		{-1, 365, []string{"influx1", "influx1"}, nil},
		{-1, 365, []string{"10.0.0.1"}, nil},
		{-1, 365, nil, nil},
		{-1, 15, nil, nil},
		{-1, 13, nil, []string{"it expires on 2026-12-06T12:00:00Z"}},
		{-9, -1, nil, []string{"it has expired on 2026-11-22T12:00:00Z"}},
		{1, 365, nil, []string{"it is not valid before 2026-11-24T12:00:00Z"}},
		{-1, 365, []string{"influx2", "influx2"}, []string{"other nodes look for it at influx2: x509: certificate is valid for influx1, not influx2"}},
		{-1, 1, []string{"influx1", "10.0.0.2"}, []string{"it expires on 2026-11-24T12:00:00Z", "other nodes look for it at 10.0.0.2: x509: certificate is valid for 10.0.0.1, not 10.0.0.2"}},
	} {
		cert := &x509.Certificate{NotBefore: now.AddDate(0, 0, c.from), NotAfter: now.AddDate(0, 0, c.to),
			DNSNames: []string{"influx1"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}
		if got := distrusted(cert, c.hosts, now); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// Of the handshakes that fail those with other nodes that are about a certificate are
// told, once for each address and cause.
func TestFailedHandshakesAreTold(t *testing.T) {
	const expired = "http: TLS handshake error from 10.0.0.2:%: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time % is after 2026"
	for _, c := range []struct {
		purpose purpose
		lines   []string
		want    int
	}{
		{forPeers, []string{strings.ReplaceAll(expired, "%", "1"), strings.ReplaceAll(expired, "%", "2")}, 1},
		{forJoining | forClients, []string{"http: TLS handshake error from [fe80::1%eth0]:88: remote error: tls: bad certificate", "http: TLS handshake error from 10.0.0.3:88: remote error: tls: bad certificate"}, 2},
		{forPeers, []string{"http: TLS handshake error from 10.0.0.2:8: EOF", "http: Accept error: too many open files; retrying in 5ms", "certificate", ""}, 0},
		{forClients, []string{"http: TLS handshake error from 10.0.0.2:9: remote error: tls: unknown certificate authority"}, 0},
	} {
		book := &logBook{}
		h := &handshakes{gate: &gate{purpose: c.purpose}, log: slog.New(slog.NewTextHandler(book, nil)), told: map[string]bool{}}
		for _, line := range c.lines {
			log.New(h, "", 0).Print(line)
		}
		if got := strings.Count(book.String(), "level=WARN"); got != c.want {
			t.Errorf("%q: told %d times\n%s", c.lines, got, book)
		}
	}
}
