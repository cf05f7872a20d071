package httpd

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/influxdata/influxql"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dasudian/dsdb/exec"
)

// fakeAccounts are users whose password is their name and a "!".
type fakeAccounts map[string]*User

func (a fakeAccounts) Authenticate(_ context.Context, name, password string, _ netip.Addr) (*User, error) {
	if u := a[name]; u != nil && password == name+"!" {
		return u, nil
	}
	return nil, ErrUnauthorized
}

func (a fakeAccounts) User(name string) *User { return a[name] }

func (a fakeAccounts) AdminExists() bool {
	for _, u := range a {
		if u.Admin {
			return true
		}
	}
	return false
}

func (fakeAccounts) CatchUp(context.Context) bool { return false }

// lagging are accounts that a node has not heard of yet; asked to catch up it has.
type lagging struct {
	fakeAccounts // what it knows
	rest         fakeAccounts
	asked        int
}

func (a *lagging) CatchUp(context.Context) bool {
	a.asked++
	a.fakeAccounts = a.rest
	return true
}

// holder returns a user with one right on one database.
func holder(name string, right influxql.Privilege, database string) *User {
	return &User{Name: name, May: func(r influxql.Privilege, db string) bool {
		return r == influxql.NoPrivileges || db == database && (r == right || right == influxql.AllPrivileges)
	}}
}

func someAccounts() fakeAccounts {
	return fakeAccounts{
		"root":    {Name: "root", Admin: true},
		"none":    holder("none", influxql.NoPrivileges, ""),
		"reader0": holder("reader0", influxql.ReadPrivilege, "db0"),
		"writer0": holder("writer0", influxql.WritePrivilege, "db0"),
		"owner0":  holder("owner0", influxql.AllPrivileges, "db0"),
		"owner1":  holder("owner1", influxql.AllPrivileges, "db1"),
	}
}

// executed counts what comes through to the backend.
type executed struct {
	fakeBackend
	statements int
	user       *User
}

func (b *executed) Execute(ctx context.Context, r *QueryRequest) (exec.Result, error) {
	b.statements++
	b.user = r.User
	return nil, nil
}

type guardedServer struct {
	t *testing.T
	h *Handler
	b *executed
}

func guardedBy(t *testing.T, a Auth) *guardedServer {
	b := &executed{}
	h := New(Config{Version: "v9", Pprof: true, Auth: a}, b, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	t.Cleanup(h.Close)
	return &guardedServer{t, h, b}
}

// do sends a request from another machine unless a header From says from where.
func (s *guardedServer) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RemoteAddr = "192.0.2.7:4711"
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "From" {
			r.RemoteAddr = headers[i+1]
			continue
		}
		if headers[i] == "At" { // the server's end of the connection
			at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(headers[i+1]))
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, at))
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func errorBody(text string) string {
	return string(append(appendJSONString([]byte(`{"error":`), text), "}\n"...))
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// The ways to give credentials, and the answers to wrong ones.
func TestCredentials(t *testing.T) {
	const path = "/query?q=SHOW+DATABASES"
	for _, c := range []struct {
		name, target, header string
		status               int
		answer               string // of a refusal
	}{
		{"none", path, "", 401, "unable to parse authentication credentials"},
		{"in the address", path + "&u=root&p=root!", "", 200, ""},
		{"in the address, wrong", path + "&u=root&p=x", "", 401, "authorization failed"},
		{"in the address, unknown", path + "&u=who&p=x", "", 401, "authorization failed"},
		{"the address wins", path + "&u=root&p=root!", basic("root", "x"), 200, ""},
		{"the address wins, wrong", path + "&u=root&p=x", basic("root", "root!"), 401, "authorization failed"},
		{"half of them in the address", path + "&u=root", basic("root", "root!"), 200, ""},
		{"only a name in the address", path + "&u=root", "", 401, "unable to parse authentication credentials"},
		{"basic", path, basic("root", "root!"), 200, ""},
		{"basic without a name", path, basic("", "root!"), 401, "username required"},
		{"basic, not base64", path, "Basic %%%", 401, "unable to parse authentication credentials"},
		{"basic without a colon", path, "Basic cm9vdA==", 401, "unable to parse authentication credentials"},
		{"token", path, "Token root:root!", 200, ""},
		{"token, lower case", path, "token root:root!", 200, ""},
		{"token, wrong", path, "Token root:x", 401, "authorization failed"},
		{"token without a colon", path, "Token root", 401, "unable to parse authentication credentials"},
		{"an unknown scheme", path, "Digest root:root!", 401, "unable to parse authentication credentials"},
		{"bearer without a token", path, "Bearer ", 401, "unable to parse authentication credentials"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := guardedBy(t, Auth{Accounts: someAccounts()})
			w := s.do("GET", c.target, "", "Authorization", c.header)
			if w.Code != c.status || c.answer != "" && w.Body.String() != errorBody(c.answer) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, c.status, c.answer)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (w.Code == 401) != (challenge == `Basic realm="InfluxDB"`) {
				t.Errorf("WWW-Authenticate %q with %d", challenge, w.Code)
			}
			if (s.b.statements == 1) != (c.status == 200) {
				t.Errorf("%d statements were executed", s.b.statements)
			}
		})
	}
}

func TestNobodySignsInWithoutAuthentication(t *testing.T) {
	s := guardedBy(t, Auth{})
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/query?q=SHOW+USERS", ""}, {"POST", "/write?db=db0", "m v=1"}, {"GET", "/metrics", ""}, {"POST", "/query?q=DROP+DATABASE+d&u=who&p=x", ""},
	} {
		if w := s.do(c.method, c.target, c.body, "Authorization", "Basic %%%"); w.Code/100 != 2 {
			t.Errorf("%s: %d %s", c.target, w.Code, w.Body)
		}
	}
}

func signed(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + s
}

// CVE-2019-20933: without a shared secret no token is good, above all not one
// signed with the empty secret, such as the one that scanners send.
func TestTSEC1NoTokenWithoutSecret(t *testing.T) {
	const scanners = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VybmFtZSI6ImFkbWluIiwiZXhwIjoyOTg2MzQ2MjY3fQ.LJDvEy5zvSEpA_C6pnK3JJFkUKGq9eEi8T2wdum3R_s"
	users := fakeAccounts{"admin": {Name: "admin", Admin: true}}
	own := signed(t, jwt.SigningMethodHS256, []byte(""), jwt.MapClaims{"username": "admin", "exp": time.Now().Add(time.Hour).Unix()})
	for _, token := range []string{scanners, own} {
		s := guardedBy(t, Auth{Accounts: users})
		if w := s.do("GET", "/query?q=SHOW+USERS", "", "Authorization", token); w.Code != 401 || s.b.statements != 0 {
			t.Errorf("no secret: %d %s", w.Code, w.Body)
		}
		s = guardedBy(t, Auth{Accounts: users, Secret: "a secret that is set"})
		if w := s.do("GET", "/query?q=SHOW+USERS", "", "Authorization", token); w.Code != 401 || s.b.statements != 0 {
			t.Errorf("another secret: %d %s", w.Code, w.Body)
		}
	}
}

// Only HS256, only with an end, only for users who exist.
func TestTSEC2Tokens(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := jwt.MapClaims{"username": "root", "exp": in(time.Hour)}
	hs := jwt.SigningMethodHS256
	cut := signed(t, hs, secret, good)
	for _, c := range []struct {
		name, token string
		status      int
		answer      string
	}{
		{"good", signed(t, hs, secret, good), 200, ""},
		{"another key", signed(t, hs, []byte("x"), good), 401, "signature is invalid"},
		{"no signature", signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good), 401, "signature is invalid"},
		{"HS512", signed(t, jwt.SigningMethodHS512, secret, good), 401, "signature is invalid"},
		{"HS384", signed(t, jwt.SigningMethodHS384, secret, good), 401, "signature is invalid"},
		{"cut off", cut[:strings.LastIndex(cut, ".")+1], 401, "signature is invalid"},
		{"no end", signed(t, hs, secret, jwt.MapClaims{"username": "root"}), 401, "token expiration required"},
		{"over", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": in(-time.Minute)}), 401, "Token is expired"},
		{"end at zero", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": 0}), 401, "Token is expired"},
		{"end in a day", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": in(24*time.Hour - time.Minute)}), 200, ""},
		{"end too far", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": in(25 * time.Hour)}), 401, "token expires more than 24h0m0s ahead"},
		{"end beyond all time", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": 1e300}), 401, ""},
		{"end as text", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": "tomorrow"}), 401, "authorization failed"},
		{"not yet", signed(t, hs, secret, jwt.MapClaims{"username": "root", "exp": in(time.Hour), "nbf": in(time.Minute)}), 401, "authorization failed"},
		{"no name", signed(t, hs, secret, jwt.MapClaims{"exp": in(time.Hour)}), 401, "token must contain a username"},
		{"a number for a name", signed(t, hs, secret, jwt.MapClaims{"username": 7, "exp": in(time.Hour)}), 401, "authorization failed"},
		{"an unknown user", signed(t, hs, secret, jwt.MapClaims{"username": "who", "exp": in(time.Hour)}), 401, "user not found"},
		{"no token at all", "Bearer x", 401, "authorization failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := guardedBy(t, Auth{Accounts: someAccounts(), Secret: string(secret)})
			w := s.do("GET", "/query?q=SHOW+USERS", "", "Authorization", c.token)
			if w.Code != c.status || c.answer != "" && w.Body.String() != errorBody(c.answer) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, c.status, c.answer)
			}
			if (s.b.statements == 1) != (c.status == 200) {
				t.Errorf("%d statements were executed", s.b.statements)
			}
		})
	}
}

// A user whom a token names has that user's rights, not more.
func TestTokenHasTheRightsOfItsUser(t *testing.T) {
	s := guardedBy(t, Auth{Accounts: someAccounts(), Secret: "s"})
	token := signed(t, jwt.SigningMethodHS256, []byte("s"), jwt.MapClaims{"username": "reader0", "exp": time.Now().Add(time.Hour).Unix()})
	if w := s.do("GET", "/query?q=SHOW+USERS", "", "Authorization", token); w.Code != 403 {
		t.Errorf("SHOW USERS: %d %s", w.Code, w.Body)
	}
	if w := s.do("POST", "/write?db=db0", "m v=1", "Authorization", token); w.Code != 403 {
		t.Errorf("write: %d %s", w.Code, w.Body)
	}
	if w := s.do("GET", "/query?q=SELECT+v+FROM+m&db=db0", "", "Authorization", token); w.Code != 200 || s.b.user.Name != "reader0" {
		t.Errorf("read: %d %s", w.Code, w.Body)
	}
}

// Before there is an admin one can be created, alone and from this machine.
func TestFirstAdmin(t *testing.T) {
	const create = "CREATE USER root WITH PASSWORD 'x' WITH ALL PRIVILEGES"
	const refused = "error authorizing query: create admin user first or disable authentication"
	for _, c := range []struct {
		name, q string
		headers []string
		status  int
		answer  string
	}{
		{"from this machine", create, []string{"From", "127.0.0.1:1"}, 200, ""},
		{"by IPv6", create, []string{"From", "[::1]:1"}, 200, ""},
		{"from this machine at its own address", create, []string{"From", "192.0.2.9:1", "At", "192.0.2.9:8086"}, 200, ""},
		{"at its own address by IPv6", create, []string{"From", "[fe80::7%eth0]:1", "At", "[fe80::7%eth0]:8086"}, 200, ""},
		{"from another machine at the own address", create, []string{"From", "192.0.2.8:1", "At", "192.0.2.9:8086"}, 403, refused + ": only from the machine that the server runs on"},
		{"from nowhere", create, []string{"From", "@", "At", "192.0.2.9:8086"}, 403, refused + ": only from the machine that the server runs on"},
		{"through a proxy at the own address", create, []string{"From", "192.0.2.9:1", "At", "192.0.2.9:8086", "Via", "1.1 x"}, 403, refused + ": only from the machine that the server runs on"},
		{"with credentials that are to be", create, []string{"From", "127.0.0.1:1", "Authorization", basic("root", "x")}, 200, ""},
		{"from another machine", create, nil, 403, refused + ": only from the machine that the server runs on"},
		{"through a proxy on this machine", create, []string{"From", "127.0.0.1:1", "X-Forwarded-For", "192.0.2.1"}, 403, refused + ": only from the machine that the server runs on"},
		{"no admin", "CREATE USER root WITH PASSWORD 'x'", []string{"From", "127.0.0.1:1"}, 403, refused},
		{"and something else", create + "; DROP DATABASE d", []string{"From", "127.0.0.1:1"}, 403, refused},
		{"another statement", "SHOW DATABASES", []string{"From", "127.0.0.1:1"}, 403, refused},
		{"nothing", ";", []string{"From", "127.0.0.1:1"}, 403, refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := guardedBy(t, Auth{Accounts: fakeAccounts{}})
			w := s.do("POST", "/query?q="+url.QueryEscape(c.q), "", c.headers...)
			if w.Code != c.status || c.answer != "" && w.Body.String() != errorBody(c.answer) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, c.status, c.answer)
			}
			if (s.b.statements == 1) != (c.status == 200) {
				t.Errorf("%d statements were executed", s.b.statements)
			}
		})
	}
	s := guardedBy(t, Auth{Accounts: fakeAccounts{}})
	if w := s.do("POST", "/write?db=d", "m v=1", "From", "127.0.0.1:1"); w.Code != 403 || w.Body.String() != errorBody(`user is required to write to database "d"`) {
		t.Errorf("write: %d %s", w.Code, w.Body)
	}
	if w := s.do("GET", "/metrics", "", "From", "127.0.0.1:1"); w.Code != 403 || w.Body.String() != errorBody("create admin user first or disable authentication") {
		t.Errorf("metrics: %d %s", w.Code, w.Body)
	}
	// The last admin may be gone while others are there: they keep their rights.
	left := someAccounts()
	delete(left, "root")
	s = guardedBy(t, Auth{Accounts: left})
	if w := s.do("POST", "/write?db=db0", "m v=1", "Authorization", basic("writer0", "writer0!")); w.Code != 204 {
		t.Errorf("write without an admin: %d %s", w.Code, w.Body)
	}
	if w := s.do("POST", "/query?q="+url.QueryEscape(create), "", "From", "127.0.0.1:1"); w.Code != 200 {
		t.Errorf("a new admin: %d %s", w.Code, w.Body)
	}
}

// statementRights lists every kind of statement with what a user who is no
// admin needs: "admin" stands for: not to be had; * for the database of the
// request. A statement about several databases needs all of what is listed.
var statementRights = []struct{ text, needs string }{
	{`SELECT v FROM m`, "READ *"},
	{`SELECT v FROM db0..m`, "READ db0"},
	{`SELECT v FROM db0..m, db1..m`, "READ db0, READ db1"},
	{`SELECT v FROM db1../.*/`, "READ db1"},
	{`SELECT max(v) FROM (SELECT v FROM db1..m)`, "READ db1"},
	{`SELECT v INTO n FROM m`, "READ *, WRITE *"},
	{`SELECT v INTO db1..n FROM db0..m`, "READ db0, WRITE db1"},
	{`EXPLAIN SELECT v FROM db1..m`, "READ db1"},
	{`EXPLAIN ANALYZE SELECT v INTO n FROM db0..m`, "READ db0, WRITE *"},
	{`DELETE FROM m`, "WRITE *"},
	{`DROP SERIES FROM m`, "WRITE *"},
	{`DROP MEASUREMENT m`, "admin"},
	{`DROP SHARD 1`, "admin"},
	{`CREATE DATABASE d`, "admin"},
	{`CREATE DATABASE IF NOT EXISTS d`, "admin"},
	{`DROP DATABASE db0`, "admin"},
	{`CREATE RETENTION POLICY p ON db0 DURATION 1h REPLICATION 1`, "admin"},
	{`ALTER RETENTION POLICY p ON db0 DURATION 1h`, "admin"},
	{`DROP RETENTION POLICY p ON db0`, "WRITE db0"},
	{`CREATE CONTINUOUS QUERY q ON db0 BEGIN SELECT mean(v) INTO n FROM m GROUP BY time(1h) END`, "READ db0, WRITE db0"},
	{`CREATE CONTINUOUS QUERY q ON db0 BEGIN SELECT mean(v) INTO db1..n FROM m GROUP BY time(1h) END`, "READ db0, WRITE db1"},
	{`CREATE CONTINUOUS QUERY q ON db0 BEGIN SELECT mean(v) INTO n FROM db1..m GROUP BY time(1h) END`, "READ db0, WRITE db0, READ db1"},
	{`DROP CONTINUOUS QUERY q ON db0`, "WRITE db0"},
	{`CREATE SUBSCRIPTION s ON db0.autogen DESTINATIONS ALL 'http://h:1'`, "admin"},
	{`DROP SUBSCRIPTION s ON db0.autogen`, "admin"},
	{`CREATE USER u WITH PASSWORD 'secret'`, "admin"},
	{`CREATE USER u WITH PASSWORD 'secret' WITH ALL PRIVILEGES`, "admin"},
	{`DROP USER u`, "admin"},
	{`SET PASSWORD FOR owner0 = 'secret'`, "admin"},
	{`GRANT ALL ON db0 TO owner0`, "admin"},
	{`GRANT ALL PRIVILEGES TO owner0`, "admin"},
	{`REVOKE READ ON db0 FROM reader0`, "admin"},
	{`REVOKE ALL PRIVILEGES FROM root`, "admin"},
	{`KILL QUERY 1`, "admin"},
	{`SHOW DATABASES`, ""},
	{`SHOW USERS`, "admin"},
	{`SHOW GRANTS FOR owner0`, "admin"},
	{`SHOW DIAGNOSTICS`, "admin"},
	{`SHOW STATS`, "admin"},
	{`SHOW SHARDS`, "admin"},
	{`SHOW SHARD GROUPS`, "admin"},
	{`SHOW SUBSCRIPTIONS`, "admin"},
	{`SHOW QUERIES`, "READ *"},
	{`SHOW CONTINUOUS QUERIES`, "READ *"},
	{`SHOW RETENTION POLICIES`, "READ *"},
	{`SHOW RETENTION POLICIES ON db1`, "READ db1"},
	{`SHOW MEASUREMENTS`, "READ *"},
	{`SHOW MEASUREMENTS ON db1`, "READ db1"},
	{`SHOW MEASUREMENTS ON *.*`, "admin"},
	{`SHOW MEASUREMENT CARDINALITY ON db1`, "READ db1"},
	{`SHOW MEASUREMENT EXACT CARDINALITY`, "READ *"},
	{`SHOW MEASUREMENT EXACT CARDINALITY ON db1 FROM m`, "READ db1"},
	{`SHOW SERIES`, "READ *"},
	{`SHOW SERIES ON db0 FROM db1..m`, "READ db0, READ db1"},
	{`SHOW SERIES CARDINALITY ON db1`, "READ db1"},
	{`SHOW SERIES EXACT CARDINALITY`, "READ *"},
	{`SHOW SERIES EXACT CARDINALITY ON db1 FROM m`, "READ db1"},
	{`SHOW SERIES CARDINALITY FROM db1..m`, "READ *, READ db1"},
	{`SHOW FIELD KEYS FROM db1..m`, "READ *, READ db1"},
	{`SHOW FIELD KEYS ON db1 FROM m`, "READ db1"},
	{`SHOW FIELD KEY CARDINALITY`, "READ *"},
	{`SHOW FIELD KEY CARDINALITY ON db1 FROM m`, "READ db1"},
	{`SHOW TAG KEYS FROM db1..m`, "READ *, READ db1"},
	{`SHOW TAG KEYS ON db1`, "READ db1"},
	{`SHOW TAG KEY CARDINALITY`, "READ *"},
	{`SHOW TAG KEY CARDINALITY ON db1`, "READ db1"},
	{`SHOW TAG VALUES FROM db1..m WITH KEY = k`, "READ *, READ db1"},
	{`SHOW TAG VALUES ON db1 WITH KEY = k`, "READ db1"},
	{`SHOW TAG VALUES CARDINALITY WITH KEY = k`, "READ *"},
	{`SHOW TAG VALUES EXACT CARDINALITY ON db1 FROM m WITH KEY = k`, "READ db1"},
}

// keywordPaths lists the beginnings of all statements that the parser knows.
func keywordPaths(tree *influxql.ParseTree, before string) (out []string) {
	for tok := range tree.Handlers {
		out = append(out, before+tok.String())
	}
	for tok, sub := range tree.Tokens {
		out = append(out, keywordPaths(sub, before+tok.String()+" ")...)
	}
	return out
}

// Every statement that the parser knows, for every user, with every database
// of the request: what is not allowed is refused and never executed.
func TestTSEC16StatementsAreDeniedByDefault(t *testing.T) {
	for _, path := range keywordPaths(influxql.Language, "") {
		known := false
		for _, s := range statementRights {
			known = known || strings.HasPrefix(s.text+" ", path+" ")
		}
		if !known {
			t.Errorf("the parser knows %s, the table of rights does not", path)
		}
	}
	users := map[string][]string{"root": nil, "none": nil, "reader0": {"READ db0"}, "writer0": {"WRITE db0"},
		"owner0": {"READ db0", "WRITE db0"}, "owner1": {"READ db1", "WRITE db1"}}
	s := guardedBy(t, Auth{Accounts: someAccounts()})
	allowed, refused := 0, 0
	for _, st := range statementRights {
		for name, held := range users {
			for _, db := range []string{"", "db0", "db1"} {
				want := name == "root" || st.needs != "admin" && has(held, strings.ReplaceAll(st.needs, "*", db))
				if want {
					allowed++
				} else {
					refused++
				}
				s.check(st.text, name, db, want)
				s.check("SHOW DATABASES; "+st.text, name, db, want)
			}
		}
	}
	t.Logf("%d statements, %d allowed and %d refused combinations", len(statementRights), allowed, refused)
}

func has(held []string, needs string) bool {
	if needs == "" {
		return true
	}
	for _, n := range strings.Split(needs, ", ") {
		found := false
		for _, h := range held {
			found = found || h == n
		}
		if !found {
			return false
		}
	}
	return true
}

func (s *guardedServer) check(text, user, db string, want bool) {
	s.t.Helper()
	s.b.statements = 0
	w := s.do("POST", "/query?"+url.Values{"q": {text}, "db": {db}}.Encode(), "", "Authorization", basic(user, user+"!"))
	if got := w.Code == 200 && s.b.statements > 0; got != want || !got && (w.Code != 403 || s.b.statements > 0) {
		s.t.Errorf("%s as %s in %q: %d, %d statements executed, want allowed: %v\n%s", text, user, db, w.Code, s.b.statements, want, w.Body)
	}
	if strings.Contains(w.Body.String(), "secret") {
		s.t.Errorf("%s: the answer shows the password: %s", text, w.Body)
	}
}

// The words of refusals, as scripts know them.
func TestRefusalsAreInInfluxDBsWords(t *testing.T) {
	s := guardedBy(t, Auth{Accounts: someAccounts()})
	for _, c := range []struct{ user, method, target, want string }{
		{"reader0", "POST", "/write?db=db0", `"reader0" user is not authorized to write to database "db0"`},
		{"writer0", "POST", "/api/v2/write?bucket=db1/rp", `"writer0" user is not authorized to write to database "db1"`},
		{"writer0", "GET", "/query?db=db0&q=SELECT+v+FROM+m", `error authorizing query: writer0 not authorized to execute statement 'SELECT v FROM m', requires READ on db0`},
		{"owner0", "GET", "/query?q=SHOW+USERS", `error authorizing query: owner0 not authorized to execute statement 'SHOW USERS', requires admin privilege`},
		{"owner0", "POST", "/query?q=SET+PASSWORD+FOR+root+%3D+%27x%27", `error authorizing query: owner0 not authorized to execute statement 'SET PASSWORD FOR root = [REDACTED]', requires admin privilege`},
		{"owner0", "GET", "/metrics", `"owner0" user is not authorized to read /metrics, requires admin privilege`},
	} {
		w := s.do(c.method, c.target, "m v=1", "Authorization", basic(c.user, c.user+"!"))
		if w.Code != 403 || w.Body.String() != errorBody(c.want) {
			t.Errorf("%s %s: %d %s", c.user, c.target, w.Code, w.Body)
		}
	}
}

// Every endpoint, for every user: the rights to it beside those of statements.
func TestTSEC16Endpoints(t *testing.T) {
	everybody := "- root none reader0 writer0 owner0 owner1"
	for _, c := range []struct {
		method, target string
		users          string // who is let in; - is who does not sign in
	}{
		{"POST", "/write?db=db0", "root writer0 owner0"},
		{"POST", "/write?db=db1", "root owner1"},
		{"POST", "/api/v2/write?bucket=db0/rp", "root writer0 owner0"},
		{"GET", "/query?q=SHOW+DATABASES", "root none reader0 writer0 owner0 owner1"},
		{"POST", "/query?q=SHOW+DATABASES&async=true", "root none reader0 writer0 owner0 owner1"},
		{"GET", "/metrics", "root"},
		{"HEAD", "/metrics", "root"},
		{"GET", "/debug/vars", "root"},
		{"GET", "/debug/pprof/", "root"},
		{"GET", "/debug/pprof/heap", "root"},
		{"GET", "/debug/pprof/cmdline", "root"},
		{"POST", "/debug/pprof/symbol", "root"},
		{"GET", "/ping", everybody},
		{"GET", "/status", everybody},
		{"GET", "/health", everybody},
		{"GET", "/ready", everybody},
		{"OPTIONS", "/query", everybody},
		{"POST", "/api/v2/query", everybody},
		{"GET", "/nothing", everybody},
	} {
		for _, user := range strings.Fields(everybody) {
			s := guardedBy(t, Auth{Accounts: someAccounts()})
			var headers []string
			if user != "-" {
				headers = []string{"Authorization", basic(user, user+"!")}
			}
			w := s.do(c.method, c.target, "m v=1", headers...)
			want := "let in"
			if !strings.Contains(" "+c.users+" ", " "+user+" ") {
				want = "403"
				if user == "-" {
					want = "401"
				}
			}
			got := fmt.Sprint(w.Code)
			if w.Code != http.StatusUnauthorized && w.Code != http.StatusForbidden {
				got = "let in"
			}
			if got != want {
				t.Errorf("%s %s as %s: %d %s, want %s", c.method, c.target, user, w.Code, w.Body, want)
			}
			if want != "let in" && len(s.b.writes) > 0 {
				t.Errorf("%s %s as %s wrote %v", c.method, c.target, user, s.b.writes)
			}
		}
	}
}

// Nobody is turned away for what was changed on another node a moment ago; who is let in
// has nobody asked.
func TestUsersOfALaggingNode(t *testing.T) {
	const secret, create = "a secret that is long enough for HS256", "CREATE USER root WITH PASSWORD 'x' WITH ALL PRIVILEGES"
	empty, all, without := fakeAccounts{}, someAccounts(), someAccounts()
	lesser := someAccounts()
	lesser["writer0"] = holder("writer0", influxql.ReadPrivilege, "db0")
	delete(without, "writer0")
	token := signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"username": "writer0", "exp": time.Now().Add(time.Hour).Unix()})
	for _, c := range []struct {
		name         string
		known, rest  fakeAccounts
		auth, target string
		status       int
		asked        bool
	}{
		{"known", all, empty, basic("writer0", "writer0!"), "/write?db=db0", 204, false},
		{"a right was granted", lesser, all, basic("writer0", "writer0!"), "/write?db=db0", 204, true},
		{"and is of a bucket", lesser, all, basic("writer0", "writer0!"), "/api/v2/write?bucket=db0", 204, true},
		{"to who shows a token", lesser, all, token, "/write?db=db0", 204, true},
		{"no right was granted", lesser, lesser, basic("writer0", "writer0!"), "/write?db=db0", 403, true},
		{"was dropped", lesser, without, basic("writer0", "writer0!"), "/write?db=db0", 401, true},
		{"was created, has a token", without, all, token, "/write?db=db0", 204, true},
		{"the first admin was created", empty, all, basic("root", "root!"), "/metrics", 200, true},
		{"a query", lesser, all, basic("root", "root!"), "/query?q=" + url.QueryEscape(create), 200, false},
		{"an admin since", fakeAccounts{"root": {Name: "root"}, "r": {Name: "r", Admin: true}}, all, basic("root", "root!"), "/query?q=" + url.QueryEscape(create), 200, true},
		{"no admin yet", empty, empty, "", "/query?q=SHOW+USERS", 403, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &lagging{fakeAccounts: c.known, rest: c.rest}
			s := guardedBy(t, Auth{Accounts: a, Secret: secret})
			method, body := "POST", "m v=1"
			if strings.HasPrefix(c.target, "/metrics") {
				method, body = "GET", ""
			}
			if w := s.do(method, c.target, body, "Authorization", c.auth); w.Code != c.status || (a.asked > 0) != c.asked {
				t.Errorf("%d %s, want %d; asked %d times", w.Code, w.Body, c.status, a.asked)
			}
		})
	}
}
