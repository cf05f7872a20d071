package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The ports of a node: the client API, the other nodes' traffic, the API for joining.
const (
	apiPort  = 8086
	peerPort = 8088
	joinPort = 8091
)

// Cluster is the daemons of one network.
type Cluster struct {
	Net   *Network
	Proxy *Proxy
	Nodes []*Process // node i is Nodes[i-1]

	dir  string
	http *http.Client
}

// Process is one daemon and its folder.
type Process struct {
	ID     int
	URL    string // of the client API
	Join   string // what -join names, "" for none; all but the first name the first
	Binary string // what runs

	c    *Cluster
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  *os.File
}

// NewCluster prepares nodes whose folders lie below dir. Nothing runs yet.
func NewCluster(n *Network, p *Proxy, binary, dir string) (*Cluster, error) {
	c := &Cluster{Net: n, Proxy: p, dir: dir, http: &http.Client{Timeout: 15 * time.Second}}
	for i := 1; i <= n.nodes; i++ {
		for _, port := range []int{peerPort, joinPort} {
			if err := p.Forward(fmt.Sprintf("%s:%d", n.Gateway(i), port), fmt.Sprintf("%s:%d", n.Addr(i), port), i); err != nil {
				return nil, err
			}
		}
		pr := &Process{ID: i, URL: fmt.Sprintf("http://%s:%d", n.Addr(i), apiPort), Binary: binary, c: c}
		if i > 1 {
			pr.Join = c.Nodes[0].joinAddr()
		}
		if err := pr.Configure(true, true); err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, pr)
	}
	return c, nil
}

// Dir is the folder of a node.
func (p *Process) Dir() string { return filepath.Join(p.c.dir, fmt.Sprintf("node%d", p.ID)) }

func (p *Process) joinAddr() string { return fmt.Sprintf("%s:%d", p.c.Net.Addr(p.ID), joinPort) }

// Configure writes the configuration of a node with one role, or both.
func (p *Process) Configure(isMeta, isData bool) error {
	if err := os.MkdirAll(p.Dir(), 0o755); err != nil {
		return err
	}
	n := p.c.Net
	text := fmt.Sprintf(`hostname = %[1]q
[meta]
  enabled = %[7]v
  dir = "%[2]s/meta"
  bind-address = "%[1]s:%[4]d"
  advertise-address = "%[3]s:%[4]d"
  http-bind-address = "%[1]s:%[5]d"
[data]
  enabled = %[8]v
  dir = "%[2]s/data"
  wal-dir = "%[2]s/wal"
  wal-max-size = "64m"
  cache-snapshot-memory-size = "256k"
[hinted-handoff]
  dir = "%[2]s/hh"
[http]
  bind-address = "%[1]s:%[6]d"
[logging]
  format = "text"
`, n.Addr(p.ID), p.Dir(), n.Gateway(p.ID), peerPort, joinPort, apiPort, isMeta, isData)
	return os.WriteFile(filepath.Join(p.Dir(), "dsdb.conf"), []byte(text), 0o644)
}

// Wipe removes everything that the node stored. It must not run.
func (p *Process) Wipe() error {
	var errs []error
	for _, folder := range []string{"meta", "data", "wal", "hh"} {
		errs = append(errs, os.RemoveAll(filepath.Join(p.Dir(), folder)))
	}
	return errors.Join(errs...)
}

// Start starts the daemon.
func (p *Process) Start() error {
	args := []string{"-config", filepath.Join(p.Dir(), "dsdb.conf")}
	if p.Join != "" {
		args = append(args, "-join", p.Join)
	}
	log, err := os.OpenFile(p.logName(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	p.cmd = p.c.Net.Command(p.ID, p.Binary, args...)
	p.cmd.Stderr, p.cmd.Stdout, p.log = log, log, log
	if err := p.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	done, cmd := make(chan struct{}), p.cmd
	p.done = done
	go func() {
		_ = cmd.Wait() // killed or ended, both are meant
		_ = log.Close()
		close(done)
	}()
	return nil
}

func (p *Process) logName() string { return filepath.Join(p.Dir(), "log") }

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal. SIGKILL and SIGTERM wait until the process has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	if sig != syscall.SIGKILL && sig != syscall.SIGTERM {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("node %d does not end: see %s", p.ID, p.logName())
	}
}

// WaitReady returns when the node answers that it takes writes.
func (p *Process) WaitReady(ctx context.Context) error {
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("node %d has ended: %s", p.ID, p.Tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %d is not ready: %w: %s", p.ID, err, p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *Process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := p.c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Tail returns the end of the node's log.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.logName())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Start starts all nodes, the first one first, and waits until they are ready.
func (c *Cluster) Start(ctx context.Context) error {
	for _, p := range c.Nodes {
		if err := p.Start(); err != nil {
			return err
		}
		if err := p.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close kills all nodes.
func (c *Cluster) Close() error {
	var errs []error
	for _, p := range c.Nodes {
		_ = p.Signal(syscall.SIGCONT) // it may be paused; if it has ended the next line does nothing
		errs = append(errs, p.Signal(syscall.SIGKILL))
	}
	return errors.Join(errs...)
}
