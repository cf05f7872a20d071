// Command dsdb-bench measures a disk and a server.
//
//	dsdb-bench iops [-dir DIR]     synced writes per second, with a verdict
//	dsdb-bench write [-url URL]    points per second into a server
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/dasudian/dsdb/bench"
)

const usage = `dsdb-bench measures what a disk and a server can do.

  dsdb-bench iops -dir DIR     synced writes per second of the disk that holds DIR, at several
                               block sizes and depths, and what load that is good for
  dsdb-bench write -url URL    write the points of a monitoring agent; prints values/s, latencies,
                               and the CPU, syncs and writes that the server needed for them

"dsdb-bench COMMAND -h" tells the flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(dispatch(ctx, os.Args[1:]))
}

func dispatch(ctx context.Context, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	var err error
	switch args[0] {
	case "iops":
		err = iops(ctx, args[1:])
	case "write":
		err = write(ctx, args[1:])
	case "-h", "-help", "--help", "help":
		fmt.Print(usage)
		return 0
	default:
		fmt.Fprintf(os.Stderr, "dsdb-bench: unknown command %q\n\n%s", args[0], usage)
		return 2
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintln(os.Stderr, "dsdb-bench:", err)
	return 1
}

// errUsage means that the flags were wrong and that this has been said.
var errUsage = errors.New("usage")

func parse(f *flag.FlagSet, args []string) error {
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	case f.NArg() > 0:
		fmt.Fprintf(os.Stderr, "%s: unexpected argument %q\n", f.Name(), f.Arg(0))
		return errUsage
	}
	return nil
}

// bar returns a progress bar on a terminal, a silent one elsewhere.
func bar(most int, what string) *progressbar.ProgressBar {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return progressbar.DefaultSilent(int64(most), what)
	}
	return progressbar.NewOptions(most, progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionShowIts())
}

func iops(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("dsdb-bench iops", flag.ContinueOnError)
	dir := f.String("dir", ".", "`FOLDER` on the disk to measure; 1 GiB is written there and removed")
	each := f.Duration("each", time.Second, "`TIME` for each measurement")
	if err := parse(f, args); err != nil {
		return err
	}
	jobs := bench.Jobs()
	b := bar(len(jobs), "measuring "+*dir)
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "pattern\tblock\tdepth\tIOPS\tMB/s\tp50 ms\tp99 ms\tmax ms\t")
	verdict := 0.0
	for _, j := range jobs {
		o, err := bench.IOPS(ctx, *dir, j, *each)
		if err != nil {
			return err
		}
		if j.Pattern == bench.Random && j.Size == 4<<10 {
			verdict = max(verdict, o.PerSecond())
		}
		fmt.Fprintf(w, "%s\t%d KiB\t%d\t%.0f\t%.1f\t%s\t\n", j.Pattern, j.Size>>10, j.Depth, o.PerSecond(),
			o.PerSecond()*float64(j.Size)/1e6, latencies(o.Latency))
		_ = b.Add(1)
	}
	_ = b.Finish()
	if err := w.Flush(); err != nil {
		return err
	}
	c := bench.Classify(verdict)
	fmt.Printf("\n%.0f synced random 4 KiB writes a second: class %s, %s.\n", verdict, c.Name, c.Means)
	return nil
}

func latencies(h *hdrhistogram.Histogram) string {
	ms := func(v int64) float64 { return float64(v) / 1e6 }
	return fmt.Sprintf("%.3f\t%.3f\t%.3f", ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.Max()))
}

func write(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("dsdb-bench write", flag.ContinueOnError)
	j := bench.WriteJob{Step: 10 * time.Second}
	f.StringVar(&j.URL, "url", "http://127.0.0.1:8086", "`URL` of the server")
	f.StringVar(&j.Database, "db", "bench", "`DATABASE` to write to; it is created")
	f.IntVar(&j.Hosts, "hosts", 100, "`N` hosts, each a series with 10 fields")
	f.IntVar(&j.Points, "points", 1_000_000, "`N` points in all")
	f.IntVar(&j.Batch, "batch", 5000, "`N` points per request")
	f.IntVar(&j.Workers, "workers", 2, "`N` connections")
	f.Uint64Var(&j.Seed, "seed", 1, "equal seeds write equal points")
	start := f.String("start", "2026-01-01T00:00:00Z", "`TIME` of the first points")
	f.IntVar(&j.PID, "pid", 0, "process `ID` of the server; 0: found if it runs here")
	if err := parse(f, args); err != nil {
		return err
	}
	var err error
	if j.Start, err = time.Parse(time.RFC3339, *start); err != nil || j.Workers < 1 || j.Batch < 1 || j.Hosts < 1 || j.Points < j.Workers {
		fmt.Fprintln(os.Stderr, "dsdb-bench write: -start wants a time such as 2026-01-01T00:00:00Z; the numbers must be positive")
		return errUsage
	}
	if j.PID == 0 {
		j.PID = bench.FindPID(j.URL)
	}
	b := bar(j.Points, "writing")
	j.Progress = func(n int) { _ = b.Add(n) }
	o, err := bench.Write(ctx, j)
	if err != nil {
		return err
	}
	_ = b.Finish()
	report(o, j)
	return nil
}

func report(o *bench.WriteOutcome, j bench.WriteJob) {
	secs, millions := o.Elapsed.Seconds(), float64(o.Values())/1e6
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "points\t%d (%d values) in %.2f s, %d connections, %d points a request\n", o.Points, o.Values(), secs, j.Workers, j.Batch)
	fmt.Fprintf(w, "rate\t%.0f points/s, %.2f M values/s\n", float64(o.Points)/secs, millions/secs)
	fmt.Fprintf(w, "request\tp50 / p99 / max ms\t%s\n", latencies(o.Latency))
	if j.PID != 0 {
		fmt.Fprintf(w, "server CPU\t%.2f s, %.3f s per million values\n", o.Server.CPU, o.Server.CPU/millions)
		fmt.Fprintf(w, "server writes\t%d calls, %.1f per million values, %.2f bytes to disk per value\n", o.Server.WriteCalls,
			float64(o.Server.WriteCalls)/millions, float64(o.Server.WriteBytes)/float64(o.Values()))
		fmt.Fprintf(w, "server peak RSS\t%.0f MB\n", float64(o.Server.PeakRSS)/1e6)
	}
	if o.Syncs >= 0 {
		fmt.Fprintf(w, "log syncs\t%.0f, %.1f per million values\n", o.Syncs, o.Syncs/millions)
	}
}
