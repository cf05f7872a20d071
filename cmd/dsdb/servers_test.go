package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestServersToTry(t *testing.T) {
	defer func(was string) { configFile = was }(configFile)
	configFile = filepath.Join(t.TempDir(), "dsdb.conf")
	for _, c := range []struct {
		hosts string
		port  int
		conf  string // [http] bind-address; "": there is no file
		want  string
	}{
		{"", 0, "", "localhost:8086"},
		{"", 0, "influx1:8088", "localhost:8086 influx1:8088"},
		{"", 0, ":8088", "localhost:8086 localhost:8088"},
		{"", 0, "0.0.0.0:8086", "localhost:8086"},
		{"", 9999, "influx1:8088", "localhost:9999"},
		{"a", 0, "influx1:8088", "a:8086 a:8088"},
		{"a", 9999, "", "a:9999"},
		{"a,b:1,[::1]:2", 0, "", "a:8086 a:8088 b:1 [::1]:2"},
		{"a,b:1", 7, "", "a:7 b:1"},
		{"::1", 7, "", "[::1]:7"},
		{"[::1]", 7, "", "[::1]:7"},
	} {
		os.Remove(configFile)
		if c.conf != "" {
			if err := os.WriteFile(configFile, []byte("[http]\nbind-address = \""+c.conf+"\"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(servers(c.hosts, c.port), " "); got != c.want {
			t.Errorf("servers(%q, %d) with %q configured: %s, not %s", c.hosts, c.port, c.conf, got, c.want)
		}
	}
}

// A server that takes connections and says nothing does not keep the next one
// from being tried.
func TestServerThatHangsIsPassedOver(t *testing.T) {
	t.Cleanup(func() { pingWait = 5 * time.Second })
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer srv.Close()
	o := &options{host: hangs.Addr().String() + "," + srv.Listener.Addr().String()}
	var c *client
	for pingWait = 50 * time.Millisecond; pingWait < time.Minute; pingWait *= 2 { // on a busy machine the other one is slow
		if c, err = connect(t.Context(), o); err == nil {
			break
		}
	}
	if err != nil || c.base != srv.URL {
		t.Errorf("%v, at %s", err, c.base)
	}
	pingWait = 50 * time.Millisecond
	o.host = hangs.Addr().String()
	if _, err := connect(t.Context(), o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that hangs alone: %v", err)
	}
}
