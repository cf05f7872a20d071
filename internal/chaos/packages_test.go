//go:build packages

package chaos

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// folder is where `make packages` has put programs and packages.
var folder = flag.String("packages", "../../bin", "where the packages are")

// built returns the package of a kind that was built.
func built(t *testing.T, kind string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(*folder, "*."+kind))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one .%s in %s, have %v: make packages", kind, *folder, found)
	}
	return found[0]
}

// needs skips a test for which a program is missing, and says where it is from.
func needs(t *testing.T, program, source string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed: apt-get install %s", program, source)
	}
}

// TestPackageDeb installs, upgrades over an edited configuration, removes and purges.
func TestPackageDeb(t *testing.T) {
	h := machines(t, 1)[0]
	install(t, h)
	must(t, h, "test -x /usr/bin/dsdbd && influx -version && getent passwd dsdb && ! pgrep dsdbd")
	must(t, h, "service dsdb start && service dsdb status")
	must(t, h, `dsdb -execute 'CREATE DATABASE kept'`)
	must(t, h, `echo '# mine' >> /etc/dsdb/dsdb.conf`)
	install(t, h) // the same again is an upgrade
	must(t, h, `grep -q '# mine' /etc/dsdb/dsdb.conf && service dsdb restart`)
	hasKept(t, h)
	must(t, h, `service dsdb stop; ! service dsdb status; test $(service dsdb status >/dev/null; echo $?) = 3`)
	must(t, h, `service dsdb start && dpkg -r dsdb && ! pgrep dsdbd && test -d /var/lib/dsdb/meta && test -f /etc/dsdb/dsdb.conf`)
	must(t, h, `dpkg -P dsdb && ! test -e /var/lib/dsdb && ! test -e /etc/dsdb/dsdb.conf && ! getent passwd dsdb`)
}

// hasKept waits until a node serves, which must have the database kept.
func hasKept(t *testing.T, h *Host) {
	t.Helper()
	out, err := "", error(nil)
	for range 100 {
		if out, err = h.Run(`dsdb -execute 'SHOW DATABASES'`); strings.Contains(out, "kept") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("the data is lost: %s %v", out, err)
}

// rpmFiles are the files of the .rpm with modes, owners and flags: c is for a
// configuration, n that an upgrade leaves an edited one alone, d is for documentation.
const rpmFiles = `
-rw-r--r-- root:root cn /etc/dsdb/dsdb.conf
-rw-r--r-- root:root cn /etc/logrotate.d/dsdb
-rwxr-xr-x root:root  /usr/bin/dsdb
-rwxr-xr-x root:root  /usr/bin/dsdb-bench
-rwxr-xr-x root:root  /usr/bin/dsdbd
-rw-r--r-- root:root  /usr/lib/systemd/system/dsdb.service
-rw-r--r-- root:root  /usr/share/bash-completion/completions/dsdb
l--------- root:root  /usr/share/bash-completion/completions/dsdbd
-rw-r--r-- root:root  /usr/share/doc/dsdb/changelog.gz
-rw-r--r-- root:root  /usr/share/doc/dsdb/copyright
-rw-r--r-- root:root  /usr/share/man/man1/dsdb-bench.1.gz
-rw-r--r-- root:root  /usr/share/man/man1/dsdb.1.gz
-rw-r--r-- root:root  /usr/share/man/man1/dsdbd.1.gz
l--------- root:root  /usr/share/man/man1/influx.1.gz
l--------- root:root  /usr/share/man/man1/influxd.1.gz
`

// TestPackageRPM installs the .rpm where nothing of Debian's helpers is, upgrades
// over an edited configuration, and erases it. What it depends on is compared,
// not looked for: the host has no database of rpm.
func TestPackageRPM(t *testing.T) {
	needs(t, "rpm", "rpm")
	h := machines(t, 1)[0]
	blank(t, h)
	must(t, h, "rm -f /usr/sbin/adduser /usr/sbin/addgroup /usr/sbin/deluser /usr/sbin/delgroup /usr/sbin/invoke-rc.d /usr/sbin/update-rc.d /usr/sbin/start-stop-daemon /usr/sbin/service")
	for path, to := range map[string]string{built(t, "rpm"): "/tmp/dsdb.rpm", laterRPM(t): "/tmp/later.rpm"} {
		if err := h.Copy(path, to); err != nil {
			t.Fatal(err)
		}
	}
	files := must(t, h, `rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags} %{FILENAMES}\n]' /tmp/dsdb.rpm`)
	if strings.TrimSpace(files) != strings.TrimSpace(rpmFiles) {
		t.Errorf("the files are\n%s\nnot%s", files, rpmFiles)
	}
	if out := must(t, h, "rpm -qpR /tmp/dsdb.rpm | grep -v rpmlib | sort -u"); out != "/bin/sh\nshadow-utils\n" {
		t.Errorf("it depends on\n%s", out)
	}

	silent(t, h, "rpm --force-debian -i --nodeps /tmp/dsdb.rpm")
	silent(t, h, "rpm -V --nodeps dsdb")
	must(t, h, `influx -version && getent passwd dsdb | grep -q ':/var/lib/dsdb:/bin/false$' && test ! -e /etc/init.d/dsdb && ! pgrep dsdbd`)
	if out := must(t, h, "stat -c '%U:%G %a' /var/lib/dsdb /var/log/dsdb"); out != "dsdb:dsdb 750\ndsdb:dsdb 750\n" {
		t.Errorf("the folders are %s", out)
	}
	must(t, h, "systemd-analyze verify /usr/lib/systemd/system/dsdb.service")
	asUnit(t, h)
	must(t, h, `for i in $(seq 50); do dsdb -execute 'CREATE DATABASE kept' && exit; sleep 0.1; done; exit 1`)
	must(t, h, "pkill -x dsdbd; while pgrep -x dsdbd; do sleep 0.1; done; echo '# mine' >> /etc/dsdb/dsdb.conf")

	if out := silentBut(t, h, "rpm --force-debian -U --nodeps /tmp/later.rpm"); !strings.Contains(out, "/etc/dsdb/dsdb.conf.rpmnew") {
		t.Errorf("an upgrade over an edited configuration says %q", out)
	}
	must(t, h, "grep -q '# mine' /etc/dsdb/dsdb.conf && grep -q '# later' /etc/dsdb/dsdb.conf.rpmnew && test -L /usr/bin/influx && rpm -q dsdb | grep -q 99")
	asUnit(t, h)
	hasKept(t, h)
	must(t, h, "pkill -x dsdbd; while pgrep -x dsdbd; do sleep 0.1; done")
	if out := silentBut(t, h, "rpm --force-debian -e dsdb"); !strings.Contains(out, "/etc/dsdb/dsdb.conf.rpmsave") {
		t.Errorf("removing it with an edited configuration says %q", out)
	}
	must(t, h, "grep -q '# mine' /etc/dsdb/dsdb.conf.rpmsave && test -d /var/lib/dsdb/meta && getent passwd dsdb")
	must(t, h, "! ls /usr/bin/dsdb* /usr/bin/influx* /usr/lib/systemd/system/dsdb.service /usr/share/man/man1/dsdb* /etc/dsdb/dsdb.conf 2>/dev/null")
}

// silentBut runs a script that must succeed and returns all that it says.
func silentBut(t *testing.T, h *Host, script string) string {
	t.Helper()
	return must(t, h, "exec 2>&1; "+script)
}

// silent runs a script that must succeed and say nothing.
func silent(t *testing.T, h *Host, script string) {
	t.Helper()
	if out := silentBut(t, h, script); out != "" {
		t.Errorf("%s: %s", script, out)
	}
}

// asUnit starts the daemon as systemd would: the user and the command of the unit.
func asUnit(t *testing.T, h *Host) {
	t.Helper()
	must(t, h, `unit=/usr/lib/systemd/system/dsdb.service
		user=$(sed -n 's/^User=//p' $unit)
		nohup setpriv --reuid=$user --regid=$user --clear-groups sh -c "exec $(sed -n 's/^ExecStart=//p' $unit)" >/tmp/dsdbd.log 2>&1 </dev/null &`)
}

// laterRPM makes an .rpm of a later version with another configuration.
func laterRPM(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const conf = "bin/package/dsdb.conf"
	for name, text := range map[string]string{
		"dsdb.conf": read("../../"+conf) + "# later\n",
		"nfpm.yaml": strings.Replace(read("../../packaging/nfpm.yaml"), conf, dir+"/dsdb.conf", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "tool", "-modfile=tools/go.mod", "nfpm", "package", "-f", dir+"/nfpm.yaml", "-p", "rpm", "-t", dir+"/later.rpm")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "VERSION=99.0.0", "ARCH="+arch(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nfpm: %v\n%s", err, out)
	}
	return dir + "/later.rpm"
}

// arch is that of the packages.
func arch(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOARCH").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestPackageScripts has scripts and manuals checked by the tools for them.
func TestPackageScripts(t *testing.T) {
	for _, check := range []struct{ program, source, command string }{
		{"shellcheck", "shellcheck", "shellcheck packaging/*.sh"},
		{"shellcheck", "shellcheck", "shellcheck -s bash packaging/completion.bash"},
		{"groff", "groff", "for f in packaging/*.1; do groff -man -ww -z -Tutf8 $f; done"},
		{"mandoc", "mandoc", "for f in packaging/*.1; do mandoc -T lint -W warning $f; done"},
	} {
		t.Run(check.program, func(t *testing.T) {
			needs(t, check.program, check.source)
			cmd := exec.Command("sh", "-c", check.command)
			cmd.Dir = "../.."
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", check.command, err, out)
			}
		})
	}
}

// TestPackageManuals compares the flags and commands that the programs tell of
// with their manuals and the completion of the shell.
func TestPackageManuals(t *testing.T) {
	flags := regexp.MustCompile(`(?m)^  -(\w+)`)
	read := func(name string) string {
		text, err := os.ReadFile("../../packaging/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), `\-`, "-")
	}
	completion := read("completion.bash")
	out, err := exec.Command(filepath.Join(*folder, "dsdbd"), "-h").CombinedOutput()
	if err != nil {
		t.Fatalf("dsdbd -h: %v", err)
	}
	for _, m := range regexp.MustCompile(`(?m)^  dsdbd ([a-z]+)( [a-z]+)?`).FindAllStringSubmatch(string(out), -1) {
		if !regexp.MustCompile(`(?m)^(\.B dsdbd |\.RB \[ )` + m[1] + m[2] + `\b`).MatchString(read("dsdbd.1")) {
			t.Errorf("the manual of dsdbd does not tell of %s%s", m[1], m[2])
		}
		for _, word := range strings.Fields(m[1] + m[2]) {
			if !regexp.MustCompile(`[ "]` + word + `[ "]`).MatchString(completion) {
				t.Errorf("the completion of dsdbd does not know %s", word)
			}
		}
	}
	for _, command := range []string{"dsdb", "dsdbd run", "dsdb-bench iops", "dsdb-bench write"} {
		words := strings.Fields(command)
		out, err := exec.Command(filepath.Join(*folder, words[0]), append(words[1:], "-h")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s -h: %v", command, err)
		}
		found := flags.FindAllStringSubmatch(string(out), -1)
		if len(found) < 2 {
			t.Errorf("%s -h tells of %d flags:\n%s", command, len(found), out)
		}
		manual := read(words[0] + ".1")
		for _, m := range found {
			if !regexp.MustCompile(`(?m)^\.BI? -` + m[1] + `\b`).MatchString(manual) {
				t.Errorf("the manual of %s does not tell of -%s", command, m[1])
			}
			if words[0] != "dsdb-bench" && !regexp.MustCompile(`[ "]-`+m[1]+`[ "]`).MatchString(completion) {
				t.Errorf("the completion of %s does not know -%s", command, m[1])
			}
		}
	}
}

// TestPackageCompletion asks bash for what it would offer.
func TestPackageCompletion(t *testing.T) {
	for _, ask := range []struct{ line, want string }{
		{"dsdb -unsafe", "-unsafeSsl"},
		{"influx -format c", "column csv"},
		{"dsdb -consistency q", "quorum"},
		{"dsdbd i", "inspect"},
		{"dsdbd inspect w", "wal"},
		{"influxd run -j", "-join"},
	} {
		script := fmt.Sprintf(`set -eu; . ../../packaging/completion.bash
			COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
			$(complete -p "${COMP_WORDS[0]}" | sed 's/.*-F \([^ ]*\).*/\1/')
			echo "${COMPREPLY[*]}"`, ask.line)
		if out, err := exec.Command("bash", "-c", script).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != ask.want {
			t.Errorf("%s<tab> offers %q (%v), want %q", ask.line, out, err, ask.want)
		}
	}
}
