package vps_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	layout "strongroom.example/config/machine"
	"strongroom.example/systemd"
	"strongroom.example/test/vaulttest"
)

// TestInstall is one machine's life: what is refused, the installation, the
// look from outside and inside, a second run, drift, a crash and a reboot.
func TestInstall(t *testing.T) {
	t.Parallel()
	aLife(t, boot(t, "inst"))
}

// aLife is TestInstall on a machine that is there.
func aLife(t *testing.T, m *machine) {
	// Each depends on the one before it.
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine)
	}{
		{"the fake is held to it", testFakeIsHeld},
		{"bad input changes nothing", testBadInput},
		{"install", testInstall},
		{"second run changes nothing", testSecondRun},
		{"from outside", testOutside},
		{"sandboxes", testSandboxes},
		{"memory is locked", testMemoryLocked},
		{"no plain secret", testNoPlainSecret},
		{"drift is found and mended", testDrift},
		{"vault killed", testVaultKilled},
		{"reboot", testReboot},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, m) }) {
			return
		}
	}
}

// testFakeIsHeld runs the suite that the installer's fake machine passes on this one: what
// the campaigns try on the fake is then what happens here.
func testFakeIsHeld(t *testing.T, m *machine) {
	suite := filepath.Join(t.TempDir(), "host.test")
	build := exec.Command("go", "test", "-c", "-o", suite, "./installer/host")
	build.Dir, build.Env = vaulttest.Root(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.must(t, "put", m.name, suite, "/root/host.test")
	r := m.in(t, "env", "STRONGROOM_BOOTED=1", "/root/host.test", "-test.run=Conformance", "-test.v")
	for _, part := range []string{"TestServicesConformance/booted", "TestFaultsConformance/booted", "TestAccountsConformance/os", "TestFSConformance/os"} {
		if r.code != 0 || !strings.Contains(r.stdout, "--- PASS: "+part) {
			t.Errorf("%s: exit code %d\n%s", part, r.code, r)
		}
	}
	m.sh(t, "rm /root/host.test")
}

func testBadInput(t *testing.T, m *machine) {
	m.write(t, "/root/bad.toml", []byte("domain = \"nodots\"\ncolour = 1\n[tls]\nmode = \"internal\"\n"))
	authorized := m.read(t, "/root/.ssh/authorized_keys")
	installer := "/root/strongroom-installer"
	for _, c := range []struct {
		name string
		do   func() result
		code int
		want string
	}{
		{"not root", func() result {
			// The program lies where others may run it.
			m.sh(t, "install -m 755 "+installer+" /tmp/i")
			defer m.sh(t, "rm /tmp/i")
			return m.in(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/tmp/i", "install", "--yes")
		}, 2, "not root"},
		{"nothing given", func() result { return m.in(t, installer, "install", "--yes") }, 2, "domain: is required"},
		{"bad TOML", func() result { return m.in(t, installer, "install", "--yes", "--config", "/root/bad.toml") }, 2, "/root/bad.toml:2: colour: unknown key"},
		{"unknown flag", func() result { return m.in(t, installer, "install", "--fast") }, 2, "unknown flag"},
		{"no terminal", func() result { return m.in(t, append([]string{installer, "install"}, installArgs...)...) }, 2, "say --yes"},
		{"old Vault", func() result {
			return m.in(t, installer, "install", "--yes", "--domain", domain, "--tls", "internal", "--vault-binary", "/root/vault")
		}, 2, "below 2.2.2"},
		{"not Vault", func() result { return m.installer(t, "install", "--vault-binary", "/bin/true") }, 2, "is no Vault"},
		{"no SSH key", func() result {
			m.write(t, "/root/.ssh/authorized_keys", []byte("ecdsa-sha2-nistp256 AAAA x\n"))
			defer m.write(t, "/root/.ssh/authorized_keys", authorized)
			return m.installer(t, "install")
		}, 4, "no key to encrypt to"},
		{"port taken", func() result {
			m.sh(t, "systemd-run --quiet --unit=taker systemd-socket-activate -l 443 /bin/true")
			defer m.sh(t, "systemctl stop taker; systemctl reset-failed taker 2>/dev/null || true")
			m.sh(t, "for i in $(seq 100); do ss -ltn | grep -q ':443 ' && exit 0; sleep 0.1; done; exit 1")
			return m.installer(t, "install")
		}, 4, "port 443/tcp is taken"},
		{"another Vault", func() result {
			m.sh(t, "mkdir /etc/vault.d")
			defer m.sh(t, "rmdir /etc/vault.d")
			return m.installer(t, "install")
		}, 4, "another Vault"},
	} {
		r := c.do()
		if r.code != c.code || !strings.Contains(r.String(), c.want) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", c.name, r.code, c.code, c.want, r)
		}
	}
	if r := m.installer(t, "plan"); r.code != 3 || !strings.Contains(r.stdout, "Nothing has been changed") {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	if out := m.sh(t, "ls -d /etc/strongroom /usr/local/bin/* /var/lib/vault /etc/systemd/system/vault.service /etc/systemd/system/strongroom* 2>/dev/null; getent passwd vault || true"); out != "" {
		t.Errorf("something was changed:\n%s", out)
	}
}

func testInstall(t *testing.T, m *machine) {
	r := m.installer(t, "install")
	if r.code != 0 {
		t.Fatalf("exit code %d:\n%s\n%s", r.code, r, m.sh(t, "journalctl --no-pager -n 40"))
	}
	t.Logf("fresh machine to unsealed Vault behind TLS: %.1f s\n%s", r.took.Seconds(), r.stdout)
	if out := m.sh(t, "systemctl is-system-running; systemctl --failed --no-legend"); strings.TrimSpace(out) != "running" {
		t.Errorf("system state:\n%s", out)
	}
}

func testSecondRun(t *testing.T, m *machine) {
	before := m.sh(t, "find /etc /usr/local /var/lib/strongroom/escrow -xdev -type f | sort | xargs sha256sum")
	r := m.installer(t, "install")
	if r.code != 0 || !strings.Contains(r.stdout, "Nothing to change") {
		t.Errorf("exit code %d:\n%s", r.code, r)
	}
	t.Logf("second run: %.1f s", r.took.Seconds())
	// What was said the first time is remembered.
	r = m.in(t, "/root/strongroom-installer", "plan")
	if r.code != 0 || !strings.Contains(r.stdout, "Nothing to change") {
		t.Errorf("plan without flags: exit code %d:\n%s", r.code, r)
	}
	if after := m.sh(t, "find /etc /usr/local /var/lib/strongroom/escrow -xdev -type f | sort | xargs sha256sum"); after != before {
		t.Error("files were changed")
	}
}

// roots is the front's own authority.
func roots(t testing.TB, m *machine) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(m.read(t, "/var/lib/strongroom-front/root.crt")) {
		t.Fatal("the front's root certificate is none")
	}
	return pool
}

// login is the administrator's token, from outside.
func login(t testing.TB, m *machine) string {
	t.Helper()
	note := strings.Split(strings.TrimSpace(m.escrow(t, "admin.age")), "\n")
	status, out := m.vault(t, m.client(roots(t, m)), "POST", "auth/userpass/login/admin", "", map[string]any{"password": note[len(note)-1]})
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if status != 200 || token == "" {
		t.Fatalf("login: status %d", status)
	}
	return token
}

func testOutside(t *testing.T, m *machine) {
	c := m.client(roots(t, m))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	raw, err := m.outside(ctx, "tcp", net.JoinHostPort(inside6, "443"))
	if err != nil {
		t.Fatalf("over IPv6: %v", err)
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: roots(t, m), ServerName: domain, MinVersion: tls.VersionTLS12})
	if err := conn.HandshakeContext(ctx); err != nil {
		t.Fatalf("handshake over IPv6: %v", err)
	}
	if v := conn.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("TLS version %x, 1.3 is preferred", v)
	}
	conn.Close()

	resp, err := c.Get("http://" + domain + "/ui/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if loc := resp.Header.Get("Location"); resp.StatusCode/100 != 3 || !strings.HasPrefix(loc, "https://"+domain) {
		t.Errorf("plain HTTP: %d to %q", resp.StatusCode, loc)
	}

	token := login(t, m)
	// The engine, whole: a key, read, rotated.
	for _, call := range []struct {
		method, path string
		body         map[string]any
		ok           bool
	}{
		{"POST", "secret/data/app/production/db", map[string]any{"data": map[string]any{"url": "postgres://"}}, true},
		{"POST", "apikeys/providers/own", map[string]any{"type": "generated"}, true},
		{"POST", "apikeys/keys/app/production/api", map[string]any{"provider": "own"}, true},
		{"GET", "apikeys/creds/app/production/api", nil, true},
		{"POST", "apikeys/rotate/app/production/api", nil, true},
		{"GET", "sys/health", nil, true},
		{"PUT", "sys/init", map[string]any{"secret_shares": 1}, false},
		{"PUT", "sys/generate-root/attempt", nil, false},
		{"GET", "sys/storage/raft/snapshot", nil, false},
		{"PUT", "sys/step-down", nil, false},
		{"GET", "sys/raw/core/hsm", nil, false},
	} {
		status, out := m.vault(t, c, call.method, call.path, token, call.body)
		if (status/100 == 2) != call.ok {
			t.Errorf("%s %s: status %d, %v", call.method, call.path, status, out)
		}
	}

	var wg sync.WaitGroup
	for _, ip := range []string{inside, inside6} {
		for _, port := range []int{21, 22, 23, 25, 53, 80, 111, 443, 2019, 3306, 5432, 8080, 8125, 8200, 8201, 9090} {
			wg.Go(func() {
				want := port == 22 || port == 80 || port == 443
				if got := m.open(t, ip, port, want); got != want {
					t.Errorf("%s port %d: open = %v, want %v", ip, port, got, want)
				}
			})
		}
	}
	wg.Wait()
	// All that listens at all.
	listeners := strings.Fields(m.sh(t, `ss -Hltun | awk '{print $1 "/" $5}' | sort -u`))
	want := []string{"tcp/*:443", "tcp/*:80", "tcp/0.0.0.0:22", "tcp/127.0.0.1:8200", "tcp/127.0.0.1:8201", "tcp/127.0.0.1:9468", "tcp/[::]:22"}
	if !slices.Equal(listeners, want) {
		t.Errorf("listeners = %q, want %q", listeners, want)
	}
	// Vault's own listener answers the front alone: not root, who has no
	// client certificate and is stopped by the firewall besides.
	if out := m.in(t, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8200"); out.code == 0 {
		t.Error("anybody on the machine can connect to Vault's own listener")
	}
	// And outwards the front may not connect anywhere: port 25 stands for it.
	if out := m.in(t, "setpriv", "--reuid=strongroom-front", "--clear-groups", "bash", "-c", "exec 3<>/dev/tcp/10.99.0.1/25"); out.code == 0 || !strings.Contains(out.stderr, "No route") && !strings.Contains(out.stderr, "prohibited") && !strings.Contains(out.stderr, "unreachable") {
		t.Errorf("the front's way out to port 25: %d %s", out.code, out.stderr)
	}
}

// daemons always run.
var daemons = []string{layout.UnitKMS, layout.UnitVault, layout.UnitFront, layout.UnitFirewall}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

func testSandboxes(t *testing.T, m *machine) {
	for _, name := range systemd.Names() {
		if filepath.Ext(name) != ".service" {
			continue
		}
		// Jobs run and end; a template is looked at as one of its instances.
		state := strings.TrimSpace(m.in(t, "systemctl", "is-active", name).stdout)
		if slices.Contains(daemons, name) && state != "active" {
			t.Errorf("%s is %s", name, state)
		}
		name = strings.Replace(name, "@.", "@x.", 1)
		got := exposure.FindStringSubmatch(m.sh(t, "systemd-analyze security --no-pager "+name))
		if got == nil {
			t.Fatalf("%s: no score", name)
		}
		score, err := strconv.ParseFloat(got[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: exposure %.1f, %s", name, score, strings.TrimSpace(m.sh(t, "systemctl show -p MainPID --value "+name+" | xargs -I{} sh -c 'test {} = 0 || grep -hs VmRSS /proc/{}/status' || true")))
		if score > 1.5 {
			t.Errorf("%s: exposure %.1f, at most 1.5 is allowed", name, score)
		}
	}
	// The plugin runs as Vault's child, under Vault's sandbox.
	if out := m.sh(t, "ps -o user= -C vault-plugin-se || ps axo user,comm | grep vault-plugin"); !strings.HasPrefix(strings.TrimSpace(out), "vault") {
		t.Errorf("plugin's processes:\n%s", out)
	}
	if out := m.sh(t, "stat -c '%a %U:%G' /run/strongroom-kms/kms.sock /run/vault/vault.sock /var/lib/vault /var/lib/vault/raft /etc/strongroom/credentials"); out != "660 root:vault\n660 vault:vault\n700 vault:vault\n700 vault:vault\n700 root:root\n" {
		t.Errorf("modes and owners:\n%s", out)
	}
}

func testNoPlainSecret(t *testing.T, m *machine) {
	var secrets []string
	for _, name := range []string{"admin.age", "local-admin.age", "recovery-keys-1.age", "master-key.age"} {
		for line := range strings.Lines(m.escrow(t, name)) {
			line = strings.TrimSpace(line)
			if len(line) >= 20 && !strings.HasPrefix(line, "-----") && !strings.Contains(line, "vault login") && !strings.Contains(line, ":") {
				secrets = append(secrets, line)
			}
		}
	}
	if len(secrets) < 8 { // five shares, two passwords, the keyset
		t.Fatalf("only %d secrets to look for", len(secrets))
	}
	patterns := filepath.Join(t.TempDir(), "patterns")
	if err := os.WriteFile(patterns, []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The disk is read from this side, so that the search itself leaves
	// nothing inside. Tokens besides: a root token is unknown to us.
	for _, args := range [][]string{
		{"-rlaFf", patterns, m.disk},
		{"-rlaE", `\bhvs\.[A-Za-z0-9_-]{24,}`, m.disk + "/etc", m.disk + "/root", m.disk + "/var", m.disk + "/tmp"},
	} {
		out, err := exec.Command("grep", append(args, "--exclude-dir=proc", "--exclude-dir=sys", "--devices=skip")...).Output()
		if len(out) > 0 {
			t.Errorf("plain secrets in:\n%s", out)
		} else if err == nil {
			t.Error("grep found something and says nothing")
		}
	}
	journal := m.sh(t, "journalctl --no-pager -o export")
	processes := m.sh(t, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
	for _, s := range secrets {
		if strings.Contains(journal, s) {
			t.Error("a plain secret is in the journal")
		}
		if strings.Contains(processes, s) {
			t.Error("a plain secret is in a command line or an environment")
		}
	}
	if m.in(t, "test", "-e", "/etc/strongroom/credentials/root-token").code == 0 {
		t.Error("the root token is still kept")
	}
	// No token of the policy root is alive.
	token := login(t, m)
	c := m.client(roots(t, m))
	status, out := m.vault(t, c, "LIST", "auth/token/accessors", token, nil)
	data, _ := out["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	if status != 200 || len(keys) == 0 {
		t.Fatalf("accessors: status %d, %v", status, out)
	}
	for _, a := range keys {
		_, out := m.vault(t, c, "POST", "auth/token/lookup-accessor", token, map[string]any{"accessor": a})
		data, _ := out["data"].(map[string]any)
		if policies := fmt.Sprint(data["policies"]); strings.Contains(policies, "root") {
			t.Errorf("a token with policies %s is alive", policies)
		}
	}
}

func testDrift(t *testing.T, m *machine) {
	m.sh(t, `sed -i 's/tls13/tls12/' /etc/strongroom/vault.hcl; chmod 644 /etc/strongroom/tls/server.key
		systemctl disable -q strongroom-front.service; nft delete table inet strongroom; systemctl stop strongroom-firewall; echo 2 >/proc/sys/fs/suid_dumpable 2>/dev/null || true`)
	r := m.installer(t, "plan")
	if r.code != 3 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	for _, want := range []string{"/etc/strongroom/vault.hcl", "server.key can be read by others", "strongroom-front.service: disabled → enabled", "strongroom-firewall.service"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("plan lacks %q:\n%s", want, r.stdout)
		}
	}
	if r := m.installer(t, "install"); r.code != 0 {
		t.Fatalf("install: exit code %d:\n%s", r.code, r)
	}
	if r := m.installer(t, "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d:\n%s", r.code, r)
	}
	login(t, m)
	if m.open(t, inside, 8200, false) {
		t.Error("no firewall afterwards")
	}
}

// unsealed waits from outside until Vault answers as active, and says how long
// that took.
func unsealed(t testing.TB, m *machine) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := m.client(roots(t, m))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := c.Get("https://" + domain + "/v1/sys/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return time.Since(start)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Vault is not active: %v\n%s", err, m.sh(t, "journalctl --no-pager -n 40"))
		}
	}
}

func testVaultKilled(t *testing.T, m *machine) {
	pid := strings.TrimSpace(m.sh(t, "systemctl show -p MainPID --value vault"))
	m.sh(t, "kill -KILL "+pid)
	t.Logf("unsealed %.1f s after SIGKILL (one of them systemd's pause)", unsealed(t, m).Seconds())
	if now := strings.TrimSpace(m.sh(t, "systemctl show -p MainPID --value vault")); now == pid {
		t.Error("the process is the old one")
	}
}

func testReboot(t *testing.T, m *machine) {
	token := login(t, m)
	r := m.run(t, "reboot", m.name)
	if r.code != 0 {
		t.Fatalf("reboot: %s", r)
	}
	t.Logf("unsealed %.1f s after systemd said that the machine is up; reboot in all %.1f s", unsealed(t, m).Seconds(), r.took.Seconds())
	status, out := m.vault(t, m.client(roots(t, m)), "GET", "secret/data/app/production/db", token, nil)
	if status != 200 || !strings.Contains(fmt.Sprint(out), "postgres://") {
		t.Errorf("the secret after the reboot: %d %v", status, out)
	}
	if m.open(t, inside, 8200, false) || !m.open(t, inside, 22, true) {
		t.Error("the firewall is not as it was")
	}
	testSandboxes(t, m)
	if r := m.installer(t, "plan"); r.code != 0 {
		t.Errorf("plan after the reboot: exit code %d:\n%s", r.code, r)
	}
}
