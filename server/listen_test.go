package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/server/config"
)

// C13: a node does not tell nodes elsewhere that it is on loopback.
func TestC13LoopbackIsNotToldToOthers(t *testing.T) {
	t.Parallel()
	m := newMachine(t, func(c *config.Config) { c.Meta.Join = "influx1.invalid:8091" })
	m.refused("would tell the cluster that it is reached at 127.0.0.1", "set hostname")

	a := &admitter{n: &Node{addrs: config.Addresses{TCP: "influx1:8088"}}}
	wantError(t, a.canReach(context.Background(), "localhost:8088"), dsdb.KindInvalid, "set hostname on it")
	a = &admitter{n: &Node{addrs: config.Addresses{TCP: "127.0.0.1:8088"}}}
	wantError(t, a.canReach(context.Background(), "influx2:8088"), dsdb.KindConflict, "set hostname on the node there")
}

// C28: HTTP that is sent to the port of the nodes is answered.
func TestC28HTTPOnTheClusterPort(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	for _, address := range []string{m.cfg.Meta.BindAddress, m.cfg.Meta.HTTPBindAddress} {
		rs, err := http.Get("http://" + address + "/query?q=SHOW+DATABASES")
		if err != nil {
			t.Fatal(err)
		}
		defer rs.Body.Close()
		var b [256]byte
		n, _ := rs.Body.Read(b[:])
		if rs.StatusCode != http.StatusNotFound || !strings.Contains(string(b[:n]), "clients are served at "+m.cfg.HTTP.BindAddress) {
			t.Errorf("%s: %s %q", address, rs.Status, b[:n])
		}
	}
}

// The configuration of DSDB's guide: clients and nodes share one port.
func TestClientsAndNodesOnOnePort(t *testing.T) {
	t.Parallel()
	shared := func(c *config.Config) { c.Meta.BindAddress = c.HTTP.BindAddress }
	first := newMachine(t, shared).start()
	all := func(c *config.Config) {
		c.Meta.HTTPBindAddress, c.Meta.BindAddress = c.HTTP.BindAddress, c.HTTP.BindAddress
	}
	second := newMachine(t, all, joins(first)).start()
	third := newMachine(t, shared, joins(second)).start()
	agree(t, first, second, third)
	for _, m := range []*machine{first, second, third} {
		rs, err := http.Get("http://" + m.cfg.HTTP.BindAddress + "/ping")
		if err != nil {
			t.Fatal(err)
		}
		rs.Body.Close()
		if rs.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s", m.cfg.HTTP.BindAddress, rs.Status)
		}
	}
}

// With a shared secret only who knows it joins.
func TestTSEC18JoinWantsTheSharedSecret(t *testing.T) {
	t.Parallel()
	secret := func(s string) func(*config.Config) { return func(c *config.Config) { c.Meta.SharedSecret = s } }
	one, other := strings.Repeat("1", 32), strings.Repeat("2", 32)
	first := newMachine(t, secret(one)).start()
	newMachine(t, joins(first)).refused("shared secret")
	newMachine(t, joins(first), secret(other)).refused("shared secret")
	second := newMachine(t, joins(first), secret(one)).start()
	agree(t, first, second)
	eventually(t, "the peer has proved itself", func() bool {
		return strings.Contains(first.mustQuery("", "SHOW CLUSTER"), "authenticated=secret")
	})
	if servers := first.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 3 {
		t.Errorf("%s", servers)
	}
	open := newMachine(t).start()
	newMachine(t, joins(open), secret(one)).refused("this cluster has no shared secret")
	if servers := open.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 1 {
		t.Errorf("a node that was refused is listed:\n%s", servers)
	}
}

// However many strangers ask for something to sign, a node that knows the secret
// joins. What it signed is taken once.
func TestStrangersDoNotKeepNodesFromJoining(t *testing.T) {
	t.Parallel()
	secret := func(c *config.Config) { c.Meta.SharedSecret = strings.Repeat("1", 32) }
	first := newMachine(t, secret).start()
	url := "http://" + first.cfg.Meta.HTTPBindAddress + "/join"
	nonce := ""
	for range 2000 {
		rs, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rs.Body)
		rs.Body.Close()
		if err != nil || rs.StatusCode != http.StatusOK {
			t.Fatal(rs.Status, err)
		}
		nonce = string(b)
	}
	agree(t, first, newMachine(t, joins(first), secret).start())

	ask := func(nonce string) int {
		rq, err := http.NewRequest("POST", url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		rq.Header.Set(nonceHeader, nonce)
		rq.Header.Set(proofHeader, proof([]byte(first.cfg.Meta.SharedSecret), "join", nonce, []byte("{}")))
		rs, err := http.DefaultClient.Do(rq)
		if err != nil {
			t.Fatal(err)
		}
		rs.Body.Close()
		return rs.StatusCode
	}
	forged := strings.Repeat("0", len(nonce)-1) + "1"
	for i, want := range []int{http.StatusBadRequest, http.StatusUnauthorized} { // the first is believed: it has no address
		if got := ask(nonce); got != want {
			t.Errorf("time %d: %d, want %d", i+1, got, want)
		}
	}
	for _, nonce := range []string{forged, "", "00", "no number"} {
		if got := ask(nonce); got != http.StatusUnauthorized {
			t.Errorf("what was not given, %q: %d", nonce, got)
		}
	}
}

// A member that comes back with another secret says, as long as it waits, that
// this is why it finds no quorum.
func TestWrongSecretOfAMemberIsRepeated(t *testing.T) {
	t.Parallel()
	secret := func(s string) func(*config.Config) {
		return func(c *config.Config) { c.Meta.SharedSecret = strings.Repeat(s, 32) }
	}
	first := newMachine(t, secret("1")).start()
	second := newMachine(t, joins(first), secret("1")).start()
	agree(t, first, second)
	allVote(t, first, second)
	second.halt()
	secret("2")(&second.cfg)
	second.launch()
	for range 2 {
		eventually(t, "the reason is logged", func() bool {
			return strings.Contains(second.log.String(), "are reachable, not "+first.cfg.Meta.BindAddress+" (refused by the peer: the process at "+second.cfg.Meta.BindAddress+" has another shared secret")
		})
		second.log.clear()
	}
}

// Debian gives the name of a machine to 127.0.1.1: whoever listens there is not found.
func TestNameThatIsLoopbackHere(t *testing.T) {
	t.Parallel()
	find := func(name string) ([]netip.Addr, error) {
		known := map[string][]netip.Addr{
			"debian": {netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("::1")},
			"proper": {netip.MustParseAddr("10.0.0.1")},
			"both":   {netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("10.0.0.1")},
		}
		if ips := known[name]; ips != nil {
			return ips, nil
		}
		return nil, errors.New("no such host")
	}
	for host, want := range map[string]string{"debian": "", "proper": "proper", "both": "10.0.0.1",
		"localhost": "localhost", "127.0.1.1": "127.0.1.1", "": "", "::1": "::1", "10.1.2.3": "10.1.2.3"} {
		if got, err := listenHost(host, find); err != nil || got != want {
			t.Errorf("%q: listens on %q, error %v", host, got, err)
		}
	}
	if _, err := listenHost("nobody", find); err == nil || !strings.Contains(err.Error(), "does not know the name") {
		t.Errorf("unknown name: %v", err)
	}
}

// With an authority set, nodes prove themselves by certificates it has signed.
func TestNodesWithCertificates(t *testing.T) {
	t.Parallel()
	ca, cert := certificates(t)
	ca2, cert2 := certificates(t)
	with := func(ca, cert string) func(*config.Config) {
		return func(c *config.Config) { c.Meta.HTTPS, c.Meta.CA, c.Meta.Certificate = true, ca, cert }
	}
	first := newMachine(t, with(ca, cert)).start()
	second := newMachine(t, joins(first), with(ca, cert)).start()
	agree(t, first, second)
	eventually(t, "the peer has proved itself", func() bool {
		return strings.Contains(first.mustQuery("", "SHOW CLUSTER"), "authenticated=certificate")
	})
	for name, stranger := range map[string]*machine{
		"another authority":                           newMachine(t, joins(first), with(ca2, cert2)),
		"its server trusted, its own certificate not": newMachine(t, joins(first), with(ca, cert2)),
		"no TLS": newMachine(t, joins(first)),
	} {
		stranger.launch()
		eventually(t, name+": it is kept waiting", func() bool { return strings.Contains(stranger.log.String(), "waiting for a node of the cluster") })
		stranger.halt()
	}
	if servers := first.mustQuery("", "SHOW SERVERS"); strings.Count(servers, "\n") != 3 {
		t.Errorf("%s", servers)
	}

	const another = "f6cee588-4036-49bf-8aa7-5a74a34b5364"
	ca3, cert3 := certificates(t, another)
	alone := newMachine(t, with(ca3, cert3)).start()
	newMachine(t, joins(alone), with(ca3, cert3)).refused("refuses this node: process ", " shows the certificate of process "+another)
}

// Plain and TLS cannot share a port, also where one address stands for the other.
func TestPlainAndTLSOnOnePortAreRefused(t *testing.T) {
	t.Parallel()
	_, cert := certificates(t)
	for _, tls := range []string{"http", "meta"} {
		m := newMachine(t)
		_, port, err := net.SplitHostPort(m.cfg.HTTP.BindAddress)
		if err != nil {
			t.Fatal(err)
		}
		m.cfg.HTTP.BindAddress, m.cfg.Meta.BindAddress = "0.0.0.0:"+port, "127.0.0.1:"+port
		m.cfg.Hostname = "127.0.0.1"
		if tls == "http" {
			m.cfg.HTTP.HTTPS, m.cfg.HTTP.Certificate = true, cert
		} else {
			m.cfg.Meta.HTTPS, m.cfg.Meta.Certificate = true, cert
		}
		m.refused("set https-enabled in both [http] and [meta] or in neither")
	}
}

// Whoever asks to join and does not send what it announced is not waited for.
func TestJoinIsNotWaitedFor(t *testing.T) {
	m := newMachine(t).start()
	conn, err := net.Dial("tcp", m.cfg.Meta.HTTPBindAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST /join HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(*patience)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("%q %v", answer, err)
	}
}
