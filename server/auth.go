package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash/maphash"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/influxdata/influxql"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
)

// The bounds on guessing passwords: maxFailures within failureWindow for one
// user from one address, then one per failurePause until the window is over.
const (
	maxFailures   = 10
	failureWindow = time.Minute
	failurePause  = time.Second
	maxOrigins    = 8192             // of failures that are remembered
	signInWait    = 10 * time.Second // for the turn to compare a password
	maxPassword   = 72               // bytes that bcrypt looks at; longer ones are never set
)

// accounts answers httpd who may sign in, from this node's copy of the
// catalogue. bcrypt makes each guess cost tens of milliseconds, and each
// request too; so the password that was right last is remembered for each
// user, as a salted SHA-256 in memory, for as long as the user's hash stays
// the same.
type accounts struct {
	view   func() *meta.Data
	behind catchUp
	now    func() time.Time
	dummy  []byte        // what the passwords of unknown users are compared with
	slots  chan struct{} // bounds the cores that comparing takes
	seed   maphash.Seed

	compared, failed atomic.Int64

	mu       sync.Mutex // guards what follows; not held while comparing
	verified map[string]verified
	failures map[origin]failures
}

// verified is a password that was right for the hash.
type verified struct {
	hash string
	salt [16]byte
	sum  [sha256.Size]byte
}

func (v *verified) sumOf(password string) [sha256.Size]byte {
	return sha256.Sum256(append(v.salt[:len(v.salt):len(v.salt)], password...))
}

// origin is where sign-ins come from: an address and the hash of a user's name.
type origin struct {
	addr netip.Addr
	user uint64
}

// failures of one origin since the first of its window.
type failures struct {
	count       int
	first, last time.Time
}

// dummyHash returns the hash of a password that nobody knows, as costly to
// compare with as those of users.
var dummyHash = sync.OnceValues(func() ([]byte, error) {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails: see crypto/rand
	return bcrypt.GenerateFromPassword(secret[:], bcrypt.DefaultCost)
})

// newAccounts makes the accounts of a catalogue; ask returns when it is up to date.
func newAccounts(view func() *meta.Data, ask func(context.Context) error) (*accounts, error) {
	dummy, err := dummyHash()
	if err != nil {
		return nil, err
	}
	return &accounts{view: view, behind: catchUp{ask: ask}, now: time.Now, dummy: dummy, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		seed: maphash.MakeSeed(), verified: map[string]verified{}, failures: map[origin]failures{}}, nil
}

// register makes the counts of sign-ins metrics.
func (a *accounts) register(reg *prometheus.Registry) {
	counter := func(name, help string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(n.Load()) })
	}
	reg.MustRegister(
		counter("dsdb_auth_password_hashes_total", "Passwords that had to be hashed by bcrypt; the others were remembered.", &a.compared),
		counter("dsdb_auth_failures_total", "Sign-ins with an unknown name or a wrong password.", &a.failed))
}

// AdminExists implements httpd.Accounts.
func (a *accounts) AdminExists() bool { return a.view().AdminExists() }

// User implements httpd.Accounts.
func (a *accounts) User(name string) *httpd.User {
	if u := a.view().User(name); u != nil {
		return apiUser(u)
	}
	return nil
}

func apiUser(u *meta.User) *httpd.User {
	return &httpd.User{Name: u.Name, Admin: u.Admin, May: func(right influxql.Privilege, database string) bool {
		held := u.Privilege(database)
		switch needed := privilege(right); needed {
		case meta.ReadPrivilege, meta.WritePrivilege, meta.AllPrivileges:
			return held&needed == needed // read and write are bits of all
		}
		return right == influxql.NoPrivileges
	}}
}

// Authenticate implements httpd.Accounts. Nobody is turned away for what this node does
// not know yet: that a user was created, or has another password.
func (a *accounts) Authenticate(ctx context.Context, name, password string, from netip.Addr) (*httpd.User, error) {
	u := a.view().User(name)
	found, err := a.signIn(ctx, u, name, password, from)
	if !errors.Is(err, httpd.ErrUnauthorized) || !a.CatchUp(ctx) {
		return found, err
	}
	if now := a.view().User(name); now != nil && (u == nil || now.Hash != u.Hash) {
		return a.signIn(ctx, now, name, password, from)
	}
	return found, err
}

// signIn returns a user if the password is theirs; u is the one of that name, nil if
// there is none.
func (a *accounts) signIn(ctx context.Context, u *meta.User, name, password string, from netip.Addr) (*httpd.User, error) {
	if u == nil && !a.AdminExists() {
		return nil, httpd.ErrUnauthorized // not a guess: nobody can have signed in yet
	}
	o := origin{from, maphash.String(a.seed, name)}
	if ok, err := a.remembered(u, password, o); ok || err != nil {
		return signedInAs(u, ok, err)
	}
	release, err := a.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	// Another request may have compared the same password meanwhile, or used up the guesses.
	if ok, err := a.remembered(u, password, o); ok || err != nil {
		return signedInAs(u, ok, err)
	}
	if !a.compare(u, password) {
		a.failed.Add(1)
		a.addFailure(o)
		return nil, httpd.ErrUnauthorized
	}
	a.remember(u, password, o)
	return apiUser(u), nil
}

func signedInAs(u *meta.User, ok bool, err error) (*httpd.User, error) {
	if err != nil || !ok {
		return nil, err
	}
	return apiUser(u), nil
}

// turn waits until a password may be compared.
func (a *accounts) turn(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, signInWait)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		return func() { <-a.slots }, nil
	case <-ctx.Done():
		return nil, dsdb.Errorf(dsdb.KindUnavailable, "timeout: too many clients sign in at the same time")
	}
}

// compare reports whether the password is the user's. It takes as long if u is
// nil, or if the password is longer than any can be.
func (a *accounts) compare(u *meta.User, password string) bool {
	hash, possible := a.dummy, false
	if u != nil && len(password) <= maxPassword {
		hash, possible = []byte(u.Hash), true
	}
	a.compared.Add(1)
	err := bcrypt.CompareHashAndPassword(hash, []byte(password[:min(len(password), maxPassword)]))
	return err == nil && possible
}

// remembered reports whether the password is the one that was right last, or
// KindUnavailable if there were too many failures. If it is, they are forgotten.
func (a *accounts) remembered(u *meta.User, password string, o origin) (bool, error) {
	a.mu.Lock()
	_, failed := a.failures[o]
	blocked := failed && a.blocked(o)
	var v verified
	if u != nil {
		v = a.verified[u.Name]
	}
	a.mu.Unlock()
	if blocked {
		return false, dsdb.Errorf(dsdb.KindUnavailable, "too many failed sign-ins of this user from this address; try again in %v", failurePause)
	}
	if v.hash == "" || v.hash != u.Hash {
		return false, nil
	}
	sum := v.sumOf(password)
	if subtle.ConstantTimeCompare(sum[:], v.sum[:]) != 1 {
		return false, nil
	}
	if failed {
		a.mu.Lock()
		delete(a.failures, o)
		a.mu.Unlock()
	}
	return true, nil
}

// remember keeps the password of a user, and forgets failures of the origin
// and users who are gone.
func (a *accounts) remember(u *meta.User, password string, o origin) {
	v := verified{hash: u.Hash}
	_, _ = rand.Read(v.salt[:]) // never fails: see crypto/rand
	v.sum = v.sumOf(password)
	view := a.view()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.failures, o)
	a.verified[u.Name] = v
	if len(a.verified) > len(view.Users) {
		for name := range a.verified {
			if view.User(name) == nil {
				delete(a.verified, name)
			}
		}
	}
}

// blocked reports whether the origin must wait. The caller holds mu.
func (a *accounts) blocked(o origin) bool {
	f, now := a.failures[o], a.now()
	return f.count >= maxFailures && now.Sub(f.first) < failureWindow && now.Sub(f.last) < failurePause
}

func (a *accounts) addFailure(o origin) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.failures[o]
	if !ok && len(a.failures) >= maxOrigins {
		a.dropOrigins(now)
	}
	if !ok || now.Sub(f.first) >= failureWindow {
		f = failures{first: now}
	}
	f.count++
	f.last = now
	a.failures[o] = f
}

// dropOrigins makes room in failures: those whose window is over go, or else
// any one. The caller holds mu.
func (a *accounts) dropOrigins(now time.Time) {
	var last origin
	for o, f := range a.failures {
		last = o
		if now.Sub(f.first) >= failureWindow {
			delete(a.failures, o)
		}
	}
	if len(a.failures) >= maxOrigins {
		delete(a.failures, last)
	}
}

// visible tells which databases the answer for a user may name.
func (n *Node) visible(u *httpd.User, database string) bool {
	switch {
	case !n.cfg.HTTP.AuthEnabled:
		return true
	case u == nil:
		return false
	}
	return u.Admin || u.May != nil && (u.May(influxql.ReadPrivilege, database) || u.May(influxql.WritePrivilege, database))
}

// auth returns how clients sign in; the zero Auth if they need not.
func (n *Node) auth(reg *prometheus.Registry) (httpd.Auth, error) {
	if !n.cfg.HTTP.AuthEnabled {
		return httpd.Auth{}, nil
	}
	a, err := newAccounts(n.meta.View, func(ctx context.Context) error { return n.readIndex(ctx, dsdb.MetaGroup) })
	if err != nil {
		return httpd.Auth{}, err
	}
	a.register(reg)
	return httpd.Auth{Accounts: a, Secret: n.cfg.HTTP.SharedSecret}, nil
}

// goodSecret is the least length of a shared secret that cannot be guessed
// from a token: that of the hash (RFC 7518, section 3.2).
const goodSecret = 32

// warnOfAccess logs what is open to strangers once the listener has an address.
func (n *Node) warnOfAccess(addr netip.AddrPort) {
	h := n.cfg.HTTP
	switch {
	case !h.AuthEnabled && addr.IsValid() && !addr.Addr().Unmap().IsLoopback():
		n.log.Warn("anybody who reaches this address may read and delete everything: set [http] auth-enabled, or bind-address to loopback", "address", addr.String())
	case h.AuthEnabled && !n.meta.View().AdminExists():
		n.log.Warn("there is no admin yet: nobody can sign in until one is created on this machine: CREATE USER admin WITH PASSWORD '…' WITH ALL PRIVILEGES")
	}
	if h.AuthEnabled && h.SharedSecret != "" && len(h.SharedSecret) < goodSecret {
		n.log.Warn("[http] shared-secret is short: from one token it can be guessed, and then any user's be made", "bytes", len(h.SharedSecret), "wanted", goodSecret)
	}
}
