package vps_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age/agessh"
	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/installer/recover"
	"strongroom.example/test/keyservice"
	"strongroom.example/test/vaulttest"
)

// world is what outlives a machine: the bucket, the service that issues keys,
// the operator's copy of the escrow, and what everybody remembers.
type world struct {
	store   *store
	service *keyservice.Service
	escrow  string // folder
	key     string // the operator's private key, file
	root    []byte // certificate of the front's own authority

	secrets map[string]string // by path below secret/data/
	keys    map[string]string // values by path below apikeys/creds/
	lost    string            // a path written after the snapshot
	later   []string          // keys rotated after the snapshot
	jobs    map[string][2]string

	recovered bool
}

// TestDisaster destroys a machine and has another one take its place, from what
// is not on the first.
func TestDisaster(t *testing.T) {
	t.Parallel()
	a := boot(t, "dra")
	w := &world{secrets: map[string]string{}, keys: map[string]string{}, jobs: map[string][2]string{}, key: a.key}
	w.fill(t, a) // the bucket and the service live as long as this test
	a.must(t, "down", a.name)

	b := boot(t, "drb")
	b.key = a.key // the same operator
	w.reach(t, b)
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine)
	}{
		{"what does not fit changes nothing", w.refusals},
		{"killed", w.killed},
		{"restore", w.restore},
		{"every secret and key", w.everything},
		{"nobody's logins", w.logins},
		{"again", w.again},
		{"the pages", w.pages},
	} {
		t.Run(step.name, func(t *testing.T) { step.do(t, b) })
		if step.name == "restore" && !w.recovered {
			return
		}
	}
}

// listen accepts connections in the network around the machine.
func (m *machine) listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	ns, err := os.Open("/proc/" + m.namespace(t) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	type result struct {
		l   net.Listener
		err error
	}
	got := make(chan result, 1)
	go func() {
		// Never unlocked, see outside.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			got <- result{nil, err}
			return
		}
		l, err := net.Listen("tcp", addr)
		got <- result{l, err}
	}()
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.l.Close() })
	return r.l
}

// at has the same store answer in the network around another machine.
func (s *store) at(t *testing.T, m *machine) {
	t.Helper()
	dir := t.TempDir()
	cert, key := selfSigned(t, outsideAddr)
	for name, b := range map[string][]byte{"crt": cert, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.write(t, storeCA, cert)
	m.sh(t, "chmod 644 "+storeCA+"; chmod 755 /etc/ssl")
	set := proc.NewSet()
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	addr := net.JoinHostPort(outsideAddr, storePort)
	child, err := set.Start(proc.Spec{
		Name: "versitygw", Path: "/usr/bin/nsenter", LogFile: filepath.Join(dir, "log"),
		Args: []string{"--target", m.namespace(t), "--net", "--", vaulttest.Bin(t, "versitygw"), "--port", addr,
			"--cert", filepath.Join(dir, "crt"), "--key", filepath.Join(dir, "key"), "--quiet", "posix", s.data},
		Env: []string{"ROOT_ACCESS_KEY_ID=" + storeAccess, "ROOT_SECRET_ACCESS_KEY=" + storeSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := child.WaitUp(ctx, func(ctx context.Context) error { return m.listening(ctx, addr) }); err != nil {
		t.Fatal(err)
	}
}

// serviceAddr is where the service that issues keys is: at a port that the
// firewall lets the engine reach.
var serviceAddr = net.JoinHostPort(outsideAddr, "443")

// call is one request from outside, which must succeed.
func (m *machine) call(t *testing.T, token, method, path string, body any) map[string]any {
	t.Helper()
	status, out := m.vault(t, m.client(roots(t, m)), method, path, token, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %v", method, path, status, out["errors"])
	}
	data, _ := out["data"].(map[string]any)
	return data
}

// fill installs, writes, takes a snapshot, and goes on writing.
func (w *world) fill(t *testing.T, m *machine) {
	t.Helper()
	m.keysOnly(t)
	w.store = startStore(t, m)
	w.service = keyservice.New(t)
	w.service.Serve(m.listen(t, serviceAddr), "http://"+serviceAddr)
	// What the doctor finds on a new machine is for other tests.
	if r := installWithBackups(t, m); r.code != 0 && r.code != 3 {
		t.Fatalf("exit code %d:\n%s\n%s", r.code, r, m.sh(t, "journalctl --no-pager -n 60"))
	}
	// From here on by hand, so that it is known what is in the last snapshot.
	m.sh(t, "systemctl stop strongroom-snapshot.path strongroom-snapshot.timer strongroom-snapshot-soon.service")
	m.backupsIdle(t)
	token := login(t, m)
	for i := range 20 {
		path := fmt.Sprintf("shop/production/secret-%d", i)
		w.secrets[path] = fmt.Sprintf("canary-value-%d", i)
		m.call(t, token, "POST", "secret/data/"+path, map[string]any{"data": map[string]any{"value": w.secrets[path]}})
	}
	settings := w.service.Settings()
	settings["allow_addresses"] = []any{outsideAddr + "/32"}
	m.call(t, token, "POST", "apikeys/providers/own", map[string]any{"type": "generated"})
	m.call(t, token, "POST", "apikeys/providers/service", map[string]any{"type": "http", "settings": settings, "credential": map[string]any{"token": keyservice.Credential}})
	for i := range 4 {
		for _, provider := range []string{"own", "service"} {
			path := fmt.Sprintf("shop/production/%s-%d", provider, i)
			m.call(t, token, "POST", "apikeys/keys/"+path, map[string]any{"provider": provider})
			w.keys[path] = w.value(t, m, token, path)
		}
	}
	m.sh(t, "systemctl start strongroom-snapshot.service && systemctl start strongroom-verify.service")
	w.lost = "shop/production/too-late"
	m.call(t, token, "POST", "secret/data/"+w.lost, map[string]any{"data": map[string]any{"value": "lost"}})
	w.later = []string{"shop/production/service-0", "shop/production/service-1"}
	for _, path := range w.later {
		m.call(t, token, "POST", "apikeys/rotate/"+path, nil)
	}
	// The old version of one is dead at the service, that of the other in grace.
	m.call(t, token, "DELETE", "apikeys/versions/"+w.later[0]+"?version=1&force=true", nil)

	w.root = m.read(t, "/var/lib/strongroom-front/root.crt")
	w.escrow = filepath.Join(filepath.Dir(w.key), "escrow")
	if out, err := exec.Command("cp", "-r", filepath.Join(m.disk, "var/lib/strongroom/escrow"), w.escrow).CombinedOutput(); err != nil {
		t.Fatalf("copy the escrow: %v\n%s", err, out)
	}
	for _, job := range []string{"snapshot", "canary", "doctor"} {
		open := func(name string) string {
			return strings.TrimSpace(m.sh(t, "systemd-creds decrypt --name="+name+" /etc/strongroom/credentials/"+name+" -"))
		}
		w.jobs[job] = [2]string{open(job + "-role-id"), open(job + "-secret-id")}
	}
}

func (w *world) value(t *testing.T, m *machine, token, path string) string {
	t.Helper()
	data := m.call(t, token, "GET", "apikeys/creds/"+path, nil)
	values, _ := data["values"].(map[string]any)
	key, _ := values["key"].(string)
	if key == "" {
		key, _ = data["key"].(string)
	}
	if key == "" {
		t.Fatalf("%s: no key in the answer's fields", path)
	}
	return key
}

// reach gives another machine the same surroundings, and the operator's things.
func (w *world) reach(t *testing.T, m *machine) {
	t.Helper()
	m.keysOnly(t)
	w.store.at(t, m)
	w.service.Serve(m.listen(t, serviceAddr), "http://"+serviceAddr)
	m.sh(t, "mkdir -p -m 700 /root/dr /srv/backup")
	for from, to := range map[string]string{w.key: "/root/dr/id_ed25519"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		m.write(t, to, b)
	}
	pub, err := os.ReadFile(w.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "/root/.ssh/authorized_keys", pub)
	if out, err := exec.Command("cp", "-r", w.escrow, filepath.Join(m.disk, "root/dr/escrow")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.write(t, "/root/dr/s3.toml", fmt.Appendf(nil, "access_key = %q\nsecret_key = %q\n", storeAccess, storeSecret))
}

// restoreArgs are what the operator types.
var restoreArgs = []string{"/root/strongroom-installer", "restore", "--yes", "--vault-binary", "/root/vault",
	"--identity", "/root/dr/id_ed25519", "--escrow", "/root/dr/escrow", "--backup-credentials", "/root/dr/s3.toml",
	"--endpoint", "https://" + outsideAddr + ":" + storePort, "--region", "us-east-1", "--bucket", bucket, "--bucket-ca", storeCA}

// with gives restoreArgs with another value for a flag.
func with(flag, value string) []string {
	args := append([]string(nil), restoreArgs...)
	for i, a := range args {
		if a == flag {
			args[i+1] = value
			return args
		}
	}
	return append(args, flag, value)
}

// keysOnly is how a machine is rented that takes SSH keys and no passwords.
func (m *machine) keysOnly(t *testing.T) {
	t.Helper()
	m.sh(t, "printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\n' >/etc/ssh/sshd_config.d/00-keys-only.conf && systemctl reload ssh")
}

// otherEscrow is another installation's master key, for the same operator.
func (w *world) otherEscrow(t *testing.T) []byte {
	t.Helper()
	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(w.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	to, err := agessh.ParseRecipient(strings.TrimSpace(string(pub)))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := escrow.Seal(plain, to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func (w *world) refusals(t *testing.T, m *machine) {
	m.sh(t, "ssh-keygen -q -t ed25519 -N '' -f /root/dr/other; mkdir -p /root/dr/damaged /root/dr/empty /root/dr/broken")
	// A whole copy of the bucket as a directory, with one bit of the snapshot
	// turned.
	if out, err := exec.Command("cp", "-r", filepath.Join(w.store.data, bucket)+"/.", filepath.Join(m.disk, "root/dr/damaged")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	snaps, err := filepath.Glob(filepath.Join(m.disk, "root/dr/damaged/*/*.snap.age"))
	if err != nil || len(snaps) == 0 {
		t.Fatalf("%v %v", snaps, err)
	}
	for _, s := range snaps {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(s, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The escrow of another installation: a fine master key of its own.
	m.write(t, "/root/dr/other.age", w.otherEscrow(t))
	m.sh(t, "cp /root/dr/escrow/master-key.age /root/dr/broken/; truncate -s -10 /root/dr/broken/master-key.age; cp /root/dr/escrow/admin.age /root/dr/empty/")
	m.write(t, "/root/dr/bad.toml", []byte("access_key = \"x\"\nsecret_key = \"canary-of-a-pair\"\n"))
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"another identity", with("--identity", "/root/dr/other"), 4, "opens this escrow"},
		{"no such identity", with("--identity", "/root/dr/none"), 2, "no such file"},
		{"no such bucket", with("--bucket", "vault-nothing"), 4, "bucket does not exist"},
		{"another key pair", with("--backup-credentials", "/root/dr/bad.toml"), 4, "key pair"},
		{"no such cluster", with("--cluster", "another"), 4, "no verified snapshot"},
		{"the escrow of another cluster", with("--escrow", "/root/dr/other.age"), 4, "another master key"},
		{"a damaged escrow", with("--escrow", "/root/dr/broken"), 4, "is damaged"},
		{"an escrow without a master key", with("--escrow", "/root/dr/empty"), 4, "no master key"},
		{"a damaged snapshot", with("--dir", "/root/dr/damaged"), 4, "damaged"},
	} {
		r := m.in(t, c.args...)
		t.Logf("%s: %d %s", c.name, r.code, r)
		if r.code != c.code || !strings.Contains(r.String(), c.want) || !strings.Contains(r.String(), "→") {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", c.name, r.code, c.code, c.want, r)
		}
		if strings.Contains(r.String(), "canary-of-a-pair") || strings.Contains(r.String(), storeSecret) {
			t.Errorf("%s: a secret is in the output", c.name)
		}
	}
	if out := m.sh(t, "ls -d /etc/strongroom /usr/local/bin/* /var/lib/vault /var/lib/strongroom /etc/systemd/system/vault.service /etc/systemd/system/strongroom* 2>/dev/null; getent passwd vault || true"); out != "" {
		t.Errorf("something was changed:\n%s", out)
	}
}

func (w *world) restore(t *testing.T, m *machine) {
	// As the page has it, from the operator's folder.
	command := onPage(t, "disaster-recovery.md", "restore")
	for from, to := range map[string]string{
		"sudo ./": "/root/", "https://fsn1.your-objectstorage.com": "https://" + outsideAddr + ":" + storePort, "vault-backups": bucket,
	} {
		if !strings.Contains(command, from) {
			t.Fatalf("the page's command lacks %q", from)
		}
		command = strings.ReplaceAll(command, from, to)
	}
	r := m.in(t, "sh", "-c", "cd /root/dr && "+command+" --yes --vault-binary /root/vault --region us-east-1 --bucket-ca "+storeCA)
	if r.code == 3 {
		t.Errorf("the doctor is not content:\n%s", r)
	} else if r.code != 0 {
		t.Fatalf("exit code %d:\n%s\n%s", r.code, r, m.sh(t, "journalctl --no-pager -n 60"))
	}
	w.recovered = true
	var state recover.State
	if err := json.Unmarshal(m.read(t, recover.StatePath), &state); err != nil {
		t.Fatal(err)
	}
	t.Logf("RTO: %.1f s from the first run's first change to every secret and key, the kills among them; this run, backed up and drilled again, %.1f s\n%s",
		state.Finished.Sub(state.Began).Seconds(), r.took.Seconds(), r.stdout)
	for _, want := range []string{"Recovered from", "Lost:", "8 checked at their providers", "old machine must never run again"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if out := m.sh(t, "systemctl is-system-running; systemctl --failed --no-legend"); strings.TrimSpace(out) != "running" {
		t.Errorf("system state:\n%s", out)
	}
}
