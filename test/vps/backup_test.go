package vps_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/proc"
	layout "strongroom.example/config/machine"
	"strongroom.example/installer/steps"
	"strongroom.example/systemd"
	"strongroom.example/test/vaulttest"
)

// What the tests' Object Storage is, outside of the machine.
const (
	outsideAddr = "10.99.0.1"
	storePort   = "9443"
	storeAccess = "canary-access-key"
	storeSecret = "canary-secret-that-must-stay-sealed"
	storeCA     = "/etc/ssl/object-storage.crt" // inside
	bucket      = "vault-backups"
)

// store is an Object Storage in the network around a machine.
type store struct {
	data string // the folder of its buckets
	core *minio.Core
}

// startStore starts one that speaks TLS, makes the bucket, and has the machine
// know its certificate.
func startStore(t *testing.T, m *machine) *store {
	t.Helper()
	bin := vaulttest.Bin(t, "versitygw")
	dir := t.TempDir()
	s := &store{data: filepath.Join(dir, "data")}
	if err := os.Mkdir(s.data, 0o700); err != nil {
		t.Fatal(err)
	}
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
	child, err := set.Start(proc.Spec{
		Name: "versitygw", Path: "/usr/bin/nsenter", LogFile: filepath.Join(dir, "log"),
		Args: []string{"--target", m.namespace(t), "--net", "--", bin, "--port", net.JoinHostPort(outsideAddr, storePort),
			"--cert", filepath.Join(dir, "crt"), "--key", filepath.Join(dir, "key"), "--quiet", "posix", s.data},
		Env: []string{"ROOT_ACCESS_KEY_ID=" + storeAccess, "ROOT_SECRET_ACCESS_KEY=" + storeSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	addr := net.JoinHostPort(outsideAddr, storePort)
	if err := child.WaitUp(ctx, func(ctx context.Context) error { return m.listening(ctx, addr) }); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	s.core, err = minio.NewCore(addr, &minio.Options{
		Creds: credentials.NewStaticV4(storeAccess, storeSecret, ""), Secure: true, Region: "us-east-1",
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DialContext: m.outside},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.core.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// listening returns once somebody outside accepts connections at addr.
func (m *machine) listening(ctx context.Context, addr string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := m.outside(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// selfSigned is a certificate for an address, and its key, in PEM.
func selfSigned(t *testing.T, ip string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// backupConfig is an appliance.toml with a bucket and a directory.
func backupConfig(credentials string) []byte {
	line := ""
	if credentials != "" {
		line = fmt.Sprintf("credentials = %q\n", credentials)
	}
	return fmt.Appendf(nil, `domain = %q
[vault]
allow_old = true
[tls]
mode = "internal"

[[backup.to]]
type     = "s3"
endpoint = "https://%s:%s"
region   = "us-east-1"
bucket   = %q
ca_file  = %q
%s
[[backup.to]]
type = "dir"
path = "/srv/backup"
`, domain, outsideAddr, storePort, bucket, storeCA, line)
}

// installWithBackups installs with backups to the store and to a directory.
func installWithBackups(t *testing.T, m *machine) result {
	t.Helper()
	m.sh(t, "mkdir -p /srv/backup")
	m.write(t, "/root/appliance.toml", backupConfig(""))
	m.write(t, "/root/s3.toml", fmt.Appendf(nil, "access_key = %q\nsecret_key = %q\n", storeAccess, storeSecret))
	return m.in(t, append([]string{"/root/strongroom-installer", "install", "--yes"}, backupArgs...)...)
}

var backupArgs = []string{"--config", "/root/appliance.toml", "--backup-credentials", "/root/s3.toml", "--vault-binary", "/root/vault"}

// TestInstallWithBackups is a machine that backs itself up from its first
// minute on.
func TestInstallWithBackups(t *testing.T) {
	t.Parallel()
	m := boot(t, "bak")
	s := startStore(t, m)
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine, *store)
	}{
		{"backups that can't be", testBadBackups},
		{"install", testInstallBackups},
		{"evidence", testEvidence},
		{"second run changes nothing", testSecondRunBackups},
		{"no plain secret", testBackupSecrets},
		{"a timer fires", testTimerFires},
		{"drill", testDrill},
		{"drift in Vault", testVaultDrift},
		{"upgrade", testUpgradeBackups},
		{"backups given up", testBackupsGivenUp},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, m, s) }) {
			return
		}
	}
}

// testBadBackups: each is refused before anything is done that takes long.
func testBadBackups(t *testing.T, m *machine, _ *store) {
	good := backupConfig("backup-s3")
	m.write(t, "/root/bad-pair", []byte("secret_key = \""+storeSecret+"\"\n"))
	for _, c := range []struct {
		name   string
		config []byte
		place  bool // the directory is there
		args   []string
		code   int
		want   string
	}{
		{"no credentials", backupConfig(""), true, nil, 2, "backup.to[0].credentials: is required"},
		{"no such file", good, true, []string{"--backup-credentials", "/root/none"}, 4, "no such file"},
		{"credential that nobody gave", good, true, nil, 4, `names the credential "backup-s3"`},
		{"not a key pair", good, true, []string{"--backup-credentials", "/root/bad-pair"}, 4, "access_key"},
		{"directory that is not there", good, false, nil, 4, `"/srv/backup" is not there`},
	} {
		m.write(t, "/root/bad.toml", c.config)
		m.sh(t, "rm -rf /srv/backup")
		if c.place {
			m.sh(t, "mkdir -p /srv/backup")
		}
		r := m.in(t, append([]string{"/root/strongroom-installer", "plan", "--config", "/root/bad.toml", "--vault-binary", "/root/vault"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.String(), c.want) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", c.name, r.code, c.code, c.want, r)
		}
		if strings.Contains(r.String(), storeSecret) {
			t.Errorf("%s: the secret is in the output", c.name)
		}
	}
	m.sh(t, "rm -rf /srv/backup /root/bad.toml /root/bad-pair")
}

func testInstallBackups(t *testing.T, m *machine, _ *store) {
	r := installWithBackups(t, m)
	if r.code != 0 {
		t.Fatalf("exit code %d:\n%s\n%s", r.code, r, m.sh(t, "journalctl --no-pager -n 60"))
	}
	t.Logf("fresh machine to a Vault whose backup has been proved: %.1f s\n%s", r.took.Seconds(), r.stdout)
	for _, want := range []string{"/root/s3.toml", "ESCROW IS ON THIS DISK ONLY"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the ending lacks %q", want)
		}
	}
	if strings.Contains(r.stdout, "NO BACKUP") {
		t.Error("it says that there is no backup")
	}
	if out := m.sh(t, "systemctl is-system-running; systemctl --failed --no-legend"); strings.TrimSpace(out) != "running" {
		t.Errorf("system state:\n%s", out)
	}
}

// verified is what the verifying job has on record.
func verified(t *testing.T, m *machine) snapshot.VerifyState {
	t.Helper()
	var state snapshot.VerifyState
	if err := json.Unmarshal(m.read(t, steps.VerifiedState), &state); err != nil {
		t.Fatal(err)
	}
	return state
}

func testEvidence(t *testing.T, m *machine, s *store) {
	state := verified(t, m)
	if len(state.LastGood) != 2 || state.Failure != nil {
		t.Errorf("verified: %+v", state)
	}
	for where, dir := range map[string]string{"bucket": filepath.Join(s.data, bucket), "directory": m.disk + "/srv/backup"} {
		out, err := exec.Command("find", dir, "-name", "*.snap.age", "-size", "+4k").Output()
		if err != nil || len(bytes.TrimSpace(out)) == 0 {
			t.Errorf("%s: no snapshot (%v)", where, err)
		}
		// Encrypted, all of it.
		if out, err := exec.Command("grep", "-rlaE", `raft|vault\.db|strongroom_kms`, "--include=*.age", dir).Output(); err == nil {
			t.Errorf("%s: in clear: %s", where, out)
		}
	}
	for _, name := range systemd.Names() {
		// The watch over the operator's own certificate is for those who have one.
		if ext := filepath.Ext(name); ext != ".timer" && ext != ".path" || name == layout.UnitFrontCertificatePath {
			continue
		}
		if out := m.sh(t, "systemctl is-enabled "+name+" && systemctl is-active "+name); out != "enabled\nactive\n" {
			t.Errorf("%s: %q", name, out)
		}
	}
	if _, err := systemd.Unit("strongroom-drill.service"); err == nil {
		var last struct {
			Report struct {
				Passed bool `json:"passed"`
			} `json:"report"`
		}
		if err := json.Unmarshal(m.read(t, steps.DrillReport), &last); err != nil || !last.Report.Passed {
			t.Errorf("the first drill: %v %+v", err, last)
		}
	}
	testManifest(t, m)
}

// testManifest compares the list of installed files with the machine.
func testManifest(t *testing.T, m *machine) {
	t.Helper()
	var list steps.Manifest
	if err := json.Unmarshal(m.read(t, layout.ManifestFile), &list); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	var check strings.Builder
	for _, f := range list.Files {
		listed[f.Path] = true
		if f.SHA256 != "" {
			fmt.Fprintf(&check, "%s  %s\n", f.SHA256, f.Path)
		}
	}
	m.write(t, "/root/sums", []byte(check.String()))
	if r := m.in(t, "sha256sum", "--check", "--quiet", "/root/sums"); r.code != 0 {
		t.Errorf("the manifest's sums:\n%s", r)
	}
	// All that lies in the appliance's own places is on the list.
	for _, p := range strings.Fields(m.sh(t, "find /etc/strongroom /usr/local/bin /usr/local/lib/strongroom /etc/systemd/system/strongroom* /etc/systemd/system/vault.service -type f")) {
		if !listed[p] && p != layout.ManifestFile && !strings.HasPrefix(p, layout.AuthorityDir+"/") { // its job's
			t.Errorf("%s is not on the list of installed files", p)
		}
	}
	if len(list.Files) < 30 {
		t.Errorf("only %d files are listed", len(list.Files))
	}
}

func testSecondRunBackups(t *testing.T, m *machine, _ *store) {
	list := "find /etc /usr/local /var/lib/strongroom/escrow /srv/backup -xdev -type f | sort | xargs sha256sum"
	if !m.undisturbed(t, func() bool {
		before := m.sh(t, list)
		r := m.in(t, append([]string{"/root/strongroom-installer", "install", "--yes"}, backupArgs...)...)
		if r.code != 0 || !strings.Contains(r.stdout, "Nothing to change") {
			t.Errorf("exit code %d:\n%s", r.code, r)
		}
		t.Logf("second run: %.1f s", r.took.Seconds())
		return m.sh(t, list) == before
	}) {
		t.Error("files were changed")
	}
	// The plain file may go, and nothing need be said again.
	m.sh(t, "rm /root/s3.toml")
	r := m.in(t, "/root/strongroom-installer", "plan")
	if r.code != 0 || !strings.Contains(r.stdout, "Nothing to change") {
		t.Errorf("plan without flags: exit code %d:\n%s", r.code, r)
	}
}

func testBackupSecrets(t *testing.T, m *machine, _ *store) {
	drill := strings.TrimSpace(m.sh(t, "systemd-creds decrypt --name=drill-key /etc/strongroom/credentials/drill-key -"))
	patterns := filepath.Join(t.TempDir(), "patterns")
	secrets := []string{storeSecret, drill}
	for _, name := range []string{"drill-signing-key", "snapshot-signing-key", "snapshot-secret-id", "canary-secret-id", "drill-secret-id", "doctor-secret-id"} {
		secrets = append(secrets, strings.TrimSpace(m.sh(t, "systemd-creds decrypt --name="+name+" /etc/strongroom/credentials/"+name+" -")))
	}
	if err := os.WriteFile(patterns, []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("grep", "-rlaFf", patterns, m.disk+"/etc", m.disk+"/root", m.disk+"/var", m.disk+"/tmp", m.disk+"/srv", "--devices=skip").Output()
	if len(out) > 0 || err == nil {
		t.Errorf("plain secrets in:\n%s", out)
	}
	processes := m.sh(t, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
	for _, s := range secrets {
		if len(s) < 16 {
			t.Errorf("a secret of %d bytes", len(s))
		}
		if strings.Contains(processes, s) {
			t.Error("a plain secret is in a command line or an environment")
		}
	}
	testNoPlainSecret(t, m)
}

func testTimerFires(t *testing.T, m *machine, _ *store) {
	before := verified(t, m)
	// The timer itself, in a hurry.
	m.sh(t, `mkdir -p /run/systemd/system/strongroom-snapshot.timer.d
		printf '[Timer]\nOnActiveSec=1s\nRandomizedDelaySec=0\n' >/run/systemd/system/strongroom-snapshot.timer.d/now.conf
		systemctl daemon-reload; systemctl restart strongroom-snapshot.timer`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		now, newer := verified(t, m), 0
		for place, r := range now.LastGood {
			if r.ID != before.LastGood[place].ID {
				newer++
			}
		}
		if newer == 2 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the timer's snapshot was not verified:\n%s", m.sh(t, "systemctl list-timers --all --no-pager; journalctl --no-pager -n 40 -u strongroom-snapshot -u strongroom-verify"))
		}
	}
	m.sh(t, "rm -r /run/systemd/system/strongroom-snapshot.timer.d; systemctl daemon-reload; systemctl restart strongroom-snapshot.timer")
}

// testVaultDrift: once the root token is gone, what differs in Vault takes an
// administrator.
func testVaultDrift(t *testing.T, m *machine, _ *store) {
	admin := login(t, m)
	c := m.client(roots(t, m))
	accessors := func(role string) []any {
		_, out := m.vault(t, c, "LIST", "auth/approle/role/"+role+"/secret-id", admin, nil)
		data, _ := out["data"].(map[string]any)
		keys, _ := data["keys"].([]any)
		return keys
	}
	for _, call := range []struct {
		method, path string
		body         map[string]any
	}{
		{"POST", "sys/policies/acl/strongroom-snapshot", map[string]any{"policy": `path "sys/raw/*" { capabilities = ["read"] }`}},
		{"POST", "auth/approle/role/strongroom-canary", map[string]any{"token_ttl": "768h", "token_max_ttl": "768h"}},
		{"DELETE", "auth/approle/role/strongroom-drill", nil},
		{"POST", "auth/approle/role/strongroom-snapshot/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": accessors("strongroom-snapshot")[0]}},
		// What a run leaves that was killed before it had sealed this one.
		{"POST", "auth/approle/role/strongroom-snapshot/secret-id", map[string]any{"metadata": `{"node":"node-1"}`}},
	} {
		if status, out := m.vault(t, c, call.method, call.path, admin, call.body); status/100 != 2 {
			t.Fatalf("%s %s: status %d %v", call.method, call.path, status, out)
		}
	}
	r := m.in(t, "/root/strongroom-installer", "plan")
	for _, want := range []string{"policy strongroom-snapshot", "AppRole strongroom-canary", "AppRole strongroom-drill", "snapshot-secret-id: refused by Vault"} {
		if r.code != 3 || !strings.Contains(r.stdout, want) {
			t.Errorf("plan: exit code %d, lacks %q:\n%s", r.code, want, r)
		}
	}
	r = m.in(t, "/root/strongroom-installer", "install", "--yes")
	if r.code != 4 || !strings.Contains(r.stderr, "VAULT_TOKEN") {
		t.Errorf("install without a token: exit code %d:\n%s", r.code, r)
	}
	r = m.in(t, "env", "VAULT_TOKEN=hvs.nobody", "/root/strongroom-installer", "install", "--yes")
	if r.code != 4 || !strings.Contains(r.stderr, "refuses the administrator's token") || strings.Contains(r.String(), "hvs.nobody") {
		t.Errorf("install with a wrong token: exit code %d:\n%s", r.code, r)
	}
	m.write(t, "/root/token", []byte(admin+"\n"))
	r = m.in(t, "/root/strongroom-installer", "install", "--yes", "--token-file", "/root/token")
	if r.code != 0 {
		t.Errorf("install with the administrator's token: exit code %d:\n%s", r.code, r)
	}
	m.sh(t, "rm /root/token")
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d:\n%s", r.code, r)
	}
	for _, role := range []string{"snapshot", "canary", "drill", "doctor"} {
		if n := len(accessors("strongroom-" + role)); n != 1 {
			t.Errorf("%s: %d secret ids are alive, want one", role, n)
		}
	}
	m.sh(t, "systemctl start strongroom-snapshot.service")
}

func testBackupsGivenUp(t *testing.T, m *machine, _ *store) {
	m.write(t, "/root/none.toml", fmt.Appendf(nil, "domain = %q\n[vault]\nallow_old = true\n[tls]\nmode = \"internal\"\n", domain))
	r := m.in(t, "/root/strongroom-installer", "install", "--yes", "--config", "/root/none.toml", "--vault-binary", "/root/vault")
	if r.code != 0 || !strings.Contains(r.stdout, "THERE IS NO BACKUP") {
		t.Errorf("exit code %d:\n%s", r.code, r)
	}
	out := m.in(t, "systemctl", "is-enabled", layout.UnitSnapshotTimer, layout.UnitSnapshotPath).stdout
	if lines := strings.Fields(out); !slices.Equal(lines, []string{"disabled", "disabled"}) {
		t.Errorf("the backup units are %q", lines)
	}
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d:\n%s", r.code, r)
	}
}
