package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/meta"
	"github.com/dasudian/dsdb/ql"
)

// No name becomes a part of a path: those of databases and policies are refused if
// they look like one, all others are text in files whose names are numbers.
func TestTSEC11NamesAreNoPaths(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	c := open(t, disk, quietConfig())
	c.mustQuery("", "CREATE DATABASE db")
	names := []string{"../x", "..", "a/b", "/etc/x", "%2e%2e%2fx", "\x00x", "．．／x", strings.Repeat("n", 300)}
	var lines strings.Builder
	for i, name := range names {
		if strings.ContainsAny(name, "/\x00") || name == ".." || len(name) > 255 {
			for _, cmd := range []meta.Command{&meta.CreateDatabase{Name: name}, &meta.CreateDatabase{Name: "x", Policy: &meta.PolicySpec{Name: name}}} {
				wantError(t, c.node.command(t.Context(), cmd), dsdb.KindInvalid, "invalid name")
			}
		} else {
			c.mustQuery("", fmt.Sprintf(`CREATE DATABASE "%s"; CREATE RETENTION POLICY "%s" ON db DURATION 1d REPLICATION 1`, name, name))
			c.mustWrite(name, fmt.Sprintf("m v=%di 1", i))
		}
		fmt.Fprintf(&lines, "%[1]s,%[1]s=%[1]s %[1]s=%[2]di 1\n", name, i)
	}
	c.mustWrite("db", lines.String())
	want := c.mustQuery("db", "SHOW SERIES; SHOW FIELD KEYS; SELECT * FROM /.*/")
	c.flushAll()
	c = c.reopen()
	c.expect("db", "SHOW SERIES; SHOW FIELD KEYS; SELECT * FROM /.*/", want)
	for _, file := range files(t, disk, "/") {
		for _, part := range strings.Split(path.Dir(file), "/")[1:] {
			switch {
			case strings.Trim(part, "0123456789") == "":
			case part == "node", part == "data", part == "meta", part == "wal", part == "shard", part == "catalogue", part == "hh":
			default:
				t.Errorf("there is a file %s", file)
			}
		}
	}
	c.close()
}

// A deletion is carried out however deep its condition is nested, if the statement
// can be parsed: in each pair of brackets may be an AND in an OR.
func TestNestedConditionOfADeletion(t *testing.T) {
	t.Parallel()
	c := open(t, vfs.NewMem(1), quietConfig())
	defer c.close()
	c.mustQuery("", "CREATE DATABASE db")
	c.mustWrite("db", "m,a=1 v=1 1\nm,a=2 v=2 2\nm,a=3 v=3 3")
	nested := "a = '1'"
	for range ql.MaxDepth {
		nested = "(" + nested + ") AND a <> '4' OR a = '4'"
	}
	c.mustQuery("db", "DELETE WHERE "+nested)
	c.mustQuery("db", "DROP SERIES WHERE "+strings.Replace(nested, "'1'", "'2'", 1))
	c.expect("db", "SELECT v FROM m", "m time=3 v=3")
}

// Who talks HTTP/2 to a plain address without being asked is not listened to.
func TestTSEC13NoHTTP2InPlain(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	conn, err := net.Dial("tcp", m.cfg.HTTP.BindAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // an empty frame of settings
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+settings); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(*patience)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && !strings.Contains(err.Error(), "reset") || len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
		t.Errorf("%q %v", answer, err)
	}
}

// Clients that begin a request and do not go on neither keep others from being
// served, nor their connections.
func TestTSEC14HalfHeadersAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	m := newMachine(t).start()
	var slow []net.Conn
	for range 300 {
		conn, err := net.Dial("tcp", m.cfg.HTTP.BindAddress)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /write?db=db HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	rs, err := http.Get("http://" + m.cfg.HTTP.BindAddress + "/query?q=SHOW+DATABASES")
	if err != nil {
		t.Fatal(err)
	}
	rs.Body.Close()
	if rs.StatusCode != http.StatusOK {
		t.Error(rs.Status)
	}
	deadline := time.Now().Add(*patience)
	for _, conn := range slow {
		if err := conn.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("the connection is kept: %v", err)
		}
	}
}
