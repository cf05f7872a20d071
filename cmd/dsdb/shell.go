package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings are what can be changed while the shell runs.
type settings struct {
	username, password string
	database, policy   string
	format             string
	precision          string
	consistency        string
	pretty             bool
}

var (
	formats       = []string{"column", "csv", "json", "line"}
	precisions    = []string{"rfc3339", "h", "m", "s", "ms", "u", "ns"}
	consistencies = []string{"any", "one", "quorum", "all"}
)

func (s *settings) check() error {
	var rest string
	var err error
	if s.database, s.policy, rest, err = cutNames(s.database); err != nil || rest != "" {
		return fmt.Errorf("-database wants DB or DB.RP, in double quotes if there is a dot or a space in a name")
	}
	if err := oneOf("format", s.format, formats); err != nil {
		return err
	}
	if s.precision != "" {
		if err := oneOf("precision", s.precision, precisions); err != nil {
			return err
		}
	}
	return oneOf("consistency", s.consistency, consistencies)
}

func oneOf(what, value string, list []string) error {
	for _, v := range list {
		if v == value {
			return nil
		}
	}
	return fmt.Errorf("unknown %s %q: use %s", what, value, strings.Join(list, ", "))
}

// shell runs commands and statements, one line at a time.
type shell struct {
	settings
	client *client
	o      *options
	out    io.Writer
	errOut io.Writer
	timing bool // say how many rows came and how long that took
	words  *completer
	ask    func(prompt string, hidden bool) (string, error) // nil where there is nobody to ask
}

func newShell(o *options, c *client, out, errOut io.Writer) *shell {
	s := &shell{settings: o.settings, client: c, o: o, out: out, errOut: errOut}
	s.words = &completer{s: s}
	return s
}

// errQuit ends the shell.
var errQuit = errors.New("quit")

const help = `Commands:
  connect HOST:PORT       talk to another server
  auth [NAME PASSWORD]    sign in
  use DB[.RP]             statements and points are about this database
  insert [into DB.RP] POINT   write one point of line protocol, e.g. insert cpu,host=a usage=1.5
  format column|csv|json|line
  precision rfc3339|h|m|s|ms|u|ns
  consistency any|one|quorum|all
  pretty                  indent json, or no longer
  timing                  tell rows and time after each answer, or no longer
  settings                print these settings
  history                 print what was typed before
  exit, quit, ctrl-D
Everything else is a statement, for example
  SHOW DATABASES
  SHOW MEASUREMENTS
  SELECT * FROM cpu WHERE time > now() - 1h GROUP BY host LIMIT 5
`

// commands are what the shell does itself. Each gets the rest of its line.
var commands = map[string]func(s *shell, ctx context.Context, rest string) error{
	"exit": func(*shell, context.Context, string) error { return errQuit },
	"quit": func(*shell, context.Context, string) error { return errQuit },
	"help": func(s *shell, _ context.Context, _ string) error {
		fmt.Fprint(s.out, help)
		return nil
	},
	"connect": (*shell).connect,
	"auth":    (*shell).auth,
	"use":     (*shell).use,
	"insert":  (*shell).insert,
	"format": func(s *shell, _ context.Context, rest string) error {
		return s.set("format", rest, formats, &s.format)
	},
	"precision": func(s *shell, _ context.Context, rest string) error {
		return s.set("precision", rest, precisions, &s.precision)
	},
	"consistency": func(s *shell, _ context.Context, rest string) error {
		return s.set("consistency", rest, consistencies, &s.consistency)
	},
	"pretty": func(s *shell, _ context.Context, _ string) error {
		s.pretty = !s.pretty
		return nil
	},
	"timing": func(s *shell, _ context.Context, _ string) error {
		s.timing = !s.timing
		return nil
	},
	"settings": func(s *shell, _ context.Context, _ string) error {
		s.printSettings()
		return nil
	},
}

// cutCommand splits a line into its first word, in lower case, and the rest.
func cutCommand(text string) (word, rest string) {
	text = strings.TrimSpace(text)
	end := strings.IndexAny(text, " \t;")
	if end < 0 {
		return strings.ToLower(text), ""
	}
	return strings.ToLower(text[:end]), strings.TrimSpace(text[end+1:])
}

func isCommand(line string) bool {
	word, _ := cutCommand(line)
	_, ok := commands[word]
	return ok
}

// line runs one line: a command of the shell or statements.
func (s *shell) line(ctx context.Context, text string) error {
	word, rest := cutCommand(text)
	if word == "" {
		return nil
	}
	if do, ok := commands[word]; ok {
		if word != "insert" {
			rest = strings.TrimSpace(strings.TrimSuffix(rest, ";"))
		}
		return do(s, ctx, rest)
	}
	return s.query(ctx, text)
}

func (s *shell) set(what, value string, list []string, to *string) error {
	if err := oneOf(what, value, list); err != nil {
		return err
	}
	*to = value
	return nil
}

func (s *shell) printSettings() {
	for _, kv := range [][2]string{{"Server", s.client.base + " (" + s.client.server + ")"}, {"Username", s.username}, {"Database", s.database},
		{"RetentionPolicy", s.policy}, {"Format", s.format}, {"Precision", s.precision}, {"Consistency", s.consistency},
		{"Pretty", strconv.FormatBool(s.pretty)}, {"Timing", strconv.FormatBool(s.timing)}} {
		fmt.Fprintf(s.out, "%-16s%s\n", kv[0], kv[1])
	}
}

func (s *shell) connect(ctx context.Context, addr string) error {
	o := *s.o
	o.username, o.password = s.username, s.password
	if strings.HasPrefix(addr, ":") {
		addr = "localhost" + addr
	}
	if o.host = addr; addr == "" {
		o.host = s.o.host
	}
	c, err := connect(ctx, &o)
	if err != nil {
		return fmt.Errorf("failed to connect to %s: %w", c.base, err)
	}
	s.client, s.o = c, &o
	s.words.forget()
	fmt.Fprintf(s.out, "Connected to %s version %s\n", c.base, c.server)
	return nil
}

// auth signs in as the user named, or asks who it is.
func (s *shell) auth(_ context.Context, rest string) error {
	name, password, ok := strings.Cut(rest, " ")
	if !ok && s.ask == nil {
		return errors.New("auth wants NAME PASSWORD")
	}
	var err error
	if name == "" {
		if name, err = s.ask("username: ", false); err != nil {
			return err
		}
	}
	if !ok {
		if password, err = s.ask("password: ", true); err != nil {
			return err
		}
	}
	s.client.username, s.client.password = name, password
	s.username, s.password = name, password
	s.words.forget()
	return nil
}

// use changes the database if the server has it.
func (s *shell) use(ctx context.Context, text string) error {
	db, rp, rest, err := cutNames(text)
	if err != nil {
		return err
	}
	if db == "" || rest != "" {
		return errors.New("use DATABASE or use DATABASE.POLICY")
	}
	all, err := s.names(ctx, "SHOW DATABASES")
	if err != nil {
		return explain(err, "")
	}
	if !slices.Contains(all, db) {
		//lint:ignore ST1005 InfluxDB's words
		return fmt.Errorf("Database %s doesn't exist. Run SHOW DATABASES for a list of existing databases.", db)
	}
	s.database, s.policy = db, rp
	s.words.forget()
	fmt.Fprintln(s.out, "Using database "+db)
	if rp != "" {
		fmt.Fprintln(s.out, "Using retention policy "+rp)
	}
	return nil
}

// names returns the first column of an answer.
func (s *shell) names(ctx context.Context, statement string) ([]string, error) {
	var out []string
	err := s.client.query(ctx, statement, &s.settings, func(r *result) error {
		for _, ser := range r.Series {
			for _, row := range ser.Values {
				if len(row) > 0 {
					out = append(out, text(row[0]))
				}
			}
		}
		return nil
	})
	return out, err
}

// insert writes one point, given as POINT, into RP POINT or into DB.RP POINT.
func (s *shell) insert(ctx context.Context, point string) error {
	t := writeTarget{s.database, s.policy, s.precision, s.consistency}
	if word, rest := cutCommand(point); word == "into" {
		first, second, after, err := cutNames(rest)
		if err != nil {
			return err
		}
		if t.policy, point = first, after; second != "" {
			t.database, t.policy = first, second
		}
	}
	if point == "" {
		return errors.New("insert wants a point, such as insert cpu,host=a usage=1.5")
	}
	if t.database == "" {
		return errors.New("database is required: use DATABASE first, or insert into DATABASE.POLICY POINT")
	}
	return explain(s.client.write(ctx, []byte(point), t), "")
}

// query runs statements and prints the answer.
func (s *shell) query(ctx context.Context, text string) error {
	began := time.Now()
	if s.format == "json" {
		return explain(s.client.queryRaw(ctx, text, &s.settings, s.out), text)
	}
	p := newPrinter(s.out, s.format)
	set := s.settings
	if s.format == "line" {
		set.precision = "ns"
		var err error
		if p.schema, err = s.schema(ctx); err != nil {
			return explain(err, "")
		}
		s.printContext()
	}
	if err := s.client.query(ctx, text, &set, p.part); err != nil {
		return explain(err, text)
	}
	if p.series > 0 {
		fmt.Fprintln(s.out)
	}
	if s.timing {
		rows := "rows"
		if p.rows == 1 {
			rows = "row"
		}
		fmt.Fprintf(s.out, "%d %s in %.1f ms\n", p.rows, rows, float64(time.Since(began).Microseconds())/1000)
	}
	if isChange(text) {
		s.words.forget()
	}
	return nil
}

// printContext heads points as -import wants it.
func (s *shell) printContext() {
	fmt.Fprintf(s.out, "# DML\n# CONTEXT-DATABASE: %s\n", s.database)
	if s.policy != "" {
		fmt.Fprintf(s.out, "# CONTEXT-RETENTION-POLICY: %s\n", s.policy)
	}
}

// schema asks for the types of the fields and for the tags of the database in use.
func (s *shell) schema(ctx context.Context) (schema, error) {
	all := schema{types: map[columnName]string{}, tags: map[columnName]bool{}}
	err := s.client.query(ctx, "SHOW FIELD KEYS; SHOW TAG KEYS", &s.settings, func(r *result) error {
		for _, ser := range r.Series {
			for _, row := range ser.Values {
				switch len(row) {
				case 1:
					all.tags[columnName{ser.Name, text(row[0])}] = true
				case 2:
					all.types[columnName{ser.Name, text(row[0])}] = text(row[1])
				}
			}
		}
		return nil
	})
	return all, err
}

// isChange reports whether a statement may change the names that completion offers.
func isChange(text string) bool {
	word, _, _ := strings.Cut(strings.ToUpper(text), " ")
	return word == "CREATE" || word == "DROP" || word == "DELETE"
}

var atChar = regexp.MustCompile(`at line (\d+), char (\d+)`)

// explain adds to an error where it is and what helps.
func explain(err error, statement string) error {
	if err == nil {
		return nil
	}
	t := err.Error()
	if m := atChar.FindStringSubmatch(t); m != nil {
		line, _ := strconv.Atoi(m[1])
		char, _ := strconv.Atoi(m[2])
		if lines := strings.Split(statement, "\n"); line >= 1 && line <= len(lines) && char >= 1 && char <= len(lines[line-1])+1 {
			return fmt.Errorf("%s\n  %s\n  %s^", t, lines[line-1], strings.Repeat(" ", char-1))
		}
	}
	switch {
	case strings.HasPrefix(t, "database not found"):
		return fmt.Errorf("%s (SHOW DATABASES lists them)", t)
	case strings.HasPrefix(t, "retention policy not found"):
		return fmt.Errorf("%s (SHOW RETENTION POLICIES lists them)", t)
	case t == "unable to parse authentication credentials" || t == "authorization failed":
		return fmt.Errorf("%s: sign in with -username and -password, or with auth", t)
	case strings.HasSuffix(t, "create admin user first or disable authentication"):
		return fmt.Errorf("%s: on the server, CREATE USER admin WITH PASSWORD '…' WITH ALL PRIVILEGES", t)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case t == "database name required":
		return fmt.Errorf("%s: use DATABASE first, or start dsdb with -database", t)
	}
	return err
}

func (s *shell) complain(err error) {
	if err != errQuit {
		fmt.Fprintln(s.errOut, "ERR:", err)
	}
}
