package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Meta is [meta]: the catalogue, and what connects the nodes of a cluster.
type Meta struct {
	Enabled             bool     `toml:"enabled" doc:"the node takes part in deciding about the catalogue"`
	Dir                 string   `toml:"dir" doc:"folder of the catalogue"`
	BindAddress         string   `toml:"bind-address" doc:"host:port for other nodes"`
	HTTPBindAddress     string   `toml:"http-bind-address" doc:"host:port that -join of other nodes names; may be that of bind-address or of [http]"`
	Advertise           string   `toml:"advertise-address" doc:"host or host:port at which other nodes reach bind-address; empty: bind-address, with hostname if that is set"`
	Join                string   `toml:"join" doc:"http-bind-address of one or more nodes of the cluster to join, separated by commas; ignored once it has been joined"`
	SharedSecret        string   `toml:"shared-secret" doc:"what nodes prove to know to each other, 32 bytes or more; the same on all"`
	SharedSecretFile    string   `toml:"shared-secret-file" doc:"file that holds the shared secret"`
	HTTPS               bool     `toml:"https-enabled" doc:"TLS between nodes; on all or none"`
	Certificate         string   `toml:"https-certificate" doc:"PEM file of the certificate, and of the key if https-private-key is empty"`
	PrivateKey          string   `toml:"https-private-key" doc:"PEM file of the key"`
	CA                  string   `toml:"https-ca" doc:"PEM file of the authority that signed the certificates of all nodes: they prove themselves by it; empty: this machine's authorities"`
	MaxVoters           int      `toml:"max-voters" doc:"meta nodes that decide, an odd number; others stand by"`
	DeadTimeout         Duration `toml:"dead-timeout" doc:"a node that does not answer for so long is dead: others get copies of what it holds; the same on all meta nodes"`
	RetentionAutocreate bool     `toml:"retention-autocreate" doc:"a new database gets the policy autogen"`
}

// minSecret is the fewest bytes of a shared secret.
const minSecret = 32

// minDeadTimeout is the least dead-timeout: a node may be silent for some seconds
// and well, and every copy that is made anew costs.
const minDeadTimeout = 10 * time.Second

// joinPort is the port of a -join address without one.
const joinPort = "8091"

// settleAddresses fills in the addresses that neither file nor environment
// gave: the default ones, at the hostname if that is set.
func (c *Config) settleAddresses(defaults *Config) {
	if c.Meta.BindAddress == "" {
		c.Meta.BindAddress = c.BindAddress
	}
	if c.Meta.Join == "" {
		c.Meta.Join = c.Join
	}
	c.BindAddress, c.Join = "", ""
	for _, a := range []struct{ set, standard *string }{
		{&c.Meta.BindAddress, &defaults.Meta.BindAddress},
		{&c.Meta.HTTPBindAddress, &defaults.Meta.HTTPBindAddress},
		{&c.HTTP.BindAddress, &defaults.HTTP.BindAddress},
	} {
		if *a.set != "" {
			continue
		}
		*a.set = *a.standard
		if _, port, err := net.SplitHostPort(*a.standard); err == nil && c.Hostname != "" {
			*a.set = net.JoinHostPort(c.Hostname, port)
		}
	}
}

func (c *Config) validateCluster() error {
	m := &c.Meta
	for _, a := range []struct{ key, value string }{
		{"meta.bind-address", m.BindAddress}, {"meta.http-bind-address", m.HTTPBindAddress},
		{"http.bind-address", c.HTTP.BindAddress}, {"http.advertise-address", c.HTTP.Advertise},
	} {
		if _, _, err := net.SplitHostPort(a.value); err != nil && a.value != "" {
			return fmt.Errorf("config: %s %q: want host:port", a.key, a.value)
		}
	}
	switch {
	case m.HTTPS && m.Certificate == "":
		return errors.New("config: meta.https-enabled wants meta.https-certificate")
	case m.CA != "" && !m.HTTPS:
		return errors.New("config: meta.https-ca wants meta.https-enabled")
	case m.MaxVoters < 1 || m.MaxVoters%2 == 0:
		return fmt.Errorf("config: meta.max-voters %d: want an odd number", m.MaxVoters)
	case time.Duration(m.DeadTimeout) < minDeadTimeout:
		return fmt.Errorf("config: meta.dead-timeout %v: want %v or more", m.DeadTimeout, minDeadTimeout)
	case c.HTTP.Enabled && m.HTTPS != c.HTTP.HTTPS && (c.HTTP.BindAddress == m.BindAddress || c.HTTP.BindAddress == m.HTTPBindAddress):
		return fmt.Errorf("config: [http] and [meta] share %s: set https-enabled in both or in neither", c.HTTP.BindAddress)
	case strings.ContainsAny(c.Hostname, ":/ ") && !isIP(c.Hostname):
		return fmt.Errorf("config: hostname %q: want a name or an address, without port", c.Hostname)
	}
	if _, err := m.Peers(); err != nil {
		return err
	}
	_, err := m.Secret()
	return err
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isAddress reports whether a host is an IP address, as one with a colon must be.
func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// Peers returns the addresses of Join in order, each once.
func (m *Meta) Peers() ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, a := range strings.Split(m.Join, ",") {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			host, port, err = net.SplitHostPort(net.JoinHostPort(strings.Trim(a, "[]"), joinPort))
		}
		if err != nil || host == "" || strings.ContainsAny(a, "/ ;") || !isPort(port) || strings.Contains(host, ":") && !isAddress(host) {
			return nil, fmt.Errorf("config: join address %q: want host:port, several separated by commas", a)
		}
		if a = net.JoinHostPort(host, port); !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out, nil
}

// Secret returns the shared secret, nil if there is none.
func (m *Meta) Secret() ([]byte, error) {
	secret := m.SharedSecret
	if m.SharedSecretFile != "" {
		if secret != "" {
			return nil, errors.New("config: give meta.shared-secret or meta.shared-secret-file, not both")
		}
		b, err := os.ReadFile(m.SharedSecretFile)
		if err != nil {
			return nil, fmt.Errorf("config: meta.shared-secret-file: %w", err)
		}
		if secret = strings.TrimSpace(string(b)); secret == "" {
			return nil, fmt.Errorf("config: meta.shared-secret-file %s is empty", m.SharedSecretFile)
		}
	}
	if secret == "" {
		return nil, nil
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("config: meta.shared-secret of %d bytes: want %d or more", len(secret), minSecret)
	}
	return []byte(secret), nil
}

// Addresses are the addresses under which others know a node, as SHOW SERVERS
// lists them.
type Addresses struct {
	HTTP     string // the API for clients, "" if it is off
	TCP      string // for other nodes
	MetaHTTP string // for -join
}

// Advertised returns the node's addresses for others; name tells what this
// machine is called, which is asked only where nothing else says so.
func (c *Config) Advertised(name func() (string, error)) (Addresses, error) {
	var a Addresses
	var err error
	if a.TCP, err = c.advertise(c.Meta.Advertise, c.Meta.BindAddress, name); err != nil {
		return a, err
	}
	host := c.Meta.Advertise
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if a.MetaHTTP, err = c.advertise(host, c.Meta.HTTPBindAddress, name); err != nil || !c.HTTP.Enabled {
		return a, err
	}
	a.HTTP, err = c.advertise(c.HTTP.Advertise, c.HTTP.BindAddress, name)
	return a, err
}

// advertise returns what others are to dial for bind: given, if that is set; else
// at the hostname, or at the host of bind, or if that is none, at this machine's name.
func (c *Config) advertise(given, bind string, name func() (string, error)) (string, error) {
	if bind == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return "", fmt.Errorf("config: address %q: %w", bind, err)
	}
	if given != "" {
		if _, _, err := net.SplitHostPort(given); err == nil {
			return given, nil
		}
		return net.JoinHostPort(strings.Trim(given, "[]"), port), nil
	}
	if c.Hostname != "" {
		host = c.Hostname
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		if host, err = name(); err != nil {
			return "", fmt.Errorf("config: %s listens on every address, and this machine has no name: set hostname: %w", bind, err)
		}
	}
	return net.JoinHostPort(host, port), nil
}
