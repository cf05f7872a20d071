package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server"
	"github.com/dasudian/dsdb/server/config"
)

// flags are what run and config share.
type flags struct {
	*flag.FlagSet
	config   *string
	pidfile  *string
	join     *string
	hostname *string
	replace  *uint64
}

func newFlags(name, does string) flags {
	f := flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.config = f.String("config", "", "`FILE` with the configuration, in TOML; also DSDB_CONFIG_PATH")
	f.pidfile = f.String("pidfile", "", "`FILE` to write the process id to")
	f.join = f.String("join", "", "`HOST:PORT[,…]` of nodes of the cluster to join: their [meta] http-bind-address; for a member a hint where others are")
	f.hostname = f.String("hostname", "", "`NAME` or address at which others reach this machine")
	f.replace = f.Uint64("replace", 0, "`ID` of the node whose place this one takes when it joins, since that one's folders are lost")
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "%s\n\nUsage of %s:\n", does, name)
		f.PrintDefaults()
	}
	return f
}

// parse returns the exit code, or -1 to go on. Help goes to standard output with 0.
func (f flags) parse(args []string) int {
	if len(args) > 0 && isHelp(args[0]) {
		f.SetOutput(os.Stdout)
	}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case f.NArg() > 0:
		fmt.Fprintf(os.Stderr, "%s: unexpected argument %q\n", f.Name(), f.Arg(0))
		return 2
	}
	return -1
}

// load returns the configuration and warnings about it.
func (f flags) load() (config.Config, []string, error) {
	home, homeless := os.UserHomeDir()
	if homeless != nil {
		home, _ = filepath.Abs(".") // "" if the working directory is gone: relative to that it stays
	}
	c := config.Default(filepath.Join(home, ".dsdb"))
	inHome := c.Data.Dir
	path := *f.config
	for _, name := range []string{"DSDB_CONFIG_PATH", "INFLUXDB_CONFIG_PATH"} {
		if path == "" {
			path = os.Getenv(name)
		}
	}
	env := os.Environ()
	for name, value := range map[string]string{"DSDB_META_JOIN": *f.join, "DSDB_HOSTNAME": *f.hostname} {
		if value != "" {
			env = append(env, name+"="+value) // the last one counts
		}
	}
	warnings, err := c.Load(path, env)
	if homeless != nil && c.Data.Dir == inHome {
		warnings = append(warnings, fmt.Sprintf("%v: the data is in the working directory, in %s", homeless, filepath.Dir(inHome)))
	}
	return c, warnings, err
}

func printConfig(args []string) int {
	f := newFlags("dsdbd config", "Prints the configuration that dsdbd would use, with a comment for each key.")
	if code := f.parse(args); code >= 0 {
		return code
	}
	c, warnings, err := f.load()
	if err != nil {
		return fail(err)
	}
	for _, w := range warnings {
		fmt.Fprintln(os.Stderr, "warning:", w)
	}
	if err := c.Print(os.Stdout); err != nil {
		return fail(err)
	}
	return 0
}

func recoverNode(args []string) int {
	f := newFlags("dsdbd recover", "Mends a node that does not start. Run it as the user of the daemon, which must not run.\n"+
		"Without a flag: if the folder of the catalogue, [meta] dir, was lost, makes it anew from the copy in [data] dir and the log,\n"+
		"and if [data] dir has lost no more than node.json, that;\n"+
		"else tells what is lost with a damaged log, and changes nothing.\n"+
		"With -accept-loss: has the node go on without that, as far as no other node has it, and without a [data] dir that was lost.\n"+
		"With -without: has the cluster go on from the catalogue on this node, when most meta nodes are lost for good.")
	without := f.String("without", "", "`ID[,…]` of the meta nodes that are lost for good")
	accept := f.Bool("accept-loss", false, "go on without what is lost with a damaged log; run it without this flag first, to see what that is")
	if code := f.parse(args); code >= 0 {
		return code
	}
	if *accept && *without != "" {
		fmt.Fprintln(os.Stderr, "dsdbd recover: give -accept-loss or -without, one after the other if need be")
		return 2
	}
	c, _, err := f.load()
	switch {
	case err != nil:
		return fail(err)
	case *without != "":
		return refound(c, *without)
	}
	lost := server.Unidentified(c, vfs.OS())
	if *accept || lost == "" {
		return acceptLoss(c, *accept)
	}
	if err := server.Recover(c, vfs.OS()); err != nil {
		return fail(err)
	}
	fmt.Printf("%s was made anew; start dsdbd\n", lost)
	return 0
}

// acceptLoss tells what is lost with the log of a node, and has it go on without.
func acceptLoss(c config.Config, accept bool) int {
	l, err := server.AcceptLoss(context.Background(), c, vfs.OS(), server.LossOptions{Accept: accept, Now: time.Now(), Version: buildVersion()})
	if l != nil {
		for _, line := range l.Lines() {
			fmt.Println(line)
		}
	}
	switch {
	case err != nil:
		return fail(err)
	case !l.Any() && len(l.Left) > 0:
		fmt.Println("there is nothing that the node could go on without; nothing was changed")
	case !l.Any():
		fmt.Printf("%s is there, and nothing is lost with the log in %s; nothing was changed\n", c.Meta.Dir, c.Data.WALDir)
	case !accept:
		fmt.Println("nothing was changed; dsdbd recover -accept-loss has the node go on without what is lost, for good. Keep a copy of its folders")
	default:
		fmt.Printf("the node goes on without that, which is recorded in %s; start dsdbd\n", c.Data.WALDir)
	}
	return 0
}

// refound has a cluster go on from the catalogue on this node.
func refound(c config.Config, without string) int {
	var lost []dsdb.NodeID
	for _, text := range strings.Split(without, ",") {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			fmt.Fprintf(os.Stderr, "dsdbd recover: -without wants ids of meta nodes, as in SHOW SERVERS, not %q\n", text)
			return 2
		}
		lost = append(lost, dsdb.NodeID(id))
	}
	if err := server.Refound(context.Background(), c, vfs.OS(), lost, confirm); err != nil {
		return fail(err)
	}
	fmt.Println("the cluster goes on from this node; start dsdbd")
	return 0
}

// confirm tells what is about to be given up, and wants a yes.
func confirm(r server.Remains) error {
	fmt.Printf("The cluster is to go on from the catalogue on %s, which ends with entry %d of term %d.\n", r.Self, r.Index, r.Term)
	fmt.Printf("These meta nodes are given up for good, and must never run again: %s.\n", strings.Join(r.Lost, ", "))
	if len(r.Others) > 0 {
		fmt.Printf("These get this catalogue when they are started: %s. If one of them has entries of a higher term, or more of them, run this there.\n", strings.Join(r.Others, ", "))
	}
	fmt.Print("Type yes to go on: ")
	var answer string
	if _, err := fmt.Scanln(&answer); err != nil || answer != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

func runDaemon(args []string) int {
	f := newFlags("dsdbd run", "Starts the daemon. It ends cleanly on SIGTERM or SIGINT; a second signal ends it at once.")
	if code := f.parse(args); code >= 0 {
		return code
	}
	c, warnings, err := f.load()
	if err != nil {
		return fail(err)
	}
	log := newLogger(c.Logging, os.Stderr)
	for _, w := range warnings {
		log.Warn(w)
	}
	if err := serve(c, log, *f.pidfile, dsdb.NodeID(*f.replace)); err != nil {
		log.Error("dsdbd ends", "err", err)
		return 1
	}
	return 0
}

// serve runs a node until a signal ends it.
func serve(c config.Config, log *slog.Logger, pidfile string, replace dsdb.NodeID) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	unwatch := context.AfterFunc(ctx, func() {
		log.Info("stopping; another signal ends dsdbd at once")
		stop()
	})
	defer unwatch()
	began := time.Now()
	removePID := func() {}
	defer func() { removePID() }()
	n, err := server.Open(ctx, c, server.Options{FS: vfs.OS(), Logger: log, Version: buildVersion(), Replace: replace,
		Locked: func() { removePID = writePID(log, pidfile) },
		Fatal: func(err error) {
			log.Error("the log failed: ending at once so that nothing is acknowledged that is not durable", "err", err)
			os.Exit(1)
		}})
	if ctx.Err() != nil && err != nil {
		log.Info("stopped before it was ready", "reason", err)
		return nil
	}
	if err != nil {
		return err
	}
	log.Info("dsdbd is ready", "version", buildVersion(), "http", n.Addr(), "data", c.Data.Dir, "wal", c.Data.WALDir,
		"pid", os.Getpid(), "duration", time.Since(began).Seconds())
	if isTerminal(os.Stderr) {
		fmt.Fprintf(os.Stderr, "\n  next: in another terminal, dsdb -execute 'CREATE DATABASE mydb'; then dsdb -database mydb\n\n")
	}
	err = errors.Join(n.Serve(ctx), n.Close())
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// writePID writes the process id to a file, if there is to be one. The file of
// another process, which has the folders, is none of this one's business.
func writePID(log *slog.Logger, file string) (remove func()) {
	if file == "" {
		return func() {}
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		log.Error("pidfile", "err", err)
	}
	return func() { _ = os.Remove(file) } // it may never have been there
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// newLogger writes text to a terminal and JSON elsewhere, unless told otherwise.
func newLogger(c config.Logging, w *os.File) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // validated
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" || c.Format == "auto" && !isTerminal(w) {
		return slog.New(slog.NewJSONHandler(io.Writer(w), o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
