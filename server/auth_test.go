package server

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/server/httpd"
)

// askHTTP sends a statement to the node's HTTP API from this machine.
func (c *client) askHTTP(user, password, db, text string) (int, string) {
	r := httptest.NewRequest("POST", "/query?"+url.Values{"db": {db}, "q": {text}}.Encode(), nil)
	r.RemoteAddr = "127.0.0.1:4711"
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	c.node.handler.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func (c *client) wantHTTP(user, password, db, text string, code int, part string) {
	c.t.Helper()
	got, body := c.askHTTP(user, password, db, text)
	if got != code || !strings.Contains(body, part) {
		c.t.Errorf("%s: %s: %d %s, want %d with %s", user, text, got, body, code, part)
	}
}

// openGuarded is a node that wants its clients to sign in, with the databases
// d0 to d2, the admin root, bob who may read d0, and eve who may write d1.
func openGuarded(t *testing.T) *client {
	cfg := quietConfig()
	cfg.HTTP.AuthEnabled = true
	c := open(t, vfs.NewMem(1), cfg)
	c.wantHTTP("", "", "", "CREATE USER root WITH PASSWORD 'top secret' WITH ALL PRIVILEGES", 200, `{"statement_id":0}`)
	for _, s := range []string{"CREATE DATABASE d0", "CREATE DATABASE d1", "CREATE DATABASE d2", "CREATE USER bob WITH PASSWORD 'bobs word'",
		"GRANT READ ON d0 TO bob", "CREATE USER eve WITH PASSWORD 'eves word'", "GRANT WRITE ON d1 TO eve"} {
		c.wantHTTP("root", "top secret", "", s, 200, `{"statement_id":0}`)
	}
	return c
}

// A user who is no admin sees neither other users nor what concerns them, nor
// databases without a right on them.
func TestTSEC5OthersStayHidden(t *testing.T) {
	t.Parallel()
	c := openGuarded(t)
	defer func() { c.close() }()
	for _, s := range []string{"SHOW USERS", "SHOW GRANTS FOR root", "SHOW GRANTS FOR eve", "SHOW GRANTS FOR bob", "SHOW SHARDS", "SHOW STATS"} {
		c.wantHTTP("bob", "bobs word", "d0", s, 403, "requires admin privilege")
	}
	databases := func(names string) string { return `"values":[` + names + `]` }
	c.wantHTTP("root", "top secret", "", "SHOW DATABASES", 200, databases(`["d0"],["d1"],["d2"]`))
	c.wantHTTP("bob", "bobs word", "", "SHOW DATABASES", 200, databases(`["d0"]`))
	c.wantHTTP("eve", "eves word", "", "SHOW DATABASES", 200, databases(`["d1"]`))
	// A way in that forgets to say who asks is no way around.
	if got, err := c.query("", "SHOW DATABASES"); err != nil || got != "" {
		t.Errorf("without a user: %q %v", got, err)
	}
	c.wantHTTP("root", "top secret", "", "REVOKE READ ON d0 FROM bob", 200, "")
	if _, body := c.askHTTP("bob", "bobs word", "", "SHOW DATABASES"); strings.Contains(body, `"d`) && strings.Contains(body, "values") {
		t.Errorf("bob has no right any more and sees %s", body)
	}
	for _, s := range []string{"SHOW USERS", "SHOW GRANTS FOR bob", "SHOW DIAGNOSTICS"} {
		if _, body := c.askHTTP("root", "top secret", "", s); strings.Contains(body, "$2a$") {
			t.Errorf("%s shows a hash: %s", s, body)
		}
	}
	if log := c.log.String(); strings.Contains(log, "top secret") || strings.Contains(log, "word'") || strings.Contains(log, "$2a$") {
		t.Errorf("the log shows a password or a hash:\n%s", log)
	} else if !strings.Contains(log, "msg=change user=root database=\"\" statement=\"GRANT READ ON d0 TO bob\"") {
		t.Errorf("the log does not say who changed what:\n%s", log)
	}
	c = c.reopen()
	c.wantHTTP("eve", "eves word", "", "SHOW DATABASES", 200, databases(`["d1"]`))
	c.wantHTTP("bob", "eves word", "", "SHOW DATABASES", 401, "authorization failed")
}

func TestCreateUserAgain(t *testing.T) {
	t.Parallel()
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE USER u WITH PASSWORD 'a'")
	c.mustQuery("", "CREATE USER u WITH PASSWORD 'a'")
	for _, s := range []string{"CREATE USER u WITH PASSWORD 'b'", "CREATE USER u WITH PASSWORD 'a' WITH ALL PRIVILEGES"} {
		_, err := c.query("", s)
		wantError(t, err, dsdb.KindConflict, "user already exists")
	}
}

// userBook is a catalogue of users that tests change.
type userBook struct {
	mu   sync.Mutex
	data meta.Data
}

func (b *userBook) view() *meta.Data {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.data
	return &d
}

// set gives the catalogue these users, by name, with cheap hashes of their passwords.
func (b *userBook) set(t *testing.T, namesAndPasswords ...string) {
	t.Helper()
	var users []*meta.User
	for i := 0; i < len(namesAndPasswords); i += 2 {
		hash, err := bcrypt.GenerateFromPassword([]byte(namesAndPasswords[i+1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, &meta.User{Name: namesAndPasswords[i], Hash: string(hash), Admin: namesAndPasswords[i] == "admin"})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data.Users = users
}

var here = netip.MustParseAddr("127.0.0.1")

func testAccounts(t *testing.T) (*accounts, *userBook) {
	t.Helper()
	b := &userBook{}
	a, err := newAccounts(b.view, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// An unknown user, a wrong password and one that is too long cost the same
// work and get the same answer: one comparison by bcrypt each.
func TestTSEC6UnknownUsersCostTheSame(t *testing.T) {
	a, b := testAccounts(t)
	long := strings.Repeat("x", 72)
	b.set(t, "admin", "right", "long", long)
	if cost, err := bcrypt.Cost(a.dummy); err != nil || cost != bcrypt.DefaultCost {
		t.Errorf("unknown users cost %d, known ones %d: %v", cost, bcrypt.DefaultCost, err)
	}
	for _, c := range []struct{ name, password string }{
		{"nobody", "right"}, {"admin", "wrong"}, {"admin", ""}, {"long", long + "x"}, {"nobody", strings.Repeat("y", 10_000)},
	} {
		before := a.compared.Load()
		_, err := a.Authenticate(context.Background(), c.name, c.password, here)
		if !errors.Is(err, httpd.ErrUnauthorized) || a.compared.Load() != before+1 {
			t.Errorf("%s, %d bytes: %v after %d comparisons", c.name, len(c.password), err, a.compared.Load()-before)
		}
	}
	if u, err := a.Authenticate(context.Background(), "long", long, here); err != nil || u.Name != "long" || u.Admin {
		t.Errorf("%+v %v", u, err)
	}
	if n := a.failed.Load(); n != 5 {
		t.Errorf("%d failures counted, want 5", n)
	}
}

// A right password is compared by bcrypt once, until it changes.
func TestTSEC7RightPasswordsAreRemembered(t *testing.T) {
	a, b := testAccounts(t)
	b.set(t, "admin", "one", "bob", "two")
	compared := int64(0)
	try := func(name, password string, ok bool, cost int64) {
		t.Helper()
		u, err := a.Authenticate(context.Background(), name, password, here)
		if (err == nil) != ok || ok && u.Name != name || err != nil && !errors.Is(err, httpd.ErrUnauthorized) {
			t.Errorf("%s %s: %v %v", name, password, u, err)
		}
		compared += cost
		if got := a.compared.Load(); got != compared {
			t.Errorf("%s %s: %d comparisons, want %d", name, password, got, compared)
			compared = got
		}
	}
	try("admin", "one", true, 1)
	try("bob", "two", true, 1)
	for range 1000 {
		try("admin", "one", true, 0)
		try("bob", "two", true, 0)
	}
	try("bob", "one", false, 1)
	try("bob", "two", true, 0) // a wrong guess does not make it forget
	b.set(t, "admin", "one", "bob", "three")
	try("bob", "two", false, 1)
	try("bob", "three", true, 1)
	try("bob", "three", true, 0)
	b.set(t, "admin", "one")
	try("bob", "three", false, 1)
	b.set(t, "admin", "one", "bob", "three") // another hash of the same password
	try("bob", "three", true, 1)
	b.set(t, "admin", "five", "carl", "four")
	try("carl", "four", true, 1)
	if a.mu.Lock(); len(a.verified) != 2 {
		t.Errorf("%d passwords are remembered of 2 users", len(a.verified))
	}
	a.mu.Unlock()
}

// Requests that come at the same time wait for the first comparison.
func TestTSEC7ParallelSignIns(t *testing.T) {
	a, b := testAccounts(t)
	b.set(t, "admin", "one")
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, err := a.Authenticate(context.Background(), "admin", "one", here); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := a.compared.Load(); n > int64(cap(a.slots)) {
		t.Errorf("%d comparisons, want at most %d", n, cap(a.slots))
	}
}

// A clock that tests move.
type handClock struct{ at time.Time }

func (c *handClock) now() time.Time { return c.at }

// After ten failures one user from one address may try once a second, even
// with the right password; other users and addresses are not touched.
func TestGuessingIsSlowedDown(t *testing.T) {
	a, b := testAccounts(t)
	clock := &handClock{time.Unix(1_000_000, 0)}
	a.now = clock.now
	b.set(t, "admin", "one", "bob", "two")
	try := func(name, password string, from netip.Addr, kind dsdb.Kind) {
		t.Helper()
		_, err := a.Authenticate(context.Background(), name, password, from)
		if err == nil && kind != dsdb.KindInternal || err != nil && dsdb.KindOf(err) != kind {
			t.Errorf("%s %s from %s: %v, want kind %d", name, password, from, err, kind)
		}
	}
	const ok, wrong, wait = dsdb.KindInternal, dsdb.KindUnauthorized, dsdb.KindUnavailable
	there := netip.MustParseAddr("192.0.2.1")
	for range maxFailures {
		try("bob", "x", there, wrong)
	}
	compared := a.compared.Load()
	try("bob", "x", there, wait)
	try("bob", "two", there, wait)
	if a.compared.Load() != compared {
		t.Error("a guess that must wait was compared")
	}
	try("bob", "two", here, ok)
	try("admin", "one", there, ok)
	clock.at = clock.at.Add(failurePause)
	try("bob", "x", there, wrong)
	try("bob", "two", there, wait)
	clock.at = clock.at.Add(failurePause)
	try("bob", "two", there, ok)
	for range maxFailures { // a success forgets the failures before
		try("bob", "x", there, wrong)
	}
	try("bob", "x", there, wait)
	clock.at = clock.at.Add(failureWindow)
	for range maxFailures {
		try("bob", "x", there, wrong)
	}
	try("bob", "x", there, wait)
}

// Guesses that are sent all at once are not let through either.
func TestParallelGuessesAreCounted(t *testing.T) {
	a, b := testAccounts(t)
	clock := &handClock{time.Unix(1_000_000, 0)}
	a.now = clock.now
	b.set(t, "admin", "one")
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { _, _ = a.Authenticate(context.Background(), "admin", "x", here) })
	}
	wg.Wait()
	if n := a.compared.Load(); n < maxFailures || n > int64(maxFailures-1+cap(a.slots)) {
		t.Errorf("%d guesses were compared, want %d and at most %d more", n, maxFailures, cap(a.slots)-1)
	}
}

func TestRememberedFailuresAreBounded(t *testing.T) {
	a, _ := testAccounts(t)
	clock := &handClock{time.Unix(1_000_000, 0)}
	a.now = clock.now
	for i := range uint64(maxOrigins + 100) {
		a.addFailure(origin{here, i})
	}
	if len(a.failures) != maxOrigins {
		t.Errorf("%d origins, want %d", len(a.failures), maxOrigins)
	}
	clock.at = clock.at.Add(failureWindow)
	a.addFailure(origin{here, 1 << 60})
	if len(a.failures) != 1 {
		t.Errorf("%d origins after the window, want 1", len(a.failures))
	}
}

// A client who goes away does not wait for a turn.
func TestSignInEndsWithItsRequest(t *testing.T) {
	a, b := testAccounts(t)
	b.set(t, "admin", "one")
	for range cap(a.slots) {
		a.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := a.Authenticate(ctx, "admin", "one", here)
	wantError(t, err, dsdb.KindUnavailable, "too many clients sign in at the same time")
}

// While there is no admin no sign-in is worth a comparison: nobody can succeed.
func TestNoComparisonBeforeTheFirstAdmin(t *testing.T) {
	a, _ := testAccounts(t)
	for range 2 * maxFailures {
		if _, err := a.Authenticate(context.Background(), "admin", "x", here); !errors.Is(err, httpd.ErrUnauthorized) {
			t.Fatal(err)
		}
	}
	if n := a.compared.Load(); n != 0 {
		t.Errorf("%d comparisons", n)
	}
}

// What is open to strangers is said at start.
func TestTSEC4OpenAddressWarns(t *testing.T) {
	for _, c := range []struct {
		addr, secret string
		auth         bool
		want         string
	}{
		{"127.0.0.1:1", "", false, ""},
		{"[::1]:1", "", false, ""},
		{"0.0.0.0:1", "", false, "anybody who reaches this address"},
		{"[::]:1", "", false, "anybody who reaches this address"},
		{"192.0.2.1:1", "", false, "anybody who reaches this address"},
		{"0.0.0.0:1", "", true, "there is no admin yet"},
		{"127.0.0.1:1", "short", true, "shared-secret is short"},
		{"127.0.0.1:1", strings.Repeat("s", goodSecret), true, "there is no admin yet"},
	} {
		cfg := quietConfig()
		cfg.HTTP.AuthEnabled, cfg.HTTP.SharedSecret = c.auth, c.secret
		n := open(t, vfs.NewMem(1), cfg)
		n.node.warnOfAccess(netip.MustParseAddrPort(c.addr))
		warned := strings.Contains(n.log.String(), "level=WARN")
		if warned != (c.want != "") || !strings.Contains(n.log.String(), c.want) {
			t.Errorf("%s, auth %v, secret of %d bytes: want %q in\n%s", c.addr, c.auth, len(c.secret), c.want, n.log)
		}
		n.close()
	}
}

// The whole way, as benchmarks go: what a request pays for signing in.
func BenchmarkSignIn(b *testing.B) {
	book := &userBook{}
	a, err := newAccounts(book.view, nil)
	if err != nil {
		b.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("a password"), bcrypt.DefaultCost)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100 {
		book.data.Users = append(book.data.Users, &meta.User{Name: "u" + strconv.Itoa(100+i), Hash: string(hash), Admin: i == 99})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(context.Background(), "u150", "a password", here); err != nil {
			b.Fatal(err)
		}
	}
}

// Who is named by a token is looked up by name alone.
func TestUserByName(t *testing.T) {
	a, b := testAccounts(t)
	b.set(t, "admin", "one", "bob", "two")
	if u := a.User("bob"); u == nil || u.Admin || u.Name != "bob" {
		t.Errorf("%+v", u)
	}
	if u := a.User("who"); u != nil {
		t.Errorf("%+v", u)
	}
}
