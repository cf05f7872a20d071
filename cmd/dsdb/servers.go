package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dasudian/dsdb/server/config"
)

// The ports at which a server is looked for if none is given: that of the HTTP
// API, and the one that it shares with the traffic between nodes where
// the configuration says so.
var usualPorts = []int{8086, 8088}

// configFile is where the server of this machine has its configuration.
var configFile = "/etc/dsdb/dsdb.conf"

// servers lists the addresses (host:port) to try, in order. hosts are names,
// separated by commas, each perhaps with a port; "" means this machine. port 0
// means that none was given.
func servers(hosts string, port int) []string {
	if hosts == "" && port == 0 {
		out := []string{address("localhost", usualPorts[0])}
		if a := configuredAddress(configFile); a != "" && a != out[0] {
			out = append(out, a)
		}
		return out
	}
	if hosts == "" {
		hosts = "localhost"
	}
	var out []string
	for _, h := range strings.Split(hosts, ",") {
		if strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]") { // an IPv6 address without port
			h = h[1 : len(h)-1]
		}
		switch {
		case strings.Count(h, ":") == 1 || strings.HasPrefix(h, "["):
			out = append(out, h)
		case port != 0:
			out = append(out, address(h, port))
		default:
			for _, p := range usualPorts {
				out = append(out, address(h, p))
			}
		}
	}
	return out
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// configuredAddress returns where the configuration has the HTTP API listen,
// "" if it cannot be read.
func configuredAddress(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	c := config.Default("")
	if _, err := c.Load(path, nil); err != nil {
		return ""
	}
	host, port, err := net.SplitHostPort(c.HTTP.BindAddress)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// pingWait is how long a server may take to answer, where another may do so.
var pingWait = 5 * time.Second

// connect finds the first of the servers that answers. With none the error is
// the first one's, and the client is that of the first.
func connect(ctx context.Context, o *options) (*client, error) {
	var first *client
	var errs []error
	tried := servers(o.host, o.port)
	for _, addr := range tried {
		c := newClient(o, addr)
		within, cancel := context.WithTimeout(ctx, pingWait)
		err := c.ping(within)
		cancel()
		if err == nil {
			return c, nil
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v: %w", pingWait, err)
		}
		errs = append(errs, err)
		if first == nil {
			first = c
		}
	}
	if len(tried) > 1 {
		return first, fmt.Errorf("%w (tried %s)", errs[0], strings.Join(tried, ", "))
	}
	return first, errs[0]
}
