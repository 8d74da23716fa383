package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/cli"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// drillSite is a machine with backups and everything that a drill needs.
type drillSite struct {
	backupSite
	s          *vaulttest.Server
	state      string
	masterKey  string // file
	signing    string // file
	signingPub string // file
	roles      map[string][2]string
	secrets    []string // that must never be seen
}

// newDrillSite sets up a Vault as the installer does, with backups in S3 and on
// a disk.
func newDrillSite(t *testing.T) *drillSite {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a drill needs root")
	}
	s := vaulttest.New(t)
	ctx, v := t.Context(), vaulttest.API(s.Root)
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	s.MountAPIKeys(t)
	if _, err := v.Logical().WriteWithContext(ctx, "apikeys/providers/generated", map[string]any{"type": "generated"}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Logical().WriteWithContext(ctx, "apikeys/keys/app/prod/own", map[string]any{"provider": "generated"}); err != nil {
		t.Fatal(err)
	}
	s3, _ := startS3(t)
	d := &drillSite{backupSite: newSite(t, s, s3), s: s, roles: map[string][2]string{}}
	for name, text := range config.Policies() {
		if err := v.Sys().PutPolicyWithContext(ctx, name, text); err != nil {
			t.Fatal(err)
		}
	}
	for _, role := range []string{config.PolicyCanary, config.PolicyDrill} {
		d.roles[role] = d.role(t, role)
	}
	d.state, d.masterKey = filepath.Join(d.dir, "drill"), filepath.Join(d.dir, "master-key")
	d.signing, d.signingPub = filepath.Join(d.dir, "signing-key"), filepath.Join(d.dir, "signing.pub")
	key, err := s.Keyset.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seed := base64.StdEncoding.EncodeToString(private.Seed())
	for file, text := range map[string]string{d.masterKey: string(key), d.signing: seed, d.signingPub: string(signing.EncodePublic(pub))} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	putSecret(t, s.Root, "app/prod/database", "PLANTED-canary-in-a-secret")
	body := strings.Split(string(key), "\n")
	d.secrets = append(d.secrets, "PLANTED-canary-in-a-secret", seed, body[len(body)/2], readText(t, d.identity), s.RootToken)
	return d
}

// role makes one of the appliance's AppRoles and gives the files of its ids.
func (d *drillSite) role(t *testing.T, name string) [2]string {
	t.Helper()
	ctx, l := t.Context(), vaulttest.API(d.s.Root).Logical()
	path := "auth/approle/role/" + name
	if _, err := l.WriteWithContext(ctx, path, map[string]any{"token_policies": name, "token_ttl": "10m", "token_no_default_policy": true}); err != nil {
		t.Fatal(err)
	}
	id, err := l.ReadWithContext(ctx, path+"/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := l.WriteWithContext(ctx, path+"/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	files := [2]string{filepath.Join(d.dir, name+"-role-id"), filepath.Join(d.dir, name+"-secret-id")}
	for i, v := range []any{id.Data["role_id"], secret.Data["secret_id"]} {
		if err := os.WriteFile(files[i], []byte(v.(string)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.secrets = append(d.secrets, secret.Data["secret_id"].(string))
	return files
}

// backup takes a snapshot with its canary and verifies it.
func (d *drillSite) backup(t *testing.T) {
	t.Helper()
	canary := d.roles[config.PolicyCanary]
	out := d.take(t, d.s, cli.ExitOK, "--canary-role-id-file", canary[0], "--canary-secret-id-file", canary[1])
	if strings.Contains(out, "canary") {
		t.Fatalf("the canary was not written:\n%s", out)
	}
	d.verify(t, cli.ExitOK)
	c, err := vaulttest.API(d.s.Root).KVv2("secret").Get(t.Context(), "strongroom/canary")
	if err != nil {
		t.Fatal(err)
	}
	d.secrets = append(d.secrets, c.Data["value"].(string))
}

// command is a drill of the built program; later flags win.
func (d *drillSite) command(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	role := d.roles[config.PolicyDrill]
	all := append([]string{"drill", "--config", d.config, "--take-state", d.takeState, "--state", d.state,
		"--identity", d.identity, "--key-file", d.masterKey, "--role-id-file", role[0], "--secret-id-file", role[1],
		"--signing-key", d.signing, "--vault", vaulttest.Bin(t, "vault"), "--plugin-dir", d.s.Layout.Plugins(),
		"--hide", filepath.Dir(d.s.Layout.Audit("x")), "--escrow", filepath.Join(d.dir, "escrow")}, args...)
	cmd := exec.CommandContext(ctx, vaulttest.Bin(t, "strongroom"), all...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + d.dir}
	return cmd
}

// drill runs one and wants an exit code.
func (d *drillSite) drill(t *testing.T, want int, args ...string) string {
	t.Helper()
	cmd := d.command(t.Context(), t, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("drill %q: exit code %d, want %d:\n%s", args, got, want, out)
	}
	d.nothingLeft(t)
	return string(out)
}

// drillVerb runs a verb below drill, through the command line before where there
// is one.
func (d *drillSite) drillVerb(t *testing.T, want int, before []string, args ...string) string {
	t.Helper()
	line := append(slices.Clone(before), vaulttest.Bin(t, "strongroom"), "drill")
	line = append(line, args...)
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + d.dir}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("drill %q: exit code %d, want %d:\n%s", args, got, want, out)
	}
	return string(out)
}

// nothingLeft sees that a drill has left its reports only, and no process.
func (d *drillSite) nothingLeft(t *testing.T) {
	t.Helper()
	assertGone(t, d.state)
	entries, err := os.ReadDir(d.state)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case ".drill.lock", "reports", "last.json", "last.txt", "rehearsal.json", "rehearsal.txt", "chosen.json", "chosen.txt":
		default:
			t.Errorf("left behind: %s", filepath.Join(d.state, e.Name()))
		}
	}
}

// report is the newest one.
func (d *drillSite) report(t *testing.T) *report.Report {
	t.Helper()
	r, err := report.Last(d.state)
	if err != nil || r == nil {
		t.Fatalf("no report: %v", err)
	}
	return r
}

func verdictOf(r *report.Report, name string) string {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Verdict
		}
	}
	return ""
}

// silent looks for every secret in what a drill has printed and left.
func (d *drillSite) silent(t *testing.T, out string) {
	t.Helper()
	look := func(where, text string) {
		for _, s := range d.secrets {
			if s = strings.TrimSpace(s); s != "" && strings.Contains(text, s) {
				t.Errorf("a secret is in %s", where)
			}
		}
	}
	look("the output", out)
	err := filepath.WalkDir(d.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		look(path, readText(t, path))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// engineCounters are what the live engine has done so far.
func engineCounters(t *testing.T, c *api.Client) string {
	t.Helper()
	s, err := c.Logical().ReadWithContext(t.Context(), "apikeys/status")
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal([]any{s.Data["rotations"], s.Data["revocations"], s.Data["fence"]})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func writeOtherKey(t *testing.T, path string) {
	t.Helper()
	keys, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
