package steps

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/age"

	"strongroom/appliance/escrow"
	"strongroom/appliance/kms"
	"strongroom/appliance/vaultapi"
	"strongroom/config"
	"strongroom/installer/engine"
	"strongroom/installer/host"
	"strongroom/installer/payload"
	"strongroom/systemd"
)

// vps is a fresh Debian in memory, with the commands that the steps call.
type vps struct {
	*host.Memory
	id  *age.X25519Identity
	nft string // the rules in force
}

func newVPS(t *testing.T) *vps {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	m := host.NewMemory()
	v := &vps{Memory: m, id: id}
	for _, d := range []string{"/etc", "/etc/sysctl.d", "/etc/profile.d", "/etc/systemd", "/etc/systemd/system",
		"/proc", "/proc/sys", "/proc/sys/fs", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/lib", "/var", "/var/lib", "/root"} {
		m.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}, Type: fs.ModeDir}}
	}
	for p, text := range map[string]string{
		"/etc/os-release":            "ID=debian\nVERSION_ID=\"12\"\n",
		"/proc/meminfo":              "MemTotal:        4012345 kB\n",
		"/proc/swaps":                "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n",
		"/proc/sys/fs/suid_dumpable": "2\n",
		"/proc/self":                 "",
		"/etc/fstab":                 "/dev/sda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n# /x none swap\n",
		"/root/vault":                "a Vault",
	} {
		m.Files[p] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o644}}, Data: []byte(text)}
	}
	m.Units["systemd-timesyncd.service"] = &host.Unit{Load: "loaded", Active: "inactive", Enabled: "disabled"}
	m.Commands = map[string]func(host.Command, []byte) (host.Output, error){
		"systemctl": answer("systemd 252 (252.39-1~deb12u2)\n"),
		"vault":     answer("Vault v2.2.2 (abc), built 2026-11-01\n"),
		"swapoff": func(host.Command, []byte) (host.Output, error) {
			m.Files["/proc/swaps"].Data = []byte("Filename\n")
			return host.Output{}, nil
		},
		"sysctl":        v.sysctl,
		"systemd-creds": v.creds,
		"nft":           v.nftables,
		"systemd-run":   v.run,
	}
	return v
}

func answer(s string) func(host.Command, []byte) (host.Output, error) {
	return func(host.Command, []byte) (host.Output, error) { return host.Output{Stdout: []byte(s)}, nil }
}

func (v *vps) sysctl(c host.Command, _ []byte) (host.Output, error) {
	key, value, _ := strings.Cut(c.Args[len(c.Args)-1], "=")
	v.Files["/proc/sys/"+strings.ReplaceAll(key, ".", "/")].Data = []byte(value + "\n")
	return host.Output{}, nil
}

// creds "encrypts" so that the plain text isn't in the result.
func (v *vps) creds(c host.Command, stdin []byte) (host.Output, error) {
	name := strings.TrimPrefix(c.Args[2], "--name=")
	if c.Args[1] == "encrypt" {
		return host.Output{Stdout: []byte(name + ":" + base64.StdEncoding.EncodeToString(stdin))}, nil
	}
	b, err := v.ReadFile(c.Args[3])
	if err != nil {
		return host.Output{}, err
	}
	got, text, _ := strings.Cut(string(b), ":")
	if got != name {
		return host.Output{}, &host.ExitError{Command: c.String(), Code: 1, Stderr: "embedded name does not match"}
	}
	plain, err := base64.StdEncoding.DecodeString(text)
	return host.Output{Stdout: plain}, err
}

func (v *vps) nftables(c host.Command, _ []byte) (host.Output, error) {
	switch {
	case c.Args[1] == "delete":
		v.nft = ""
	case c.Args[1] == "-f":
		b, err := v.ReadFile(c.Args[2])
		if err != nil {
			return host.Output{}, err
		}
		v.nft = string(b)
	case c.Args[1] == "list" && v.nft == "":
		return host.Output{}, &host.ExitError{Command: c.String(), Code: 1, Stderr: "Error: No such file or directory"}
	}
	return host.Output{}, nil
}

// run arms a timer.
func (v *vps) run(host.Command, []byte) (host.Output, error) {
	v.Units[rollbackUnit+".timer"] = &host.Unit{Load: "loaded", Active: "active"}
	return host.Output{}, nil
}

// network is one where all is well, until told otherwise.
type network struct {
	points []netip.Addr
	err    error
	taken  []int
	caa    error
}

func (n network) Lookup(context.Context, string) ([]netip.Addr, error) { return n.points, n.err }
func (n network) CAA(_ context.Context, name string, ids []string) error {
	if n.caa != nil && name == "vault.example.com" && slices.Contains(ids, "letsencrypt.org") {
		return n.caa
	}
	return nil
}
func (n network) Local() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.5")}, nil
}
func (n network) Taken(_ string, port int) (bool, error) { return slices.Contains(n.taken, port), nil }

func (v *vps) env() *Env {
	cfg := config.Default()
	cfg.Domain = "vault.example.com"
	cfg.TLS.Mode = config.TLSInternal
	return &Env{
		Host: v.Host(), Config: cfg, Network: network{}, Rand: rand.NewChaCha8([32]byte{1}), Version: "1.2.3",
		Payload: payload.New(fstest.MapFS{
			"bin/strongroom":                   {Data: []byte("the appliance")},
			"bin/vault-plugin-secrets-apikeys": {Data: []byte("the plugin")},
		}),
		VaultBinary: "/root/vault", Recipients: []age.Recipient{v.id.Recipient()},
		Confirm: func(context.Context, config.Firewall, time.Duration) error { return nil },
		Vault:   func(string) (*vaultapi.Client, error) { return nil, errors.New("no Vault here") },
	}
}

// machineSteps are all but those that speak to Vault, which need a real one.
func machineSteps(e *Env) []engine.Step {
	var out []engine.Step
	for _, s := range All(e) {
		switch s.(type) {
		case initialise, vaultSetup, jobs:
		default:
			out = append(out, s)
		}
	}
	return out
}

func (v *vps) engine(e *Env, out *bytes.Buffer) *engine.Engine {
	return &engine.Engine{Steps: machineSteps(e), Out: out, Now: e.Host.Now}
}

// state is what must be the same however the way there was: contents that are
// made at random, and times, are left out.
func (v *vps) state() map[string]string {
	random := []string{tlsDir, credentialDir, EscrowDir, epochFile, DrillKeyPub, DrillSigningPub, ManifestPath}
	s := map[string]string{"nft": v.nft}
	for p, n := range v.Files {
		if strings.HasPrefix(p, EscrowDir+"/check-") {
			continue // named after what is sealed; those of a killed run stay
		}
		content := string(n.Data)
		if slices.ContainsFunc(random, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") }) {
			content = "random"
		}
		s[p] = fmt.Sprintf("%s %s %s %q", n.Attr, n.Type, n.Target, content)
	}
	for name, u := range v.Units {
		if !strings.HasPrefix(name, rollbackUnit) {
			s["unit "+name] = u.Load + " " + u.Active + " " + u.Enabled
		}
	}
	for name, u := range v.Users {
		s["user "+name] = fmt.Sprintf("%+v", u)
	}
	return s
}

func TestInstallTwice(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for p, want := range map[string]string{
		vaultBinary:                 "0755 0:0",
		"/usr/local/bin/strongroom": "0755 0:0",
		pluginDir + "/vault-plugin-secrets-apikeys-1.2.3": "0755 0:0",
		masterKeyCred:          "0600 0:0",
		masterKeyEscrow:        "0600 0:0",
		vaultHCL:               fmt.Sprintf("0640 0:%d", v.Groups[vaultUser].GID),
		frontTOML:              fmt.Sprintf("0640 0:%d", v.Groups[frontUser].GID),
		tlsDir:                 "0700 0:0",
		tlsDir + "/server.key": "0600 0:0",
	} {
		n, ok := v.Files[p]
		if !ok || n.Attr.String() != want {
			t.Errorf("%s: %+v, want %s", p, n, want)
		}
	}
	if fstab := string(v.Files[fstab].Data); strings.Contains(fstab, "\n/swapfile") || !strings.Contains(fstab, "/dev/sda1 / ext4") {
		t.Errorf("fstab:\n%s", fstab)
	}
	for _, svc := range (services{v.env()}).running() {
		if u := v.Units[svc.name]; u.Active != "active" || u.Enabled != "enabled" {
			t.Errorf("%s: %+v", svc.name, *u)
		}
	}
	if !strings.Contains(v.nft, "table inet strongroom") || v.Units[systemd.Firewall].Enabled != "enabled" {
		t.Error("no firewall")
	}
	if u := v.Units[rollbackUnit+".timer"]; u.Active == "active" {
		t.Error("the rollback is still armed")
	}
	v.checkMasterKey(t)

	// The second run and a plan change nothing.
	reads := v.countReads(t)
	before, actions := v.state(), v.Actions
	out.Reset()
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := v.Actions - actions; n != reads {
		t.Errorf("the second run made %d actions; %d are commands that only look", n, reads)
	}
	if !strings.Contains(out.String(), "Nothing to change") || !maps.Equal(before, v.state()) {
		t.Errorf("the second run changed something:\n%s", out.String())
	}
}

// countReads is how many actions a plan makes: `systemctl --version` and the
// like count as actions, though they change nothing.
func (v *vps) countReads(t *testing.T) int {
	t.Helper()
	before := v.Actions
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Plan(t.Context()); err != nil {
		t.Fatalf("plan after install: %v\n%s", err, out.String())
	}
	return v.Actions - before
}

// checkMasterKey asserts that the credential and the escrow hold the same key,
// and that it lies nowhere else.
func (v *vps) checkMasterKey(t *testing.T) *kms.Keyset {
	t.Helper()
	e := v.env()
	plain, err := e.openCredential(t.Context(), kms.CredentialName, masterKeyCred)
	if err != nil {
		t.Fatal(err)
	}
	key, err := kms.ParseKeyset(plain)
	if err != nil {
		t.Fatal(err)
	}
	opened := v.openEscrow(t, masterKeyEscrow)
	if !bytes.Equal(opened, plain) {
		t.Error("the escrow holds another master key than the credential")
	}
	for p, n := range v.Files {
		if bytes.Contains(n.Data, plain) {
			t.Errorf("the plain master key is in %s", p)
		}
	}
	for _, c := range v.Calls {
		if strings.Contains(c, string(plain)) {
			t.Errorf("the plain master key is in the command %q", c)
		}
	}
	return key
}

func TestEveryActionFails(t *testing.T) {
	ref := newVPS(t)
	var out bytes.Buffer
	if _, err := ref.engine(ref.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := ref.state()
	total := ref.Actions
	t.Logf("%d actions", total)
	for _, after := range []bool{false, true} {
		for n := 1; n <= total; n++ {
			v := newVPS(t)
			v.FailAt, v.AfterEffect = n, after
			name := fmt.Sprintf("action %d after=%v", n, after)
			var out bytes.Buffer
			_, err := v.engine(v.env(), &out).Install(t.Context())
			if err == nil {
				t.Errorf("%s: the fault went unnoticed", name)
				continue
			}
			key := v.keyIfAny(t)
			if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
				t.Errorf("%s: second run: %v\n%s", name, err, out.String())
				continue
			}
			if got := v.state(); !maps.Equal(got, want) {
				for k := range want {
					if got[k] != want[k] {
						t.Errorf("%s: %s: %.200s, want %.200s", name, k, got[k], want[k])
					}
				}
				for k := range got {
					if _, ok := want[k]; !ok {
						t.Errorf("%s: %s is left behind", name, k)
					}
				}
			}
			if got := v.checkMasterKey(t); key != "" && got.Fingerprint() != key {
				t.Errorf("%s: the master key was made anew", name)
			}
		}
	}
}

// keyIfAny is the fingerprint of the key that the KMS has already, or "".
func (v *vps) keyIfAny(t *testing.T) string {
	t.Helper()
	if _, ok := v.Files[masterKeyCred]; !ok {
		return ""
	}
	plain, err := v.env().openCredential(t.Context(), kms.CredentialName, masterKeyCred)
	if err != nil {
		t.Fatal(err)
	}
	key, err := kms.ParseKeyset(plain)
	if err != nil {
		t.Fatal(err)
	}
	return key.Fingerprint()
}

func TestMasterKeyIsNeverMadeAgain(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := v.checkMasterKey(t).Fingerprint()
	// The escrow has been moved off the machine: it is written again.
	delete(v.Files, masterKeyEscrow)
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := v.checkMasterKey(t).Fingerprint(); got != key {
		t.Error("another master key")
	}
	// Nor is it one of another key that has proved to open elsewhere.
	confirmation := func(key string) {
		v.Files[path.Join(EscrowDir, escrow.ConfirmationFile)] = &host.Node{Data: []byte(`{"format":1,"files":{"master-key.age":{"sealed_sha256":"` +
			strings.Repeat("0", 64) + `","key":"` + key + `","at":"2026-01-01T00:00:00Z","by":"challenge"}}}`)}
	}
	confirmation("another")
	delete(v.Files, masterKeyEscrow)
	if diff, err := (masterKey{v.env()}).Check(t.Context()); err != nil || len(diff) != 1 || diff[0].What != masterKeyEscrow {
		t.Errorf("another key's proof: %v, %v", diff, err)
	}
	confirmation(key)
	if diff, err := (masterKey{v.env()}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("proved and taken away: %v, %v", diff, err)
	}
	// The credential is gone and Vault has data: nothing may be made.
	for _, d := range []string{vaultData, raftDir} {
		v.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	v.Files[raftDir+"/vault.db"] = &host.Node{Data: []byte("data")}
	delete(v.Files, masterKeyCred)
	_, err := v.engine(v.env(), &out).Install(t.Context())
	var e *engine.Error
	if !errors.As(err, &e) || e.Code != engine.ExitOperator || !strings.Contains(err.Error(), "master key that opens it is not") {
		t.Errorf("error = %v", err)
	}
	if _, ok := v.Files[masterKeyCred]; ok {
		t.Error("a new master key was made beside old data")
	}
}

func TestFirewallNotConfirmed(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	var inForce string
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		inForce = v.nft
		if v.Units[rollbackUnit+".timer"].Active != "active" {
			t.Error("the rollback isn't armed while the rules wait for their confirmation")
		}
		return errors.New("no answer within 2m")
	}
	var out bytes.Buffer
	_, err := v.engine(e, &out).Install(t.Context())
	var ee *engine.Error
	if !errors.As(err, &ee) || ee.Code != engine.ExitOperator || !strings.Contains(err.Error(), "no answer within 2m") {
		t.Errorf("error = %v", err)
	}
	if inForce == "" || v.nft != "" {
		t.Error("the rules were not in force, or were not taken back")
	}
	if _, ok := v.Files[nftablesConf]; ok {
		t.Error("rules that were not confirmed will be loaded at the next boot")
	}
	// Later ones that aren't confirmed fall back to the old ones.
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error { return nil }
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := v.nft
	e.Config.Firewall.SSHPort = 2222
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error { return errors.New("no") }
	if _, err := v.engine(e, &out).Install(t.Context()); err == nil {
		t.Error("no error")
	}
	if v.nft != old || string(v.Files[nftablesConf].Data) != old {
		t.Error("the old rules are not back")
	}
}

// TestFirewallFlushed is about what `nft flush ruleset` does, as nftables.service
// begins.
func TestFirewallFlushed(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff, err := (firewall{v.env()}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("diff = %v, %v", diff, err)
	}
	old := v.nft
	v.nft = ""
	e := v.env()
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		return errors.New("nobody is to be asked")
	}
	diff, err := firewall{e}.Check(t.Context())
	if err != nil || len(diff) != 1 || diff[0].What != "table inet strongroom" || diff[0].To != "restarted" {
		t.Fatalf("diff = %v, %v", diff, err)
	}
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v.nft != old || old == "" {
		t.Error("the rules are not back")
	}
}

// nftables.service, started by hand, flushes all tables: it is told to have ours
// loaded again, as long as they are the installer's affair.
func TestFirewallAfterNftables(t *testing.T) {
	v := newVPS(t)
	file := systemd.DropInPath(systemd.Nftables, "strongroom")
	for _, managed := range []bool{true, false, true} {
		e := v.env()
		e.Config.Firewall.Manage = managed
		var out bytes.Buffer
		if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there := v.Files[file] != nil; there != managed {
			t.Fatalf("managed %t, drop-in %t", managed, there)
		}
	}
	if text := string(v.Files[file].Data); !strings.Contains(text, "\nExecStartPost=-/bin/sh -c 'systemctl --quiet is-enabled strongroom-firewall.service && systemctl --no-block reload-or-restart strongroom-firewall.service'\n") {
		t.Errorf("drop-in: %q", text)
	}
}

func TestFirewallUnmanaged(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.Config.Firewall.Manage = false
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v.nft != "" || v.Files[nftablesConf] != nil {
		t.Error("rules were loaded")
	}
}

func TestRestartAfterChange(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := map[string]time.Time{}
	for _, svc := range (services{v.env()}).running() {
		since[svc.name] = v.Units[svc.name].Since
	}
	e := v.env()
	e.Config.Vault.LogLevel = "debug"
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, svc := range (services{v.env()}).running() {
		restarted := v.Units[svc.name].Since.After(since[svc.name])
		if restarted != (svc.name == systemd.Vault) {
			t.Errorf("%s: restarted = %v after a change of Vault's configuration", svc.name, restarted)
		}
	}
}

func TestCertificateOfTheOperator(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	ownCertificate("vault.example.com", time.Hour)(v, e)
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	dropIns := map[string]string{
		systemd.Front:                "Wants=strongroom-front-certificate.service",
		systemd.FrontCertificate:     "LoadCredential=tls.key:/root/tls.key",
		systemd.FrontCertificatePath: "PathChanged=/root/tls.crt",
	}
	for unit, want := range dropIns {
		p := systemd.DropInPath(unit, frontDropInName)
		if n := v.Files[p]; n == nil || !strings.Contains(string(n.Data), want) {
			t.Errorf("%s lacks %q: %+v", p, want, n)
		}
	}
	if text := string(v.Files[frontTOML].Data); !strings.Contains(text, frontFiles) || strings.Contains(text, "/root/tls.key") {
		t.Errorf("front.toml:\n%s", text)
	}
	if u := v.Units[systemd.FrontCertificatePath]; u.Active != "active" || u.Enabled != "enabled" {
		t.Errorf("nobody watches the files: %+v", u)
	}
	// Renewed: the unit that watches takes it over, the installer has nothing to do.
	ownCertificate("vault.example.com", 2*time.Hour)(v, e)
	if _, err := v.engine(e, &out).Plan(t.Context()); err != nil {
		t.Errorf("plan after a renewal: %v", err)
	}
	// Back to the internal authority: nothing of it is left.
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for unit := range dropIns {
		if v.Files[systemd.DropInPath(unit, frontDropInName)] != nil {
			t.Errorf("the drop-in of %s is still there", unit)
		}
	}
	if u := v.Units[systemd.FrontCertificatePath]; u.Active == "active" || u.Enabled == "enabled" {
		t.Errorf("files are watched that the front no longer uses: %+v", u)
	}
}

// What [tls.acme] names reaches the front sealed, and nobody else.
func TestACMESecretsAreSealed(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	const canary = "canary-mac-key-canary"
	v.Files["/root/eab.toml"] = &host.Node{Data: []byte("key_id = \"me\"\nmac_key = \"" + canary + "\"\n")}
	v.Files["/root/token"] = &host.Node{Data: []byte(canary + "\n")}
	ownCertificate("vault.example.com", time.Hour)(v, e)
	v.Files["/root/ca.pem"] = v.Files["/root/tls.crt"]
	e.Config.Email = "ops@example.com"
	e.Network = network{points: []netip.Addr{netip.MustParseAddr("203.0.113.5")}}
	e.Config.TLS = config.TLS{Mode: config.TLSACME, ACME: config.ACME{Directory: "https://ca.lan:9000/dir", CAFile: "/root/ca.pem",
		EAB: "/root/eab.toml", DNS: config.ACMEHetzner, DNSToken: "/root/token"}}
	e.Given = SealSecrets(&e.Config, "")
	if e.Config.TLS.ACME.EAB != credentialEAB || e.Config.TLS.ACME.DNSToken != credentialDNSToken {
		t.Fatalf("kept as %+v", e.Config.TLS.ACME)
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := string(v.Files[frontTOML].Data)
	for _, want := range []string{
		`eab_file = "/run/credentials/strongroom-front.service/acme-eab"`, `token_file = "/run/credentials/strongroom-front.service/acme-dns-token"`,
		`trusted_roots = ["/run/credentials/strongroom-front.service/acme-ca.crt"]`, `staging = ""`, `email = "ops@example.com"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("front.toml lacks %s:\n%s", want, text)
		}
	}
	dropIn := string(v.Files[systemd.DropInPath(systemd.Front, frontDropInName)].Data)
	for _, want := range []string{"LoadCredential=acme-ca.crt:/root/ca.pem\n", "LoadCredentialEncrypted=acme-eab:" + credentialPath(credentialEAB) + "\n"} {
		if !strings.Contains(dropIn, want) {
			t.Errorf("drop-in lacks %q:\n%s", want, dropIn)
		}
	}
	if !strings.Contains(string(v.Files[nftablesConf].Data), "9000") {
		t.Error("the firewall keeps the front from the authority")
	}
	for p, n := range v.Files {
		if bytes.Contains(n.Data, []byte(canary)) && !strings.HasPrefix(p, "/root/") && !strings.HasPrefix(p, credentialDir) {
			t.Errorf("the secret is in %s", p)
		}
	}
	if strings.Contains(out.String(), canary) {
		t.Error("the secret is in the output")
	}
	for name, bad := range map[string]string{credentialEAB: "key_id = \"" + canary + "\"\n", credentialDNSToken: canary + " " + canary} {
		err := checkGiven(name, "/root/x", []byte(bad))
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestPlanOnAFreshMachine(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	var out bytes.Buffer
	eng := engine.Engine{Steps: All(e), Out: &out, Now: e.Host.Now}
	before := v.state()
	_, err := eng.Plan(t.Context())
	if !errors.Is(err, engine.ErrDiffers) {
		t.Errorf("error = %v", err)
	}
	if !maps.Equal(before, v.state()) {
		t.Error("plan changed something")
	}
	for _, want := range []string{"+ user vault", "+ master key: new", "+ " + vaultHCL, "+ " + nftablesConf, "+ Vault: initialised, 3 of 5"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("plan lacks %q:\n%s", want, out.String())
		}
	}
}

func (v *vps) openEscrow(t *testing.T, p string) []byte {
	t.Helper()
	n, ok := v.Files[p]
	if !ok {
		t.Fatalf("%s is not there", p)
	}
	if ext := path.Ext(p); ext != ".age" {
		t.Fatalf("%s: extension %q", p, ext)
	}
	return openAge(t, n.Data, v.id)
}
