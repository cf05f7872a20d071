// Command dsdb is the shell: it sends statements and points to a DSDB (or
// InfluxDB 1.x) server and prints the answers. Its flags are those of
// InfluxDB's shell. With -execute or with statements on standard input it runs
// them and ends; on a terminal it asks for them, with history and completion.
//
// main.go reads the flags, client.go talks to the server, print.go lays out
// answers, repl.go is the interactive part, import.go loads files.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/term"
)

// version is set by the Makefile; go install leaves it to the build information.
var version string

// The exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // a statement or an import failed
	exitUsage   = 2
	exitConnect = 3
)

const usage = `dsdb is the shell of DSDB.

  dsdb                                         ask for statements
  dsdb -execute 'SHOW DATABASES'               run statements and end
  dsdb -database db -format csv < file.sql     run the statements of a file
  dsdb -import -path FILE                      load points from a file

Flags (one dash or two):
`

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// options are the flags.
type options struct {
	settings
	host           string
	port           int
	ssl, unsafeSSL bool
	execute        string
	doImport       bool
	path           string
	compressed     bool
	pps            int
	version        bool
}

func parseFlags(args []string, out io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("dsdb", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.host, "host", "localhost", "`NAME` of the server")
	f.IntVar(&o.port, "port", 8086, "`PORT` of the server's HTTP API")
	f.StringVar(&o.username, "username", os.Getenv("INFLUX_USERNAME"), "`NAME` to sign in with; also INFLUX_USERNAME")
	f.StringVar(&o.password, "password", os.Getenv("INFLUX_PASSWORD"), "its password; '' asks for it; also INFLUX_PASSWORD")
	f.StringVar(&o.database, "database", "", "`DB` that statements are about; DB.RP names a policy too")
	f.BoolVar(&o.ssl, "ssl", false, "use https")
	f.BoolVar(&o.unsafeSSL, "unsafeSsl", false, "accept any certificate")
	f.StringVar(&o.execute, "execute", "", "run these `STATEMENTS` and end")
	f.StringVar(&o.format, "format", "column", "how answers look: column, csv, json or line (line protocol)")
	f.StringVar(&o.precision, "precision", "", "times as rfc3339, h, m, s, ms, u or ns; default: rfc3339 on a terminal, else ns")
	f.StringVar(&o.consistency, "consistency", "all", "of writes: any, one, quorum or all")
	f.BoolVar(&o.pretty, "pretty", false, "indent json")
	f.BoolVar(&o.doImport, "import", false, "load the file at -path")
	f.StringVar(&o.path, "path", "", "`FILE` to import; - is standard input")
	f.BoolVar(&o.compressed, "compressed", false, "the file to import is gzipped")
	f.IntVar(&o.pps, "pps", 0, "import at most so many points per second; 0: as fast as it goes")
	f.BoolVar(&o.version, "version", false, "print the version and end")
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	if len(args) > 0 && (args[0] == "-h" || args[0] == "-help" || args[0] == "--help") {
		f.SetOutput(os.Stdout)
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; statements go in -execute", f.Arg(0))
	}
	return o, o.check()
}

func run(args []string, in *os.File, out, errOut io.Writer) int {
	o, err := parseFlags(args, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(errOut, "dsdb:", err)
		return exitUsage
	}
	if o.version {
		fmt.Fprintln(out, "DSDB shell", buildVersion())
		return exitOK
	}
	terminal := term.IsTerminal(int(in.Fd())) && isTerminal(out)
	if o.precision == "" {
		if o.precision = "ns"; terminal {
			o.precision = "rfc3339"
		}
	}
	if o.password == "" && o.username != "" && terminal {
		if o.password, err = askPassword(in, errOut); err != nil {
			fmt.Fprintln(errOut, "dsdb:", err)
			return exitFailed
		}
	}
	s := newShell(o, out, errOut)
	if err := s.client.ping(); err != nil {
		fmt.Fprintf(errOut, "Failed to connect to %s: %v\nPlease check your connection settings and ensure 'dsdbd' is running.\n", s.client.base, err)
		return exitConnect
	}
	switch {
	case o.doImport:
		return s.importFile(o)
	case o.execute != "":
		return s.executeAll(o.execute)
	case !terminal:
		return s.executeInput(in)
	}
	return s.interact()
}

// executeAll runs statements; an INSERT stands alone.
func (s *shell) executeAll(text string) int {
	if err := s.line(strings.TrimSpace(text)); err != nil {
		s.complain(err)
		return exitFailed
	}
	return exitOK
}

// executeInput runs each line of standard input; the first that fails ends it.
func (s *shell) executeInput(in io.Reader) int {
	r := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := r.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			if code := s.executeAll(line); code != exitOK {
				return code
			}
		}
		if err == io.EOF {
			return exitOK
		}
		if err != nil {
			s.complain(err)
			return exitFailed
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func askPassword(in *os.File, out io.Writer) (string, error) {
	fmt.Fprint(out, "password: ")
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(out)
	return string(b), err
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "unreleased"
}
