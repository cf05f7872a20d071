package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
)

// authority makes certificates for processes.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key, a.cert = a.sign(template, template, nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// config returns the TLS configuration of a process with a certificate of some
// subject alternative names: URIs if they have a colon, else DNS names.
func (a *authority) config(sans ...string) *tls.Config {
	return a.configUntil(time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 1), sans...)
}

// configUntil is config with the end of the certificate and the address that it names.
func (a *authority) configUntil(end time.Time, at net.IP, sans ...string) *tls.Config {
	var names []string
	var uris []*url.URL
	for _, san := range sans {
		if u, err := url.Parse(san); err == nil && u.Scheme != "" {
			uris = append(uris, u)
		} else {
			names = append(names, san)
		}
	}
	key, cert := a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: end, DNSNames: names, URIs: uris,
		IPAddresses: []net.IP{at}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a.cert, a.key)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13}
}

// startTLS runs a process behind TLS.
func startTLS(t *testing.T, k int, c *tls.Config) *testNode {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.NextProtos = []string{"h2", "http/1.1"}
	return startOn(t, tls.NewListener(l, c), k, func(o *Options) { o.TLS = c })
}

func TestACertificateThatNamesTheProcessAuthenticatesIt(t *testing.T) {
	ca := newAuthority(t)
	a, b := startTLS(t, 1, ca.config("uuid-1")), startTLS(t, 2, ca.config("other"))
	acquaint(a, b)
	for _, n := range []*testNode{a, b} {
		n.Handle("echo", func(_ context.Context, _ Process, body []byte) ([]byte, error) { return body, nil })
	}
	if _, err := a.Call(t.Context(), 21, "echo", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Call(t.Context(), 11, "echo", nil); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s[0].Authenticated != "certificate" {
		t.Errorf("%+v", s)
	}
	if s := a.Status(); s[0].Authenticated != "none" {
		t.Errorf("%+v", s)
	}
}

// id is the UUID of process k as those of real processes are written.
func id(k int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", k) }

// A certificate that names processes is good for those only: whoever has it can be
// no other one, neither as the one that calls nor as the one that answers.
func TestCertificateOfAnotherProcessIsRefused(t *testing.T) {
	ca := newAuthority(t)
	run := func(k int, sans ...string) *testNode {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := ca.config(sans...)
		return startOn(t, tls.NewListener(l, c), k, func(o *Options) { o.TLS, o.Self.UUID = c, id(k) })
	}
	a := run(1, id(1))
	for _, c := range []struct {
		k    int
		sans []string
		good bool
	}{
		{2, []string{id(3)}, false},
		{3, []string{"URN:uuid:" + id(1), "influx3"}, false},
		{4, []string{"influx4"}, true},
		{5, []string{"urn:uuid:" + strings.ToUpper(id(5))}, true},
		{6, []string{id(1), id(6)}, true},
	} {
		b := run(c.k, c.sans...)
		all := append(b.nodes(), a.nodes()...)
		b.SetNodes(all)
		a.SetNodes(all)
		if c.good {
			eventually(t, fmt.Sprint(c.sans, " is good"), func() bool { return a.Up(10*dsdb.NodeID(c.k)) && b.Up(10) })
			continue
		}
		eventually(t, fmt.Sprint(c.sans, " is refused by whoever is called and by whoever calls"), func() bool {
			why := "process " + id(c.k) + " shows the certificate of process "
			return strings.Contains(a.log.String(), "refused: "+why) && strings.Contains(b.log.String(), "refused by the peer: "+why)
		})
		if a.Up(10*dsdb.NodeID(c.k)) || b.Up(10) {
			t.Errorf("%q: there is a connection", c.sans)
		}
	}
}

func TestUUIDsOfCertificates(t *testing.T) {
	for name, want := range map[string]bool{id(7): true, "ABCDEF01-2345-6789-abcd-ef0123456789": true, "": false, "influx1": false,
		"abcdef01-2345-6789-abcd-ef012345678": false, "abcdef01-2345-6789-abcd-ef012345678g": false, "abcdef01x2345-6789-abcd-ef0123456789": false,
		"abcdef01--345-6789-abcd-ef0123456789": false} {
		if isUUID(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// Whoever does not trust the other's certificate says so, once for each cause, and so
// does the one that is not trusted; both know it as the reason why there is no connection.
func TestUntrustedCertificatesAreTold(t *testing.T) {
	ca, here := newAuthority(t), net.IPv4(127, 0, 0, 1)
	for k, c := range []struct {
		what     string
		theirs   *tls.Config
		one, two string // what the one that trusts nobody says, and the other
	}{
		{"expired", ca.configUntil(time.Now().Add(-time.Hour), here), "certificate has expired", "tls: expired certificate"},
		{"of another address", ca.configUntil(time.Now().Add(time.Hour), net.IPv4(10, 1, 2, 3)), "certificate is valid for 10.1.2.3, not 127.0.0.1", ""},
		{"of another authority", newAuthority(t).config(), "certificate signed by unknown authority", "certificate signed by unknown authority"},
	} {
		a, b := startTLS(t, 2*k+1, ca.config()), startTLS(t, 2*k+2, c.theirs)
		acquaint(a, b)
		tells := func(n *testNode, words string) bool {
			return strings.Contains(n.log.String(), words) && strings.Contains(n.Status()[0].Refusal, words)
		}
		eventually(t, c.what+": both tell", func() bool { return tells(a, c.one) && (c.two == "" || tells(b, c.two)) })
		eventually(t, c.what+": it is tried again", func() bool { return a.metrics.Refused.Load() > 3 })
		if n := strings.Count(a.log.String(), c.one); n != 1 {
			t.Errorf("%s: told %d times: %s", c.what, n, a.log)
		}
	}
}

// A process with TLS and one without say what keeps them from each other.
func TestPlainAndTLSDoNotMeet(t *testing.T) {
	ca := newAuthority(t)
	a, b := startTLS(t, 1, ca.config()), start(t, 2)
	acquaint(a, b)
	eventually(t, "both tell", func() bool {
		return strings.Contains(a.Status()[0].Refusal, "what answers at "+b.addr+" does not speak TLS") &&
			strings.Contains(b.Status()[0].Refusal, "Client sent an HTTP request to an HTTPS server")
	})
}
