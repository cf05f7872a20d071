//go:build packages

package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dasudian/dsdb/server/config"
)

// container is what runs for a service of compose.yaml, as tools/containers has
// it from that file and the Dockerfile.
type container struct {
	Service     string
	Hostname    string
	Command     []string
	Environment map[string]string
	Exposed     []string
	Published   []string
	Volumes     []string
	Declared    []string
	Health      []string
}

// composed returns the containers of compose.yaml.
func composed(t *testing.T) (all []container) {
	t.Helper()
	cmd := exec.Command("go", "run", "-C", "../../tools/containers", ".", "-print", "../../packaging/Dockerfile", "../../packaging/compose.yaml")
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil || len(all) == 0 {
		t.Fatalf("containers: %v\n%s%s", err, out, problems.String())
	}
	return all
}

// TestContainers runs what the Dockerfile and compose.yaml say, on hosts with
// nothing but the programs: the same commands, variables and names, by a user
// without rights. The nodes have to find each other, be well by the image's own
// word, and keep what they are told to keep in the volume.
func TestContainers(t *testing.T) {
	all := composed(t)
	if len(all) != 3 {
		t.Fatalf("%d services, want 3", len(all))
	}
	hosts := machines(t, len(all))
	for i, c := range all {
		h := hosts[i]
		c.check(t)
		if h.Name != c.Hostname || c.Service != c.Hostname {
			t.Fatalf("service %s has the name %s, want %s: that is how the others find it", c.Service, c.Hostname, h.Name)
		}
		install(t, h) // has the programs where the image has them
		must(t, h, "rm -r /etc/dsdb")
		must(t, h, "install -d -o 65532 -g 65532 "+strings.Join(c.Declared, " "))
		c.start(t, h)
	}
	for i, c := range all {
		c.well(t, hosts[i])
	}
	checkServers(t, hosts, 8086, 3, 3)
	must(t, hosts[0], `dsdb -execute 'CREATE DATABASE kept'`)
	must(t, hosts[1], `dsdb -database kept -execute 'INSERT m v=1'`)

	// Another container with the volume goes on where this one ends.
	must(t, hosts[2], "pkill -x dsdbd; while pgrep -x dsdbd; do sleep 0.1; done")
	all[2].start(t, hosts[2])
	all[2].well(t, hosts[2])
	if out := must(t, hosts[2], `dsdb -database kept -execute 'SELECT count(v) FROM m' -format csv`); !strings.Contains(out, ",1") {
		t.Errorf("after a restart: %s", out)
	}
	for _, h := range hosts {
		if out := must(t, h, "grep -h 'no effect' /tmp/container.log || true"); out != "" {
			t.Errorf("%s warns: %s", h.Name, out)
		}
	}
}

// check compares what a container is told with what there is to tell.
func (c *container) check(t *testing.T) {
	t.Helper()
	def := config.Default("/")
	var ports []string
	for _, address := range []string{def.HTTP.BindAddress, def.Meta.BindAddress, def.Meta.HTTPBindAddress} {
		ports = append(ports, address[strings.LastIndexByte(address, ':')+1:]+"/tcp")
	}
	if !slices.Equal(c.Exposed, ports) {
		t.Errorf("%s exposes %v, the defaults are %v", c.Service, c.Exposed, ports)
	}
	for _, p := range c.Published {
		if !slices.Contains(ports, p) {
			t.Errorf("%s publishes %s, on which nobody listens", c.Service, p)
		}
	}
	if !slices.Equal(c.Volumes, c.Declared) {
		t.Errorf("%s mounts %v, the image declares %v", c.Service, c.Volumes, c.Declared)
	}
	for k, v := range c.Environment {
		kept := func(dir string) bool { return strings.HasPrefix(v, dir+"/") }
		if strings.HasSuffix(k, "_DIR") && !slices.ContainsFunc(c.Volumes, kept) {
			t.Errorf("%s: %s=%s is in no volume", c.Service, k, v)
		}
	}
	if len(c.Health) < 2 || c.Health[0] != "CMD" {
		t.Errorf("%s: the health check is %v; the image has no shell", c.Service, c.Health)
	}
}

// environment returns the variables of a container for env.
func (c *container) environment() string {
	text := ""
	for _, k := range slices.Sorted(maps.Keys(c.Environment)) {
		text += fmt.Sprintf(" '%s=%s'", k, c.Environment[k])
	}
	return text
}

// start runs the command of a container, as the user of the image and with
// nothing but its variables.
func (c *container) start(t *testing.T, h *Host) {
	t.Helper()
	must(t, h, fmt.Sprintf(`cd / && nohup setpriv --reuid=65532 --regid=65532 --clear-groups env -i%s '%s' >>/tmp/container.log 2>&1 </dev/null &`,
		c.environment(), strings.Join(c.Command, "' '")))
}

// well waits until a container is well.
func (c *container) well(t *testing.T, h *Host) {
	t.Helper()
	check := fmt.Sprintf(`env -i%s '%s' </dev/null`, c.environment(), strings.Join(c.Health[1:], "' '"))
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := h.Run(check)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			log, _ := h.Run("tail -n 20 /tmp/container.log")
			t.Fatalf("%s is not well: %v\n%s", c.Service, err, log)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
