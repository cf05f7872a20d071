package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dasudian/dsdb/internal/mutant"
)

// These are set in the environment of the process that runs in the hub.
const (
	envHub    = "DSDB_CHAOS_HUB"
	envDir    = "DSDB_CHAOS_DIR"
	envBinary = "DSDB_CHAOS_BINARY"
)

// envKeep names a folder to which those of the nodes are copied if a test fails.
const envKeep = "DSDB_CHAOS_KEEP"

// inNetwork runs a test against a cluster of some nodes, all of which run.
func inNetwork(t *testing.T, nodes int, test func(t *testing.T, c *Cluster)) {
	onNetwork(t, nodes, func(t *testing.T, c *Cluster) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		test(t, c)
	})
}

// onNetwork runs a test with some nodes, none of which was started yet. It makes
// the network and starts the test binary again in its hub, where test runs.
func onNetwork(t *testing.T, nodes int, test func(t *testing.T, c *Cluster)) {
	if hub := os.Getenv(envHub); hub != "" {
		runInHub(t, Attach(hub, nodes), test)
		return
	}
	if err := Available(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "dsdbd")
	if out, err := exec.Command("go", "build", "-tags", mutant.Tag, "-o", binary, "github.com/dasudian/dsdb/cmd/dsdbd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	mountSmallDisk(t, filepath.Join(dir, fmt.Sprintf("node%d", nodes)))
	hub := fmt.Sprintf("dsdb%d", os.Getpid())
	n, err := NewNetwork(hub, nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.InHub(self, "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprint("-seconds=", *seconds), fmt.Sprint("-nodes=", nodes),
		fmt.Sprint("-seed=", *seed), fmt.Sprint("-clients=", *clients), fmt.Sprint("-least=", *least), fmt.Sprint("-faults=", *kinds), fmt.Sprint("-kills=", *kills), fmt.Sprint("-rounds=", *rounds))
	cmd.Env = append(os.Environ(), envHub+"="+hub, envDir+"="+dir, envBinary+"="+binary)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if keep := os.Getenv(envKeep); keep != "" {
			_ = exec.Command("cp", "-a", dir, keep).Run() // for whoever looks into it
		}
		t.Fatalf("%v; again: go test ./internal/chaos -run %s -v -seconds=%d -nodes=%d -seed=%d", err, t.Name(), *seconds, nodes, *seed)
	}
}

// mountSmallDisk makes dir a file system that can be filled.
func mountSmallDisk(t *testing.T, dir string) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// runInHub prepares the cluster and runs the test.
func runInHub(t *testing.T, n *Network, test func(t *testing.T, c *Cluster)) {
	p := NewProxy(n, *seed)
	defer p.Close()
	c, err := NewCluster(n, p, os.Getenv(envBinary), os.Getenv(envDir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer func() {
		if t.Failed() {
			for _, p := range c.Nodes {
				t.Logf("node %d:\n%s", p.ID, p.Tail())
			}
		}
	}()
	test(t, c)
}
