package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
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

// config returns the TLS configuration of a process whose certificate names it.
func (a *authority) config(name string) *tls.Config {
	key, cert := a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a.cert, a.key)
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
