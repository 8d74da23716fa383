package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"strongroom.example/appliance/base/fault"
)

func TestCloudInit(t *testing.T) {
	dir := t.TempDir()
	good, secret := filepath.Join(dir, "good.toml"), filepath.Join(dir, "secret.toml")
	for file, text := range map[string]string{
		good: "domain = \"vault.example.com\"\nemail = \"ops@example.com\"\n",
		secret: "domain = \"vault.example.com\"\nemail = \"ops@example.com\"\n[tls]\nmode = \"files\"\n" +
			"cert_file = \"/etc/ssl/a.crt\"\nkey_file = \"/etc/ssl/a.key\"\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const url = "https://downloads.example.com/strongroom-installer"
	code, out, errs := run(t, "cloud-init", "--config", good, "--url", url)
	if code != fault.OK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var d struct {
		Files []struct{ Path, Content string } `yaml:"write_files"`
	}
	if err := yaml.Unmarshal([]byte(out), &d); err != nil || len(d.Files) != 3 {
		t.Fatalf("%v, %d files:\n%s", err, len(d.Files), out)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no URL", []string{"--config", good}, fault.Usage, "--url is required"},
		{"no configuration", []string{"--url", url}, fault.Usage, "domain: is required"},
		{"not https", []string{"--config", good, "--url", "ftp://x.example/i"}, fault.Usage, "https URL"},
		{"not a sum", []string{"--config", good, "--url", url, "--sha256", "12"}, fault.Usage, "64 hex digits"},
		{"needs a secret", []string{"--config", secret, "--url", url}, fault.Usage, "tls.mode"},
		{"no such file", []string{"--config", filepath.Join(dir, "none"), "--url", url}, fault.Usage, "no such file"},
	} {
		code, out, errs := run(t, append([]string{"cloud-init"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s%s", c.name, code, c.code, c.want, out, errs)
		}
	}
}

func TestLifeRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no reason", []string{"upgrade", "--skip-rehearsal", " "}, "say why"},
		{"two Vaults", []string{"upgrade", "--vault-version", "2.2.3", "--vault-binary", "v"}, "give one of them"},
		{"plan and rollback", []string{"upgrade", "--dry-run", "--rollback"}, "give one of them"},
		{"no patience", []string{"upgrade", "--patience", "1ms"}, "at least 1s"},
		{"an argument", []string{"upgrade", "now"}, "unknown command"},
		{"confirmed, not purged", []string{"uninstall", "--confirm-domain", "x.example"}, "is for --purge"},
	} {
		if code, _, errs := run(t, c.args...); code != fault.Usage || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit code %d: %s", c.name, code, errs)
		}
	}
}
