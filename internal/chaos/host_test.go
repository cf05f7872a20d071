//go:build packages

package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Host is a machine of its own, but for the kernel: a node of a Network with
// its own process ids, host name and files. What is installed on it or written
// there is gone when it is closed; the machine under it is not touched.
type Host struct {
	Name string

	root   string // its file system, as seen from outside
	base   string // where the layers of root lie
	init   *exec.Cmd
	pid    int // of its first process
	mounts []string
}

// NewHost makes node i of a network a host with a name. Its files are those of
// the machine, under a layer that takes the changes and lies below base.
// hosts is its /etc/hosts.
func NewHost(n *Network, i int, name, base, hosts string) (*Host, error) {
	h := &Host{Name: name, base: base, root: filepath.Join(base, "root")}
	if err := h.assemble(hosts); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	script := fmt.Sprintf("hostname %s && mount -t proc proc /proc && while :; do sleep 3600 & wait; done", name) // the first process buries the dead
	h.init = n.Command(i, "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "chroot", h.root, "/bin/sh", "-c", script)
	h.init.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.init.Start(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if err := h.find(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// assemble mounts the host's file system.
func (h *Host) assemble(hosts string) error {
	if err := os.MkdirAll(h.base, 0o755); err != nil {
		return err
	}
	if err := h.mount("tmpfs", h.base, "tmpfs", "size=2g,mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(h.base, dir), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", h.base)
	if err := h.mount("overlay", h.root, "overlay", layers); err != nil {
		return err
	}
	for _, dir := range []string{"run", "tmp"} {
		if err := h.mount("tmpfs", filepath.Join(h.root, dir), "tmpfs", "mode=1777"); err != nil {
			return err
		}
	}
	dev := filepath.Join(h.root, "dev")
	if err := syscall.Mount("/dev", dev, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", dev, err)
	}
	h.mounts = append(h.mounts, dev)
	for name, text := range map[string]string{"hosts": hosts, "hostname": h.Name + "\n", "resolv.conf": ""} {
		if err := os.WriteFile(filepath.Join(h.root, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) mount(source, target, kind, options string) error {
	if err := syscall.Mount(source, target, kind, 0, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	h.mounts = append(h.mounts, target)
	return nil
}

// find waits for the host's first process and notes its id.
func (h *Host) find() error {
	for range 200 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", h.init.Process.Pid))
		if pid, perr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && perr == nil {
			h.pid = pid
			if _, err := h.Run("pgrep -x sleep"); err == nil {
				return nil // all before it has been done
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("host %s does not start", h.Name)
}

// Run runs a shell script on the host and returns what it prints. A failure
// carries its standard error.
func (h *Host) Run(script string) (string, error) {
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(h.pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w\n%s%s", h.Name, script, err, out.String(), errOut.String())
	}
	return out.String(), nil
}

// Copy puts a file of the machine onto the host.
func (h *Host) Copy(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(h.pid), "-m", "-r", "-w", "/bin/sh", "-c", `cat > "$0"`, to)
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: copy %s: %w: %s", h.Name, to, err, out)
	}
	return nil
}

// Close ends all processes of the host and forgets its files.
func (h *Host) Close() error {
	var errs []error
	if h.init != nil && h.init.Process != nil {
		errs = append(errs, h.init.Process.Kill())
		_ = h.init.Wait() // it was killed
	}
	for i := len(h.mounts) - 1; i >= 0; i-- {
		errs = append(errs, syscall.Unmount(h.mounts[i], syscall.MNT_DETACH))
	}
	h.mounts = nil
	return errors.Join(errs...)
}
