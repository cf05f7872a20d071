package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/dasudian/dsdb/internal/vfs"
	"github.com/dasudian/dsdb/server"
	"github.com/dasudian/dsdb/server/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What dsdb-bench write sends, a real server has afterwards.
func TestWriteFillsServer(t *testing.T) {
	cfg := config.Default("/node")
	cfg.HTTP.BindAddress = "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.Background())
	n, err := server.Open(ctx, cfg, server.Options{FS: vfs.NewMem(1), Logger: slog.New(slog.DiscardHandler), Version: "test",
		Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = n.Serve(ctx) }) // ends when stop is called
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		serving.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	base := "http://" + n.Addr()
	if code := dispatch(ctx, []string{"write", "-url", base, "-db", "b", "-hosts", "3", "-points", "1000", "-batch", "70"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	resp, err := http.PostForm(base+"/query", url.Values{"db": {"b"}, "q": {"SELECT count(usage_user) FROM cpu"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), `"values":[["1970-01-01T00:00:00Z",1000]]`) {
		t.Errorf("%s %v", body, err)
	}
}

func TestExitCodes(t *testing.T) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		args string
		code int
	}{
		{context.Background(), "", 2},
		{context.Background(), "-h", 0},
		{context.Background(), "iops -h", 0},
		{context.Background(), "iops x", 2},
		{context.Background(), "iops -dir /does/not/exist", 1},
		{context.Background(), "read", 2},
		{context.Background(), "write -start soon", 2},
		{context.Background(), "write -points 0", 2},
		{context.Background(), "write -url http://127.0.0.1:1", 1},
		{done, "write -url http://127.0.0.1:1", 130},
	} {
		if got := dispatch(c.ctx, strings.Fields(c.args)); got != c.code {
			t.Errorf("dsdb-bench %s: exit code %d, want %d", c.args, got, c.code)
		}
	}
}
