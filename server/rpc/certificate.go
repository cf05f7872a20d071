package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
)

// A certificate may name the processes that may show it by their UUIDs, each as a
// DNS name or as a URI, urn:uuid:…, among its subject alternative names. One that
// names none may be shown by every process.

// namedBy returns the UUIDs that a certificate names, in lower case.
func namedBy(cert *x509.Certificate) (uuids []string) {
	for _, name := range cert.DNSNames {
		if isUUID(name) {
			uuids = append(uuids, strings.ToLower(name))
		}
	}
	for _, uri := range cert.URIs {
		if id, is := strings.CutPrefix(strings.ToLower(uri.String()), "urn:uuid:"); is {
			uuids = append(uuids, id)
		}
	}
	return uuids
}

// isUUID reports whether s is written as UUIDs are: 8-4-4-4-12 hexadecimal digits.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return false
		}
	}
	return true
}

// Certified reports why a process may not be the one of a UUID that it says it is:
// the certificate that it has shown names others. nil is a connection without TLS.
func Certified(s *tls.ConnectionState, uuid string) error {
	if s == nil || len(s.VerifiedChains) == 0 {
		return nil
	}
	named := namedBy(s.PeerCertificates[0])
	if len(named) == 0 || slices.Contains(named, strings.ToLower(uuid)) {
		return nil
	}
	return refusef(badIdentity, "process %s shows the certificate of process %s", uuid, strings.Join(named, " or "))
}

// secured returns the state of a connection with TLS, nil of one without.
func secured(c net.Conn) *tls.ConnectionState {
	t, is := c.(*tls.Conn)
	if !is {
		return nil
	}
	s := t.ConnectionState()
	return &s
}

// distrust returns the error of a connection to an address as a refusal if it did not
// come about since one side does not trust the certificate of the other, or speaks no TLS.
func distrust(err error, addr string) error {
	var verify *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.As(err, &verify):
		return refusef(badCertificate, "the certificate shown at %s is not good: %v", addr, verify.Err)
	case errors.As(err, &plain):
		return refusef(badCertificate, "what answers at %s does not speak TLS", addr)
	case errors.As(err, &alert) && alert.Op == "remote error":
		text := alert.Err.Error()
		if strings.Contains(text, "certificate") {
			text = "the certificate of this node: " + text
		}
		return &refusal{reason: badCertificate, remote: true, text: text}
	}
	return err
}
