package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/influxdata/influxql"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/ql"
)

// maxTokenLife is how far ahead a token may expire: a stolen one is of no use for long.
const maxTokenLife = 24 * time.Hour

// Auth says who may sign in, and how.
type Auth struct {
	Accounts Accounts // nil: everybody may do everything without signing in
	Secret   string   // of the signatures of bearer tokens; "": such tokens are refused
}

// Accounts are the users of the node. The methods are safe for concurrent use.
type Accounts interface {
	// Authenticate returns the user of that name if the password is theirs. Else
	// it reports KindUnauthorized, after as long for an unknown name as for a
	// wrong password, or KindUnavailable if there were too many failures before.
	// An Addr that is not valid stands for a client whose address is unknown.
	Authenticate(ctx context.Context, name, password string, from netip.Addr) (*User, error)
	// User returns the user of that name, nil if there is none.
	User(name string) *User
	// AdminExists reports whether there is a user with all rights.
	AdminExists() bool
	// CatchUp reports whether the accounts may have changed and include now every
	// change that was acknowledged anywhere before the call. It may be called often:
	// who waits for it does so together with others.
	CatchUp(ctx context.Context) bool
}

// User is who sends a request.
type User struct {
	Name  string
	Admin bool
	May   func(right influxql.Privilege, database string) bool // of a user who is no admin
}

func (u *User) may(right influxql.Privilege, database string) bool {
	return u.Admin || u.May != nil && u.May(right, database)
}

var (
	everyone = &User{Admin: true} // who asks while nobody has to sign in
	nobody   = &User{}            // who asks while there is no admin yet
)

var (
	errCredentials = dsdb.Errorf(dsdb.KindUnauthorized, "unable to parse authentication credentials")
	errNoName      = dsdb.Errorf(dsdb.KindUnauthorized, "username required")
	// ErrUnauthorized is the answer to a wrong password and to an unknown name alike.
	ErrUnauthorized = dsdb.Errorf(dsdb.KindUnauthorized, "authorization failed")
	errNoAdmin      = dsdb.Errorf(dsdb.KindForbidden, "create admin user first or disable authentication")
)

// gate finds out who sends a request and whether they may have what it asks for.
type gate struct {
	auth   Auth
	tokens *jwt.Parser
	now    func() time.Time
}

func newGate(a Auth) *gate {
	g := &gate{auth: a, now: time.Now}
	g.tokens = jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return g.now() }))
	return g
}

// guarded is a handler behind a check of who asks. Only open, signedIn and
// adminOnly make one, so that no path is served without a decision.
type guarded struct{ serve http.HandlerFunc }

// open lets everybody in.
func (g *gate) open(fn http.HandlerFunc) guarded { return guarded{fn} }

// signedIn lets in whoever has an account: fn must ask what they may do.
func (g *gate) signedIn(fn func(w http.ResponseWriter, r *http.Request, u *User)) guarded {
	return guarded{func(w http.ResponseWriter, r *http.Request) {
		u, err := g.identify(r)
		if err != nil {
			writeError(w, status(err), err.Error())
			return
		}
		fn(w, r, u)
	}}
}

// adminOnly lets admins in.
func (g *gate) adminOnly(fn http.HandlerFunc) guarded {
	return g.signedIn(func(w http.ResponseWriter, r *http.Request, u *User) {
		if _, err := g.permit(r, u, func(u *User) error { return u.needsAdmin(r.URL.Path) }); err != nil {
			writeError(w, status(err), err.Error())
			return
		}
		fn(w, r)
	})
}

// permit returns who sends a request, u as far as was known, if they may have what they
// ask for by check. Who may not is looked up once more: a right may just have been given
// on another node.
func (g *gate) permit(r *http.Request, u *User, check func(*User) error) (*User, error) {
	err := check(u)
	if dsdb.KindOf(err) != dsdb.KindForbidden || g.auth.Accounts == nil || !g.auth.Accounts.CatchUp(r.Context()) {
		return u, err
	}
	if u == nobody && !g.auth.Accounts.AdminExists() {
		return u, err
	}
	u, unknown := g.identify(r)
	if unknown != nil {
		return nil, unknown
	}
	return u, check(u)
}

func (u *User) needsAdmin(path string) error {
	switch {
	case u.Admin:
		return nil
	case u == nobody:
		return errNoAdmin
	}
	return dsdb.Errorf(dsdb.KindForbidden, "%q user is not authorized to read %s, requires admin privilege", u.Name, path)
}

// identify returns the user that the credentials of a request prove. While
// there is no admin a request without valid credentials comes from nobody, who
// may only create one.
func (g *gate) identify(r *http.Request) (*User, error) {
	if g.auth.Accounts == nil {
		return everyone, nil
	}
	c, err := readCredentials(r)
	if err == nil {
		var u *User
		if u, err = g.verify(r, c); err == nil {
			return u, nil
		}
	}
	if !g.auth.Accounts.AdminExists() {
		return nobody, nil
	}
	return nil, err
}

// credentials are a name and a password, or a token.
type credentials struct{ name, password, token string }

// readCredentials finds the credentials of a request: the parameters u and p
// of its address win over the Authorization header, as in InfluxDB 1.3 and later.
func readCredentials(r *http.Request) (credentials, error) {
	if strings.Contains(r.URL.RawQuery, "u=") {
		q := r.URL.Query()
		if u, p := q.Get("u"), q.Get("p"); u != "" && p != "" {
			return credentials{name: u, password: p}, nil
		}
	}
	scheme, rest, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case !ok:
	case strings.EqualFold(scheme, "Basic"):
		if u, p, ok := r.BasicAuth(); ok {
			return credentials{name: u, password: p}, nil
		}
	case strings.EqualFold(scheme, "Token"):
		if u, p, ok := strings.Cut(rest, ":"); ok {
			return credentials{name: u, password: p}, nil
		}
	case strings.EqualFold(scheme, "Bearer") && rest != "":
		return credentials{token: rest}, nil
	}
	return credentials{}, errCredentials
}

func (g *gate) verify(r *http.Request, c credentials) (*User, error) {
	switch {
	case c.token != "":
		return g.bearer(r.Context(), c.token)
	case c.name == "":
		return nil, errNoName
	}
	return g.auth.Accounts.Authenticate(r.Context(), c.name, c.password, clientAddr(r))
}

// claims are what a token says.
type claims struct {
	Username string `json:"username"`
	jwt.RegisteredClaims
}

// bearer returns the user whom a token names: a JWT (RFC 7519) signed by HS256
// with the shared secret, with an end within maxTokenLife. The texts are
// InfluxDB's; those about the contents are only for who knows the secret.
func (g *gate) bearer(ctx context.Context, token string) (*User, error) {
	if g.auth.Secret == "" {
		return nil, dsdb.Errorf(dsdb.KindUnauthorized, "bearer auth disabled")
	}
	var c claims
	_, err := g.tokens.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return []byte(g.auth.Secret), nil })
	if err != nil {
		return nil, tokenError(err)
	}
	if c.ExpiresAt.After(g.now().Add(maxTokenLife)) {
		return nil, dsdb.Errorf(dsdb.KindUnauthorized, "token expires more than %v ahead", maxTokenLife)
	}
	if c.Username == "" {
		return nil, dsdb.Errorf(dsdb.KindUnauthorized, "token must contain a username")
	}
	if u := g.auth.Accounts.User(c.Username); u != nil {
		return u, nil
	}
	if g.auth.Accounts.CatchUp(ctx) {
		if u := g.auth.Accounts.User(c.Username); u != nil {
			return u, nil
		}
	}
	return nil, dsdb.Errorf(dsdb.KindUnauthorized, "user not found")
}

func tokenError(err error) error {
	text := "authorization failed"
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		text = "signature is invalid"
	case errors.Is(err, jwt.ErrTokenExpired):
		text = "Token is expired"
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		text = "token expiration required"
	}
	return dsdb.Errorf(dsdb.KindUnauthorized, "%s", text)
}

// clientAddr returns the address at the other end of the connection; it is not
// valid if there is none that could be told.
func clientAddr(r *http.Request) netip.Addr { return hostOf(r.RemoteAddr) }

// hostOf returns the address of an end of a connection, without its port and zone.
func hostOf(end string) netip.Addr {
	host, _, err := net.SplitHostPort(end)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// isLocal reports whether a request comes from this machine, not through a proxy on it:
// from loopback, or from the very address at which it has come in.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	from := clientAddr(r)
	own, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return from.IsLoopback() || from.IsValid() && own != nil && from == hostOf(own.String())
}

// mayWrite reports KindForbidden unless the user may write to the database.
func (u *User) mayWrite(database string) error {
	switch {
	case u == nobody:
		return dsdb.Errorf(dsdb.KindForbidden, "user is required to write to database %q", database)
	case !u.may(influxql.WritePrivilege, database):
		return dsdb.Errorf(dsdb.KindForbidden, "%q user is not authorized to write to database %q", u.Name, database)
	}
	return nil
}

// mayQuery reports KindForbidden unless the user may execute all statements of
// the request; then none of them is.
func (u *User) mayQuery(r *http.Request, statements []ql.Statement, database string) error {
	if u.Admin {
		return nil
	}
	if u == nobody {
		return mayFound(r, statements)
	}
	for _, s := range statements {
		needed, err := needs(s, database)
		if err != nil {
			return dsdb.Errorf(dsdb.KindForbidden, "error authorizing query: %w", err)
		}
		for _, p := range needed {
			if p.Admin {
				return u.refuse(s, "admin privilege")
			}
			if !u.may(p.Privilege, p.Name) {
				return u.refuse(s, fmt.Sprintf("%s on %s", p.Privilege, p.Name))
			}
		}
	}
	return nil
}

func (u *User) refuse(s ql.Statement, requires string) error {
	return dsdb.Errorf(dsdb.KindForbidden, "error authorizing query: %s not authorized to execute statement '%s', requires %s",
		u.Name, ql.Sanitize(s.String()), requires)
}

// mayFound lets a request from this machine create the first admin, and do
// nothing else: InfluxDB lets any statement follow that one.
func mayFound(r *http.Request, statements []ql.Statement) error {
	if len(statements) == 1 {
		if c, ok := statements[0].(*influxql.CreateUserStatement); ok && c.Admin {
			if isLocal(r) {
				return nil
			}
			return dsdb.Errorf(dsdb.KindForbidden, "error authorizing query: %w: only from the machine that the server runs on", errNoAdmin)
		}
	}
	return dsdb.Errorf(dsdb.KindForbidden, "error authorizing query: %w", errNoAdmin)
}

var adminNeeded = influxql.ExecutionPrivileges{{Admin: true, Privilege: influxql.AllPrivileges}}

// needs returns what a user who is no admin must have to execute s, with every
// database named. It is InfluxQL's own list, made complete: a statement that
// lists nothing takes READ, one that is about no database takes an admin, and
// a SHOW takes READ on every database that its FROM names, too.
func needs(s ql.Statement, database string) (influxql.ExecutionPrivileges, error) {
	if d, ok := s.(influxql.HasDefaultDatabase); ok && d.DefaultDatabase() != "" {
		database = d.DefaultDatabase()
	}
	needed, err := ql.Privileges(s)
	if err != nil {
		return nil, err
	}
	switch st := s.(type) {
	case *influxql.ShowDatabasesStatement: // lists what the user may see
		return needed, nil
	case *influxql.SelectStatement, *influxql.ExplainStatement:
	case *influxql.ShowMeasurementsStatement:
		if st.WildcardDatabase {
			return adminNeeded, nil
		}
	case *influxql.CreateContinuousQueryStatement:
		inner, err := needs(st.Source, database)
		if err != nil {
			return nil, err
		}
		needed = append(needed, inner...)
	default:
		needed = append(needed, namedSources(s)...)
	}
	if len(needed) == 0 {
		needed = influxql.ExecutionPrivileges{{Privilege: influxql.ReadPrivilege}}
	}
	return named(needed, database), nil
}

// namedSources returns READ on each database that stands in the FROM of s.
func namedSources(s ql.Statement) (needed influxql.ExecutionPrivileges) {
	influxql.WalkFunc(s, func(n influxql.Node) {
		if m, ok := n.(*influxql.Measurement); ok && m.Database != "" {
			needed = append(needed, influxql.ExecutionPrivilege{Name: m.Database, Privilege: influxql.ReadPrivilege})
		}
	})
	return needed
}

// named fills in the database of the request. A right that is none, or on no
// database, can only be had by an admin.
func named(needed influxql.ExecutionPrivileges, database string) influxql.ExecutionPrivileges {
	for i := range needed {
		p := &needed[i]
		if p.Name == "" {
			p.Name = database
		}
		if p.Privilege == influxql.NoPrivileges {
			p.Admin = true
		}
	}
	return needed
}
