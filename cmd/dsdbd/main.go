// Command dsdbd is the DSDB daemon: one node that stores and serves time series.
//
//	dsdbd [run] [-config FILE]          serve
//	dsdbd config [-config FILE]         print the configuration that would be used
//	dsdbd recover [-config FILE]        make a lost [meta] dir anew from [data] dir
//	dsdbd recover [-accept-loss]        tell what is lost with a damaged log, go on without it
//	dsdbd recover -without ID[,ID]      go on from the catalogue here, when most meta nodes are lost
//	dsdbd inspect segment|wal|meta FILE print what a file holds
//	dsdbd version
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// version is set by the Makefile; go install leaves it to the build information.
var version string

const usage = `dsdbd is the DSDB daemon: a time-series database that speaks InfluxDB's protocols.

  dsdbd                              start on 127.0.0.1:8086, data in ~/.dsdb
  dsdbd run -config FILE             start with a configuration
  dsdbd run -join HOST:8091[,…]      start as one more node of a cluster
  dsdbd config [-config FILE]        print the configuration that would be used, with comments
  dsdbd recover [-config FILE]       make a lost folder of the catalogue anew from the copy beside the points
  dsdbd recover [-accept-loss]       tell what is lost with a damaged log; go on without it
  dsdbd recover -without ID[,ID]     have the cluster go on from the catalogue here, when most meta nodes are lost for good
  dsdbd inspect segment [-arrow OUT] FILE   say what is in a segment, or write its rows as Arrow IPC
  dsdbd inspect wal FILE             say what is in a segment of the log
  dsdbd inspect meta FILE            say what is in a snapshot of the catalogue
  dsdbd version                      print the version

Every key of the configuration can be set by an environment variable too:
[http] bind-address is DSDB_HTTP_BIND_ADDRESS. "dsdbd COMMAND -h" tells more.
`

func main() { os.Exit(dispatch(os.Args[1:])) }

// dispatch runs a subcommand and returns the exit code: 0, 1 for a failure, 2 for wrong usage.
func dispatch(args []string) int {
	cmd := "run"
	switch {
	case len(args) == 0:
	case isHelp(args[0]):
		cmd = "help"
	case args[0] == "-version" || args[0] == "--version":
		cmd = "version"
	case !strings.HasPrefix(args[0], "-"):
		cmd, args = args[0], args[1:]
	}
	switch cmd {
	case "run":
		return runDaemon(args)
	case "config":
		return printConfig(args)
	case "recover":
		return recoverNode(args)
	case "inspect":
		return inspect(args)
	case "version":
		fmt.Println("DSDB", buildVersion())
		return 0
	case "help":
		fmt.Print(usage)
		return 0
	}
	fmt.Fprintf(os.Stderr, "dsdbd: unknown command %q\n\n%s", cmd, usage)
	return 2
}

func isHelp(s string) bool { return s == "-h" || s == "-help" || s == "--help" }

// buildVersion returns the version of this build.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "unreleased"
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "dsdbd: %v\n", err)
	return 1
}
