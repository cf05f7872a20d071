// Command dsdb is the shell: it sends statements and points to a DSDB (or
// InfluxDB 1.x) server and prints the answers. Its flags are those of
// InfluxDB's shell. With -execute or with statements on standard input it runs
// them and ends; on a terminal it asks for them, with history and completion.
//
// main.go reads the flags, client.go talks to the server, shell.go has the
// commands, input.go reads them from standard input and repl.go from a
// terminal, print.go lays out answers, import.go loads files.
package main

import (
	"context"
	"crypto/tls"
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

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

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
	f.SetOutput(io.Discard) // what is wrong is said once, by run
	f.StringVar(&o.host, "host", "", "`NAME` of the server; several, separated by commas, are tried in turn, each may carry a :port; default: this machine")
	f.IntVar(&o.port, "port", 0, "`PORT` of the server's HTTP API; default: 8086, then 8088, or on this machine what /etc/dsdb/dsdb.conf says")
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
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, usage)
		f.SetOutput(out)
		f.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w (dsdb -h lists the flags)", err)
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; statements go in -execute", f.Arg(0))
	case strings.Contains(o.host, "/"):
		return nil, fmt.Errorf("-host %q: give the name alone, and -ssl for https", o.host)
	case o.doImport && o.path == "":
		return nil, errors.New("-import wants -path FILE")
	}
	return o, o.check()
}

func run(ctx context.Context, args []string, in *os.File, out, errOut io.Writer) int {
	o, err := parseFlags(args, out)
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
	c, err := connect(ctx, o)
	if err != nil {
		fmt.Fprintf(errOut, "Failed to connect to %s: %v\nPlease check your connection settings and ensure 'dsdbd' is running.\n", c.base, err)
		var ce *tls.CertificateVerificationError
		switch {
		case errors.As(err, &ce):
			fmt.Fprintln(errOut, "-unsafeSsl accepts any certificate.")
		case strings.Contains(err.Error(), "HTTP request to an HTTPS server"):
			fmt.Fprintln(errOut, "-ssl speaks https.")
		}
		return exitConnect
	}
	s := newShell(o, c, out, errOut)
	switch {
	case o.doImport:
		return s.importFile(ctx, o)
	case o.execute != "":
		return s.execute(ctx, o.execute)
	case !terminal:
		return s.executeInput(ctx, in)
	}
	return s.interact(ctx)
}

// execute runs the statements, or the one command, of -execute.
func (s *shell) execute(ctx context.Context, text string) int {
	if err := s.line(ctx, text); err != nil && err != errQuit {
		s.complain(err)
		return exitFailed
	}
	return exitOK
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
