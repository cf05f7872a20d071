package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/peterh/liner"
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
	if db, rp, ok := strings.Cut(s.database, "."); ok {
		s.database, s.policy = db, rp
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
}

func newShell(o *options, out, errOut io.Writer) *shell {
	s := &shell{settings: o.settings, client: newClient(o), o: o, out: out, errOut: errOut}
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

// line runs one line: a command of the shell or statements.
func (s *shell) line(text string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	rest = strings.TrimSuffix(strings.TrimSpace(rest), ";")
	switch strings.ToLower(strings.TrimSuffix(word, ";")) {
	case "":
		return nil
	case "exit", "quit":
		return errQuit
	case "help":
		fmt.Fprint(s.out, help)
		return nil
	case "connect":
		return s.connect(rest)
	case "auth":
		return s.auth(rest)
	case "use":
		return s.use(rest)
	case "insert":
		return s.insert(rest)
	case "format":
		return s.set("format", rest, formats, &s.format)
	case "precision":
		return s.set("precision", rest, precisions, &s.precision)
	case "consistency":
		return s.set("consistency", rest, consistencies, &s.consistency)
	case "pretty":
		s.pretty = !s.pretty
		return nil
	case "timing":
		s.timing = !s.timing
		return nil
	case "settings":
		s.printSettings()
		return nil
	}
	return s.query(text)
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

func (s *shell) connect(addr string) error {
	host, port, ok := strings.Cut(addr, ":")
	o := *s.o
	if host != "" {
		o.host = host
	}
	if ok {
		p, err := strconv.Atoi(port)
		if err != nil {
			return fmt.Errorf("port %q is not a number", port)
		}
		o.port = p
	}
	c := newClient(&o)
	c.username, c.password = s.username, s.password
	if err := c.ping(); err != nil {
		return fmt.Errorf("failed to connect to %s: %w", c.base, err)
	}
	s.client, s.o = c, &o
	fmt.Fprintf(s.out, "Connected to %s version %s\n", c.base, c.server)
	return nil
}

func (s *shell) auth(rest string) error {
	name, password, ok := strings.Cut(rest, " ")
	if !ok {
		return errors.New("auth NAME PASSWORD")
	}
	s.client.username, s.client.password = name, password
	s.username, s.password = name, password
	return nil
}

// use changes the database if the server has it.
func (s *shell) use(name string) error {
	db, rp, _ := strings.Cut(strings.ReplaceAll(name, `"`, ""), ".")
	if db == "" {
		return errors.New("use DATABASE or use DATABASE.POLICY")
	}
	all, err := s.names("SHOW DATABASES")
	if err != nil {
		return err
	}
	if oneOf("", db, all) != nil {
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
func (s *shell) names(statement string) ([]string, error) {
	var out []string
	err := s.client.query(statement, &s.settings, func(r *result) error {
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

var insertInto = regexp.MustCompile(`(?i)^into\s+(\S+)\s+`)

// insert writes one point.
func (s *shell) insert(rest string) error {
	t := writeTarget{s.database, s.policy, s.precision, s.consistency}
	if m := insertInto.FindStringSubmatch(rest); m != nil {
		rest = rest[len(m[0]):]
		names := strings.ReplaceAll(m[1], `"`, "")
		if db, rp, ok := strings.Cut(names, "."); ok {
			t.database, t.policy = db, rp
		} else {
			t.policy = names
		}
	}
	if t.database == "" {
		return errors.New("database is required: use DATABASE first, or insert into DATABASE.POLICY POINT")
	}
	return s.client.write([]byte(rest), t)
}

// query runs statements and prints the answer.
func (s *shell) query(text string) error {
	began := time.Now()
	if s.format == "json" {
		return s.client.queryRaw(text, &s.settings, s.out)
	}
	p := newPrinter(s.out, s.format)
	set := s.settings
	if s.format == "line" {
		set.precision = "ns"
		var err error
		if p.types, err = s.fieldTypes(); err != nil {
			return err
		}
	}
	if err := s.client.query(text, &set, p.part); err != nil {
		return explain(err, text)
	}
	if p.series > 0 {
		fmt.Fprintln(s.out)
	}
	if s.timing {
		fmt.Fprintf(s.out, "%d rows in %.1f ms\n", p.rows, float64(time.Since(began).Microseconds())/1000)
	}
	if isChange(text) {
		s.words.forget()
	}
	return nil
}

// fieldTypes asks for the types of all fields of the database.
func (s *shell) fieldTypes() (map[string]string, error) {
	types := map[string]string{}
	err := s.client.query("SHOW FIELD KEYS", &s.settings, func(r *result) error {
		for _, ser := range r.Series {
			for _, row := range ser.Values {
				if len(row) == 2 {
					types[ser.Name+"\x00"+text(row[0])] = text(row[1])
				}
			}
		}
		return nil
	})
	return types, err
}

// isChange reports whether a statement may change the names that completion offers.
func isChange(text string) bool {
	word, _, _ := strings.Cut(strings.ToUpper(text), " ")
	return word == "CREATE" || word == "DROP" || word == "DELETE"
}

var atChar = regexp.MustCompile(`at line (\d+), char (\d+)`)

// explain adds to an error where it is and what helps.
func explain(err error, statement string) error {
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

// interact asks for lines until the end.
func (s *shell) interact() int {
	s.timing = true
	fmt.Fprintf(s.out, "Connected to %s version %s\nDSDB shell %s (help lists the commands)\n", s.client.base, s.client.server, buildVersion())
	l := liner.NewLiner()
	defer l.Close()
	l.SetCtrlCAborts(true)
	l.SetMultiLineMode(true)
	l.SetWordCompleter(s.words.complete)
	history := historyFile()
	if f, err := os.Open(history); err == nil {
		_, _ = l.ReadHistory(f) // a shell without its history is still a shell
		f.Close()
	}
	defer saveHistory(l, history)
	for {
		text, err := l.Prompt("> ")
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case err != nil: // ctrl-D
			fmt.Fprintln(s.out)
			return exitOK
		case strings.TrimSpace(text) == "":
			continue
		case strings.TrimSpace(text) == "history":
			_, _ = l.WriteHistory(s.out)
			continue
		}
		if !secret(text) {
			l.AppendHistory(text)
		}
		if err := s.line(text); err == errQuit {
			return exitOK
		} else if err != nil {
			s.complain(err)
		}
	}
}

// secret reports whether a line holds a password, which no file should keep.
func secret(text string) bool {
	t := strings.ToLower(text)
	return strings.Contains(t, "password") || strings.HasPrefix(t, "auth ")
}

func historyFile() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".dsdb_history")
}

func saveHistory(l *liner.State, path string) {
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = l.WriteHistory(f) // as above
}
