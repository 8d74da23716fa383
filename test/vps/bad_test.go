package vps_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnfitMachine shows a fresh machine as one that can't be an appliance, in
// one way after the other. Each is refused with what to do, and nothing is done.
func TestUnfitMachine(t *testing.T) {
	t.Parallel()
	m := boot(t, "unfit")
	m.write(t, "/root/os-release", []byte("ID=fedora\nVERSION_ID=42\n"))
	m.write(t, "/root/meminfo", []byte("MemTotal:         998244 kB\nMemFree:          500000 kB\n"))
	m.sh(t, "echo nameserver 10.99.0.1 >/etc/resolv.conf")
	// Debian's own jobs of the night, which leave files.
	m.sh(t, "systemctl stop '*.timer'")
	for _, c := range []struct {
		name     string
		do, undo string // inside
		args     []string
		want     []string
	}{
		{name: "wrong OS", do: "mount --bind /root/os-release /etc/os-release", undo: "umount /etc/os-release",
			want: []string{`operating system "fedora" "42"`, "Debian 12"}},
		{name: "too little memory", do: "mount --bind /root/meminfo /proc/meminfo", undo: "umount /proc/meminfo",
			want: []string{"memory: 974 MiB", "2 GB are needed"}},
		{name: "too little disk", do: "mount -t tmpfs -o size=1g tmpfs /var/lib", undo: "umount /var/lib",
			want: []string{"disk: 1 GiB", "20 GB are needed"}},
		{name: "DNS down", args: []string{"--tls", "acme", "--email", "ops@example.com"},
			want: []string{"DNS: ", domain}},
		{name: "domain that points elsewhere", do: "echo 198.51.100.7 " + domain + " >>/etc/hosts", undo: "sed -i /198.51.100.7/d /etc/hosts",
			args: []string{"--tls", "acme", "--email", "ops@example.com"},
			want: []string{"points to 198.51.100.7, which is not an address of this machine"}},
		{name: "a Vault with data", do: "mkdir -p /var/lib/vault/raft; echo data >/var/lib/vault/raft/raft.db", undo: "rm -r /var/lib/vault",
			want: []string{`another Vault: "/var/lib/vault" is not empty`}},
		{name: "a Vault of the distribution's", do: "touch /usr/lib/systemd/system/vault.service", undo: "rm /usr/lib/systemd/system/vault.service",
			want: []string{"another Vault", "vault.service"}},
		{name: "two at once", do: "mkdir /opt/vault; mount --bind /root/meminfo /proc/meminfo", undo: "rmdir /opt/vault; umount /proc/meminfo",
			want: []string{"another Vault", "memory: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := m.sh(t, "find /etc /usr /var -xdev | sort | sha256sum; cat /etc/passwd")
			if c.do != "" {
				m.sh(t, c.do)
			}
			r := m.installer(t, "install", c.args...)
			if c.undo != "" {
				m.sh(t, c.undo)
			}
			if r.code != 4 {
				t.Errorf("exit code %d:\n%s", r.code, r)
			}
			for _, want := range append(c.want, "remove each cause") {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message lacks %q:\n%s", want, r.stderr)
				}
			}
			m.sh(t, "rm -rf /var/lib/strongroom")
			if after := m.sh(t, "find /etc /usr /var -xdev | sort | sha256sum; cat /etc/passwd"); after != before {
				t.Errorf("something was changed:\n%s", r)
			}
		})
	}
}

// TestDiskFull installs on a disk that is full at first and given a little more
// after each failure, until it is enough: nothing that a failed run has done
// keeps the next one from going on, and no key is made twice. Before, the same
// with a file system that can't be written to at all.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	m := boot(t, "full")
	m.sh(t, `mkdir -p /small /etc/strongroom /var/lib/strongroom /usr/local/lib/strongroom /var/lib/vault
		mount -t tmpfs -o size=64k,mode=755 tmpfs /small
		for d in etc/strongroom var/lib/strongroom usr/local/lib/strongroom; do mkdir -p /small/$d; mount --bind /small/$d /$d; done
		mount -o remount,ro /small`)
	r := m.installer(t, "install")
	if r.code != 1 || !strings.Contains(r.stderr, "read-only file system") {
		t.Errorf("read-only: exit code %d:\n%s", r.code, r)
	}
	m.sh(t, "mount -o remount,rw /small")

	same := map[string]string{}
	failures := 0
	for kib, grow := 0, 96; ; kib += grow {
		if kib > 4<<20 {
			t.Fatalf("4 GiB are not enough:\n%s", r)
		}
		if kib > 512 {
			grow = kib // the plugin alone has tens of megabytes
		}
		if os.Getenv("STRONGROOM_SOAK") == "1" && kib < 512 {
			grow = 4
		} else if kib < 512 {
			grow = 96
		}
		m.sh(t, fmt.Sprintf("mount -o remount,size=%dk /small", max(kib, 4)))
		r = m.installer(t, "install")
		if err := m.sameKeys(t, same); err != nil {
			t.Fatalf("with %d KiB: %v", kib, err)
		}
		if r.code == 0 {
			t.Logf("%d KiB are enough; %d runs failed before", kib, failures)
			break
		}
		failures++
		full := strings.Contains(r.stderr, "no space left on device") || strings.Contains(r.stderr, "journalctl -u")
		if r.code != 1 || !full || !strings.Contains(r.stderr, "→") {
			t.Fatalf("with %d KiB: exit code %d:\n%s", kib, r.code, r)
		}
	}
	if failures < 5 {
		t.Errorf("only %d runs failed: nothing has been tried", failures)
	}
	for name := range map[string]bool{"master-key": true, "drill-key": true, "epoch": true} {
		if same[name] == "" {
			t.Errorf("%s was not looked at", name)
		}
	}
	if r := m.installer(t, "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d:\n%s", r.code, r)
	}
	login(t, m)
	testNoPlainSecret(t, m)
	if out := m.sh(t, "find /etc/strongroom /var/lib/strongroom /usr/local -name '.*tmp*' -o -name 'probe*'"); out != "" {
		t.Errorf("left behind by writes that failed:\n%s", out)
	}
}

// terminal is a person at a terminal, over a connection that can be cut.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	ended  chan error
	said   strings.Builder
	bytes  chan byte
}

// atTerminal runs a command inside the machine at a terminal of its own.
func (m *machine) atTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	return atTerminal(t, exec.Command(m.script, append([]string{"exec", m.name}, args...)...))
}

// atTerminal runs any command so.
func atTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{t: t, master: master, cmd: cmd, ended: make(chan error, 1), bytes: make(chan byte, 1<<16)}
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { term.ended <- term.cmd.Wait() }()
	go func() {
		defer close(term.bytes)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			for _, b := range buf[:n] {
				term.bytes <- b
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(term.hangUp)
	return term
}

// expect waits until text is on the screen.
func (c *terminal) expect(text string) {
	c.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !strings.Contains(c.said.String(), text) {
		select {
		case b, ok := <-c.bytes:
			if !ok {
				c.t.Fatalf("it never said %q:\n%s", text, c.said.String())
			}
			c.said.WriteByte(b)
		case <-timer.C:
			c.t.Fatalf("it never said %q:\n%s", text, c.said.String())
		}
	}
	// What was on the screen is answered once.
	_, rest, _ := strings.Cut(c.said.String(), text)
	c.said.Reset()
	c.said.WriteString(rest)
}

func (c *terminal) answer(line string) {
	c.t.Helper()
	if _, err := c.master.WriteString(line + "\n"); err != nil {
		c.t.Fatal(err)
	}
}

// hangUp cuts the connection.
func (c *terminal) hangUp() {
	if c.master != nil {
		c.master.Close()
		c.master = nil
	}
}

// exit waits for the end, and for all that was said before it, and gives the exit
// code.
func (c *terminal) exit() int {
	c.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case b, ok := <-c.bytes:
			if ok {
				c.said.WriteByte(b)
				continue
			}
			// Nobody holds the other end any more.
			<-c.ended
			return c.cmd.ProcessState.ExitCode()
		case <-timer.C:
			c.t.Fatalf("it does not end:\n%s", c.said.String())
		}
	}
}

// TestPersonAtATerminal answers the installer's questions, changes its mind,
// loses its connection while the firewall waits to be confirmed, and comes back.
func TestPersonAtATerminal(t *testing.T) {
	t.Parallel() // it waits most of the time
	m := boot(t, "pty")
	installer := []string{"/root/strongroom-installer", "install", "--config", "/root/appliance.toml", "--vault-binary", "/root/vault"}
	m.write(t, "/root/appliance.toml", []byte("[vault]\nallow_old = true\n[tls]\nmode = \"internal\"\n[firewall]\nconfirm_within = \"30s\"\n"))

	c := m.atTerminal(t, installer...)
	c.expect("Domain, such as vault.example.com: ")
	c.answer("nodots")
	if code := c.exit(); code != 2 || !strings.Contains(c.said.String(), `"nodots" is not a domain name`) {
		t.Errorf("a bad answer: exit code %d:\n%s", code, c.said.String())
	}

	c = m.atTerminal(t, installer...)
	c.expect("Domain, such as vault.example.com: ")
	c.answer(domain)
	c.expect("Type yes to go on: ")
	c.answer("no")
	if code := c.exit(); code != 4 || !strings.Contains(c.said.String(), "nothing has been changed") {
		t.Errorf("a change of mind: exit code %d:\n%s", code, c.said.String())
	}
	if m.in(t, "test", "-e", "/etc/strongroom").code == 0 {
		t.Error("something was changed")
	}

	// The connection is lost while the rules are on trial.
	c = m.atTerminal(t, installer...)
	c.expect("Domain, such as vault.example.com: ")
	c.answer(domain)
	c.expect("Type yes to go on: ")
	c.answer("yes")
	c.expect("Type yes if it works: ")
	if out := m.sh(t, "nft list tables; systemctl is-active strongroom-firewall-rollback.timer"); out != "table inet strongroom\nactive\n" {
		t.Errorf("on trial: %q", out)
	}
	c.hangUp()
	c.exit()
	// The terminal's program is gone before the installer, which takes back what it did.
	m.waitFor(t, patience, "nft list tables; systemctl is-active -q strongroom-firewall-rollback.service && echo going back; flock -n /run/strongroom-installer.lock true || echo busy", "")
	if m.in(t, "test", "-e", "/etc/strongroom/nftables.conf").code == 0 {
		t.Error("rules that were not confirmed will be loaded at the next boot")
	}

	// Back again: everything goes on, and this time it is confirmed.
	c = m.atTerminal(t, append(installer, "--domain", domain)...)
	c.expect("Type yes to go on: ")
	c.answer("yes")
	c.expect("Type yes if it works: ")
	if !m.open(t, inside, 22, true) {
		t.Error("SSH is closed")
	}
	c.answer("yes")
	c.expect("Vault answers at https://" + domain)
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.said.String())
	}
	if out := m.sh(t, "nft list tables; systemctl is-enabled strongroom-firewall; systemctl list-timers --all --no-legend | grep -c rollback || true"); out != "table inet strongroom\nenabled\n0\n" {
		t.Errorf("confirmed: %q", out)
	}
	login(t, m)
}

// waitFor runs a script inside until it prints want.
func (m *machine) waitFor(t *testing.T, within time.Duration, script, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		got := m.sh(t, script)
		if strings.TrimSpace(got) == want {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: still %q after %v", script, got, within)
		}
	}
}
