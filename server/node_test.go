package server

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/column"
	"github.com/dasudian/dsdb/exec"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/lineproto"
	"github.com/dasudian/dsdb/ql"
	"github.com/dasudian/dsdb/server/config"
	"github.com/dasudian/dsdb/server/httpd"
)

// patience is how long a test waits for what is to happen.
var patience = flag.Duration("patience", 2*time.Minute, "how long tests wait for what is to happen")

// Most tests wait for elections and the like rather than compute, so that more
// of them than there are processors run at a time, unless -parallel says how many.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeBuild()
		os.Exit(code)
	}))
}

// client speaks to a node as the HTTP API does: line protocol in, rows out.
type client struct {
	t    testing.TB
	node *Node
	log  *logBook

	patience time.Duration // a request that takes longer is given up
}

// quietConfig is a node without HTTP that flushes and compacts nothing by itself.
func quietConfig() config.Config {
	c := config.Default("/node")
	c.HTTP.Enabled = false
	c.Meta.BindAddress, c.Meta.HTTPBindAddress = "", ""
	c.Retention.Enabled, c.Precreation.Enabled = false, false
	c.Coordinator.WriteTimeout = config.Duration(time.Minute) // to hash a password takes seconds on a busy machine with the race detector
	c.Data.WALMaxSize = 8 << 20
	c.Data.CacheSnapshotCold, c.Data.CompactFullCold = config.Duration(time.Hour), config.Duration(time.Hour)
	return c
}

// busyConfig is a node that flushes and compacts whatever it can, all the time.
func busyConfig() config.Config {
	c := quietConfig()
	c.Data.WALMaxSize = 1 << 20
	c.Data.CacheSnapshotMemory = 1
	c.Data.CompactFullCold = config.Duration(time.Millisecond)
	return c
}

// tryOpen opens a node; a log that fails is an error of the test.
func tryOpen(t testing.TB, fs vfs.FS, cfg config.Config) (*client, error) {
	book := &logBook{}
	n, err := Open(context.Background(), cfg, Options{FS: fs, Logger: slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Fatal: func(err error) { t.Errorf("the log failed: %v", err) }})
	return &client{t: t, node: n, log: book, patience: *patience}, err
}

func open(t testing.TB, fs vfs.FS, cfg config.Config) *client {
	t.Helper()
	c, err := tryOpen(t, fs, cfg)
	if err != nil {
		t.Fatalf("open: %v\n%s", err, c.log)
	}
	return c
}

func (c *client) close() {
	c.t.Helper()
	if err := c.node.Close(); err != nil {
		c.t.Fatalf("close: %v", err)
	}
}

// reopen stops the node cleanly and starts it again.
func (c *client) reopen() *client {
	c.t.Helper()
	c.close()
	again := open(c.t, c.node.fs, c.node.cfg)
	again.patience = c.patience
	return again
}

// write stores lines with nanosecond times in the default policy of db.
func (c *client) write(db, lines string) error { return c.writeTo(db, "", lines) }

func (c *client) writeTo(db, policy, lines string) error {
	return c.request(&httpd.WriteRequest{Database: db, Policy: policy}, lines)
}

// writeAs is write at a consistency level.
func (c *client) writeAs(level, db, lines string) error {
	return c.request(&httpd.WriteRequest{Database: db, Consistency: level}, lines)
}

// request stores lines as r says.
func (c *client) request(r *httpd.WriteRequest, lines string) error {
	var p lineproto.Parser
	var b column.WriteBatch
	report, err := p.Parse(&b, []byte(lines), lineproto.Options{})
	if err != nil || report.BadLines > 0 {
		c.t.Fatalf("%q is no line protocol: %v %s", lines, err, report.Text())
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	r.Batch, r.Refused, r.Reason = &b, report.Dropped, report.Reason
	return c.node.Write(ctx, r)
}

func (c *client) mustWrite(db, lines string) {
	c.t.Helper()
	if err := c.write(db, lines); err != nil {
		c.t.Fatalf("write %q into %s: %v", lines, db, err)
	}
}

// insist writes, however long it takes until there is a leader.
func (c *client) insist(db, lines string) {
	c.t.Helper()
	c.insistAs("", db, lines)
}

// insistAs is insist at a consistency level.
func (c *client) insistAs(level, db, lines string) {
	c.t.Helper()
	eventually(c.t, "a write at consistency "+level, func() bool { return c.writeAs(level, db, lines) == nil })
}

// query runs statements and returns their rows as text, one a line:
//
//	measurement,tag=value column=1 other=text
func (c *client) query(db, text string) (string, error) { return c.ask(readLevel{}, db, text) }

// ask is query at a level of read consistency.
func (c *client) ask(level readLevel, db, text string) (string, error) {
	var out strings.Builder
	err := c.eachAt(level, db, text, func(f *column.Frame, row int) {
		out.WriteString(f.Name)
		for _, t := range f.Tags {
			fmt.Fprintf(&out, ",%s=%s", t.Key, t.Value)
		}
		for i := range f.Cols {
			if !f.Cols[i].Null(row) {
				fmt.Fprintf(&out, " %s=%s", f.Columns[i], cell(&f.Cols[i], row))
			}
		}
		out.WriteByte('\n')
	})
	return strings.TrimSpace(out.String()), err
}

func cell(v *column.Vector, row int) string {
	switch v.Type {
	case dsdb.Float:
		return strconv.FormatFloat(v.Floats[row], 'g', -1, 64)
	case dsdb.String:
		return string(v.Str(row))
	case dsdb.Boolean:
		return strconv.FormatBool(v.Ints[row] != 0)
	}
	return strconv.FormatInt(v.Ints[row], 10)
}

// each runs statements and calls fn for each row of their results.
func (c *client) each(db, text string, fn func(f *column.Frame, row int)) error {
	return c.eachAt(readLevel{}, db, text, fn)
}

func (c *client) eachAt(level readLevel, db, text string, fn func(f *column.Frame, row int)) error {
	statements, err := ql.Parse(text, nil)
	if err != nil {
		c.t.Fatalf("%q: %v", text, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	for _, s := range statements {
		res, err := c.node.Execute(ctx, &httpd.QueryRequest{Statement: s, Database: db, ChunkRows: 1000, Read: level.Read, MaxStaleness: level.Staleness})
		if err == nil && res != nil {
			err = eachRow(ctx, res, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func eachRow(ctx context.Context, res exec.Result, fn func(f *column.Frame, row int)) error {
	defer res.Close()
	for {
		f, err := res.Next(ctx)
		if f == nil || err != nil {
			return err
		}
		for row := range f.Rows() {
			fn(f, row)
		}
	}
}

func (c *client) mustQuery(db, text string) string {
	c.t.Helper()
	out, err := c.query(db, text)
	if err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return out
}

// expect runs statements and compares their rows.
func (c *client) expect(db, text, want string) {
	c.t.Helper()
	if got := c.mustQuery(db, text); got != want {
		c.t.Errorf("%s\ngot:\n%s\nwant:\n%s", text, got, want)
	}
}

// flushAll writes everything that is in memory into segments and the catalogue
// into its file, so that nothing needs the log.
func (c *client) flushAll() {
	c.t.Helper()
	for _, s := range c.node.shards.list() {
		rose, err := s.Flush()
		if err != nil {
			c.t.Fatalf("flush shard %d: %v", s.id, err)
		}
		if rose {
			managed{c.node}.Flushed(s.id)
		}
	}
	if err := c.node.flushMeta(); err != nil {
		c.t.Fatalf("flush the catalogue: %v", err)
	}
}

// eventually waits until ok, or fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(*patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// wantError checks the kind and the words of an error.
func wantError(t testing.TB, err error, kind dsdb.Kind, text string) {
	t.Helper()
	if err == nil || dsdb.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("error of kind %d %q, want kind %d with %q", dsdb.KindOf(err), fmt.Sprint(err), kind, text)
	}
}

// logBook keeps what a node logs.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// tail returns what was logged last.
func (b *logBook) tail() string {
	lines := strings.SplitAfter(b.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-100):], "")
}

// clear frees what was logged so far.
func (b *logBook) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = bytes.Buffer{}
}

func now() int64 { return time.Now().UnixNano() }

// What cannot be written is not said to be in use.
func TestFolderWithoutAccessIsNotSaidToBeInUse(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.fs, m.cfg.Meta.Dir = vfs.OS(), t.TempDir()
	m.cfg.Data.Dir, m.cfg.Data.WALDir = t.TempDir(), t.TempDir()
	if err := os.Mkdir(m.cfg.Meta.Dir+"/lock", 0o700); err != nil {
		t.Fatal(err)
	}
	m.refused("folder " + m.cfg.Meta.Dir + ": open ")
}
