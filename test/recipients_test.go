package test

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appliance "strongroom.example/appliance/cli"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/config/recipient/recipienttest"
	installer "strongroom.example/installer/cli"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

// What one entrance takes as a recipient, no other refuses.
func TestRecipientsAtEveryEntrance(t *testing.T) {
	for _, name := range []string{"VAULT_TOKEN", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"} {
		t.Setenv(name, "")
	}
	// Whoever asks Vault has its answer at once, and nothing to try again for.
	no := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"errors":["no"]}`, http.StatusBadRequest)
	}))
	defer no.Close()
	t.Setenv("VAULT_ADDR", no.URL)
	t.Setenv("HOME", t.TempDir())
	strongroom := func(t *testing.T, args ...string) string {
		c := appliance.New("0")
		var out bytes.Buffer
		c.SetArgs(args)
		c.SetOut(&out)
		c.SetErr(&out)
		appliance.Report(&out, c.ExecuteContext(t.Context()))
		return out.String()
	}
	install := func(t *testing.T, args ...string) string {
		c := installer.New("0", "0")
		var out bytes.Buffer
		c.SetArgs(args)
		c.SetIn(strings.NewReader(""))
		c.SetOut(&out)
		c.SetErr(&out)
		installer.Report(&out, c.ExecuteContext(t.Context()))
		return out.String()
	}
	// file is a configuration with the recipient in one of its lists.
	file := func(t *testing.T, escrow, backup []string) string {
		a := config.Default()
		a.Domain, a.Email = "vault.example.com", "ops@example.com"
		a.Escrow.Recipients, a.Backup.Recipients = escrow, backup
		// Without its key pair nothing goes on behind the recipients.
		a.Backup.To = []config.BackupTo{{Type: config.BackupS3, Endpoint: "https://localhost", Bucket: "b", Credentials: "/nonexistent/keys"}}
		text, err := config.Encode(a)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "appliance.toml")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key := filepath.Join(t.TempDir(), "master-key")
	keys, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	entrances := map[string]func(t *testing.T, s string) string{
		"config check, escrow": func(t *testing.T, s string) string { return install(t, "config", "check", file(t, []string{s}, nil)) },
		"config check, backup": func(t *testing.T, s string) string { return install(t, "config", "check", file(t, nil, []string{s})) },
		"install, preflight": func(t *testing.T, s string) string {
			if _, _, err := steps.Recipients(host.NewMemory().Host(), []string{s}, "root"); err != nil {
				return err.Error()
			}
			return ""
		},
		"install, authorized_keys": func(t *testing.T, s string) string {
			m := host.NewMemory()
			m.Users["root"] = host.User{Name: "root", Home: "/root"}
			m.Files["/root/.ssh/authorized_keys"] = &host.Node{Info: host.Info{Type: fs.FileMode(0)}, Data: []byte(s)}
			_, notes, err := steps.Recipients(m.Host(), nil, "root")
			if err != nil {
				return err.Error()
			}
			return strings.Join(notes, "\n")
		},
		"cloud-init": func(t *testing.T, s string) string {
			return install(t, "cloud-init", "--url", "https://example.com/i", "--sha256", strings.Repeat("a", 64),
				"--domain", "vault.example.com", "--email", "ops@example.com", "--recipient", s)
		},
		"snapshot take": func(t *testing.T, s string) string {
			return strongroom(t, "snapshot", "take", "--config", file(t, nil, nil), "--state", t.TempDir(), "--drill-key", "", "--recipient", s)
		},
		"snapshot take, configured": func(t *testing.T, s string) string {
			return strongroom(t, "snapshot", "take", "--config", file(t, nil, []string{s}), "--state", t.TempDir(), "--drill-key", "")
		},
		"kms export": func(t *testing.T, s string) string {
			return strongroom(t, "kms", "export", "--key-file", key, "--out", filepath.Join(t.TempDir(), "out.age"), "--recipient", s)
		},
		"kv export": func(t *testing.T, s string) string {
			return strongroom(t, "kv", "export", "--all", "--output", filepath.Join(t.TempDir(), "out.age"), "--recipient", s)
		},
		"migrate cutover": func(t *testing.T, s string) string {
			return strongroom(t, "migrate", "cutover", "--root", t.TempDir(), "--recipient", s)
		},
	}
	vectors := recipienttest.Vectors(t)
	// What any vector is refused with, so that what an entrance says of other
	// things does not count.
	faults := []string{"unknown flag", "unknown command"}
	for _, v := range vectors {
		if v.Fault != "" && v.Fault != "ssh-ed25519" && v.Fault != "empty" {
			faults = append(faults, v.Fault)
		}
	}
	for name, enter := range entrances {
		t.Run(name, func(t *testing.T) {
			for _, v := range vectors {
				if name == "install, authorized_keys" && (strings.ContainsAny(v.Text, "\n\r") || strings.TrimSpace(v.Text) == "") {
					continue // other lines, or none
				}
				said := enter(t, v.Text)
				if v.Secret != "" && strings.Contains(said, v.Secret) {
					t.Errorf("%s: a private key is quoted", v.Name)
				}
				if v.Fault != "" {
					if !strings.Contains(said, v.Fault) {
						t.Errorf("%s: it said %q, want %q", v.Name, said, v.Fault)
					}
					continue
				}
				for _, f := range faults {
					if strings.Contains(said, f) {
						t.Errorf("%s: refused: %s", v.Name, said)
					}
				}
			}
		})
	}
}
