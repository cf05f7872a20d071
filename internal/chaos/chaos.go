// Package chaos starts real dsdbd processes, each in a network namespace of its
// own, lets clients write to them and read from them, and meanwhile kills,
// pauses, cuts off, slows down and fills up nodes. Afterwards it checks every
// acknowledged point. It knows the daemon only from outside: its configuration,
// its signals, its sockets.
//
// A Network is a hub namespace, in which the harness itself runs, and one
// namespace per node, each with a link to the hub. The traffic between nodes
// passes a Proxy in the hub, which delays it, or stops it in one direction. A
// Cluster is the processes on it; Load is the clients; a Nemesis picks the
// faults from a seed.
package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Network is a hub and nodes around it, made of network namespaces. Node i
// (from 1) has the address Addr(i), the hub's end of its link Gateway(i).
type Network struct {
	name  string // of the hub; the nodes' are name-1, name-2, …
	nodes int
}

// Available reports why network namespaces cannot be used here, nil if they can.
func Available() error {
	if os.Getuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("network namespaces need iproute2: apt-get install iproute2")
	}
	return nil
}

// NewNetwork makes the namespaces of a network for some nodes.
func NewNetwork(name string, nodes int) (*Network, error) {
	n := &Network{name: name, nodes: nodes}
	commands := []string{
		"netns add HUB",
		"-n HUB link set lo up",
		"netns exec HUB sysctl -q -w net.ipv4.ip_forward=1",
	}
	for i := 1; i <= nodes; i++ {
		for _, c := range []string{
			"netns add NODE",
			"link add LINK netns HUB type veth peer name eth0 netns NODE",
			"-n HUB addr add GATEWAY/24 dev LINK",
			"-n HUB link set LINK up",
			"-n NODE addr add ADDR/24 dev eth0",
			"-n NODE link set lo up",
			"-n NODE link set eth0 up",
			"-n NODE route add default via GATEWAY",
		} {
			commands = append(commands, strings.NewReplacer("NODE", n.node(i), "LINK", link(i), "GATEWAY", n.Gateway(i), "ADDR", n.Addr(i)).Replace(c))
		}
	}
	for _, c := range commands {
		if err := ip(strings.Fields(strings.ReplaceAll(c, "HUB", name))...); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// Attach returns the network that NewNetwork made, to a process that runs in its hub.
func Attach(name string, nodes int) *Network { return &Network{name: name, nodes: nodes} }

// Close removes the namespaces and with them the links.
func (n *Network) Close() error {
	var errs []error
	for i := 1; i <= n.nodes; i++ {
		errs = append(errs, ip("netns", "del", n.node(i)))
	}
	return errors.Join(append(errs, ip("netns", "del", n.name))...)
}

// Addr is the address of a node.
func (n *Network) Addr(i int) string { return fmt.Sprintf("10.77.%d.2", i) }

// Gateway is the hub's address on the link to a node.
func (n *Network) Gateway(i int) string { return fmt.Sprintf("10.77.%d.1", i) }

// Command makes a command that runs in the namespace of a node.
func (n *Network) Command(i int, name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.node(i), name}, args...)...)
}

// InHub makes a command that runs in the hub.
func (n *Network) InHub(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.name, name}, args...)...)
}

// SetLink takes the link of a node down, or up again.
func (n *Network) SetLink(i int, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return ip("-n", n.name, "link", "set", link(i), state)
}

func (n *Network) node(i int) string { return fmt.Sprintf("%s-%d", n.name, i) }

func link(i int) string { return fmt.Sprintf("node%d", i) }

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
