package cloudinit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"strongroom.example/config"
)

func params() Params {
	c := config.Default()
	c.Domain, c.Email = "vault.example.com", "ops@example.com"
	c.Escrow.Recipients = []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}
	return Params{URL: "https://downloads.example.com/strongroom-installer?v=1", SHA256: strings.Repeat("ab", 32), Config: c, Version: "1.2.3"}
}

// document is what cloud-init reads of it.
type document struct {
	Files []struct {
		Path, Permissions, Content string
	} `yaml:"write_files"`
	Run [][]string `yaml:"runcmd"`
}

func parse(t *testing.T, data []byte) map[string]string {
	t.Helper()
	if !strings.HasPrefix(string(data), "#cloud-config\n") {
		t.Fatalf("the first line is not cloud-init's:\n%s", data)
	}
	var d document
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	if err := dec.Decode(&d); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	files := map[string]string{}
	for _, f := range d.Files {
		files[filepath.Base(f.Path)] = f.Content
		if want := map[string]string{"appliance.toml": "0600", "first-boot": "0700", unitName: "0644"}[filepath.Base(f.Path)]; f.Permissions != want {
			t.Errorf("%s: permissions %q, want %q", f.Path, f.Permissions, want)
		}
	}
	if len(d.Run) != 3 || d.Run[2][len(d.Run[2])-1] != unitName {
		t.Errorf("runcmd: %v", d.Run)
	}
	return files
}

func TestUserData(t *testing.T) {
	p := params()
	out, err := UserData(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) > MaxSize {
		t.Errorf("%d bytes", len(out))
	}
	t.Logf("%d bytes", len(out))
	files := parse(t, out)
	got, err := config.Parse("appliance.toml", []byte(files["appliance.toml"]))
	if err != nil {
		t.Fatal(err)
	}
	if got.Domain != p.Config.Domain || len(got.Escrow.Recipients) != 1 || got.Escrow.Recipients[0] != p.Config.Escrow.Recipients[0] {
		t.Errorf("configuration: %+v", got)
	}
	if !strings.Contains(files["first-boot"], p.SHA256) || !strings.Contains(files["first-boot"], "'"+p.URL+"'") {
		t.Errorf("script:\n%s", files["first-boot"])
	}
	if !strings.Contains(files[unitName], "ExecStart="+Dir+"/first-boot") {
		t.Errorf("unit:\n%s", files[unitName])
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*Params)
		want string
	}{
		{"http", func(p *Params) { p.URL = "http://x.example/i" }, "an https URL is needed"},
		{"no host", func(p *Params) { p.URL = "https:///i" }, "an https URL is needed"},
		{"password", func(p *Params) { p.URL = "https://me:s3cret@x.example/i" }, "user or password"},
		{"quote", func(p *Params) { p.URL = "https://x.example/'; reboot; '" }, "can't hold"},
		{"newline", func(p *Params) { p.URL = "https://x.example/\nreboot" }, "--url"},
		{"sum", func(p *Params) { p.SHA256 = "abc" }, "64 hex digits"},
		{"own certificate", func(p *Params) { p.Config.TLS.Mode = config.TLSFiles }, "tls.mode"},
		{"bucket", func(p *Params) { p.Config.Backup.To = []config.BackupTo{{Type: config.BackupS3}} }, "backup.to[0]"},
		{"webhook", func(p *Params) { p.Config.Alert.WebhookFile = "/x" }, "alert.webhook_file"},
		{"old webhook", func(p *Params) { p.Config.Backup.WebhookFile = "/x" }, "backup.webhook_file"},
		{"mail", func(p *Params) { p.Config.Alert.Mail.Credentials = "/x" }, "alert.mail.credentials"},
		{"account", func(p *Params) { p.Config.TLS.ACME.EAB = "/x" }, "tls.acme.eab: "},
		{"other account", func(p *Params) { p.Config.TLS.ACME.FallbackEAB = "eab" }, "tls.acme.fallback_eab: "},
		{"DNS", func(p *Params) { p.Config.TLS.ACME.DNSToken = "dns" }, "tls.acme.dns_token: "},
		{"authority", func(p *Params) { p.Config.TLS.ACME.CAFile = "/x" }, "tls.acme.ca_file: "},
		{"mail's authority", func(p *Params) { p.Config.Alert.Mail.CAFile = "/x" }, "alert.mail.ca_file: "},
		{"node's authority", func(p *Params) { p.Config.Node.Peers = []config.Peer{{}, {CACertFile: "/x"}} }, "node.peer[1].ca_cert_file: "},
		{"disk", func(p *Params) {
			p.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt/x"}}
		}, "backup.to[0].path: a folder or disk for backups is not on a new machine"},
		{"private key", func(p *Params) {
			p.Config.Escrow.Recipients = append(p.Config.Escrow.Recipients, "AGE-SECRET-KEY-1CANARY")
		}, "private key"},
		{"too long", func(p *Params) {
			for range 200 {
				p.Config.Escrow.Recipients = append(p.Config.Escrow.Recipients, "ssh-rsa "+strings.Repeat("A", 372))
			}
		}, "bytes, 32768 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			c.do(&p)
			out, err := UserData(p)
			if err == nil || !strings.Contains(err.Error(), c.want) || out != nil {
				t.Errorf("%v, %d bytes", err, len(out))
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "CANARY")) {
				t.Errorf("a secret is in the message: %v", err)
			}
		})
	}
}

// TestScript runs the script against a real HTTPS server, with each of the
// programs that may fetch.
func TestScript(t *testing.T) {
	installer := scriptFor(runtime.GOARCH)
	served := installer
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(served) }))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, fetcher := range []string{"curl", "wget", "python3"} {
		t.Run(fetcher, func(t *testing.T) {
			if _, err := program(fetcher); err != nil {
				t.Skip(err)
			}
			served = installer
			dir := t.TempDir()
			bin := tools(t, fetcher)
			p := params()
			sum := sha256.Sum256(installer)
			p.URL, p.SHA256, p.Dir, p.UnitDir, p.BinDir = srv.URL+"/i", hex.EncodeToString(sum[:]), dir, dir, t.TempDir()
			text, err := p.script()
			if err != nil {
				t.Fatal(err)
			}
			run := func(code string) (int, string) {
				t.Helper()
				for name, content := range map[string]string{"first-boot": text, "code": code} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				cmd := exec.Command("/bin/sh", filepath.Join(dir, "first-boot"))
				cmd.Env = []string{"PATH=" + bin, "CURL_CA_BUNDLE=" + ca, "SSL_CERT_FILE=" + ca, "WGETRC=" + wgetrc(t, ca)}
				out, err := cmd.CombinedOutput()
				if err != nil && cmd.ProcessState == nil {
					t.Fatal(err)
				}
				return cmd.ProcessState.ExitCode(), string(out)
			}
			calls := func() string {
				b, _ := os.ReadFile(filepath.Join(dir, "calls"))
				return string(b)
			}

			served = []byte("something else")
			if code, out := run("0"); code != 100 || calls() != "" || !strings.Contains(out, "is not the installer") {
				t.Fatalf("another file: exit code %d, calls %q:\n%s", code, calls(), out)
			}
			served = installer
			if code, out := run("4"); code != 4 || strings.Contains(calls(), "disable") {
				t.Fatalf("needs the operator: exit code %d:\n%s", code, out)
			}
			// The second run downloads nothing.
			served = []byte("something else")
			for _, code := range []string{"0", "3"} {
				if got, out := run(code); got != 0 {
					t.Fatalf("installer's exit code %s: %d\n%s", code, got, out)
				}
			}
			if want := strings.Repeat("install --yes --config appliance.toml\n", 3); calls() != want {
				t.Errorf("calls:\n%s", calls())
			}
			if to, err := os.Readlink(filepath.Join(p.BinDir, "strongroom-installer")); err != nil || to != filepath.Join(dir, "strongroom-installer") {
				t.Errorf("the installer is not in PATH: %q, %v", to, err)
			}
			if b, err := os.ReadFile(filepath.Join(bin, "disabled")); err != nil || string(b) != strings.Repeat("disable "+unitName+"\ndaemon-reload\n", 2) {
				t.Errorf("unit: %q, %v", b, err)
			}
		})
	}
}

// scriptFor is a script that is taken for a program of that architecture.
func scriptFor(arch string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\n#1234567%c\necho \"$@\" >>calls\nexit $(cat code)\n", map[string]byte{"amd64": 62, "arm64": 183}[arch])
}

// TestScriptEndsItsTries: what a later try can do better ends with another code than what
// none can, whatever the programs mean by theirs.
func TestScriptEndsItsTries(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	tests := []struct {
		name, fetcher string
		code          int
		says          string
	}{
		{"curl does not know its proxy yet", "exit 5", 1, "exit code 5"},
		{"wget, and the clock is not set yet", "exit 5", 1, "exit code 5"},
		{"wget's or curl's usage", "exit 2", 1, "exit code 2"},
		{"killed", "kill -9 $$", 1, "exit code 137"},
		{"half of it", `while [ $# -gt 1 ]; do case $1 in --output) echo half >"$2" ;; --output-document=*) echo half >"${1#*=}" ;; esac; shift; done`, 100, "is not the installer"},
		{"for another processor", `while [ $# -gt 1 ]; do case $1 in --output) cat other >"$2" ;; --output-document=*) cat other >"${1#*=}" ;; esac; shift; done`, 100, "another processor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fetcher := "curl"
			if strings.HasPrefix(tt.name, "wget") {
				fetcher = "wget"
			}
			dir, bin, p := t.TempDir(), tools(t), params()
			sum := sha256.Sum256(scriptFor(other))
			p.URL, p.SHA256, p.Dir, p.UnitDir, p.BinDir = "https://downloads.example/i", hex.EncodeToString(sum[:]), dir, dir, t.TempDir()
			text, err := p.script()
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{filepath.Join(dir, "first-boot"): text, filepath.Join(dir, "other"): string(scriptFor(other)), filepath.Join(bin, fetcher): "#!/bin/sh\n" + tt.fetcher + "\n"} {
				if err := os.WriteFile(name, []byte(content), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/bin/sh", filepath.Join(dir, "first-boot"))
			cmd.Env = []string{"PATH=" + bin}
			out, err := cmd.CombinedOutput()
			if err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if cmd.ProcessState.ExitCode() != tt.code || !strings.Contains(string(out), tt.says) {
				t.Errorf("exit code %d:\n%s", cmd.ProcessState.ExitCode(), out)
			}
			if _, err := os.Stat(filepath.Join(dir, "calls")); err == nil {
				t.Error("it was run")
			}
		})
	}
}

// program is the system's own, if it has one: what is first in PATH may be a
// wrapper that needs more than the script does.
func program(name string) (string, error) {
	for _, dir := range []string{"/usr/bin/", "/bin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name, nil
		}
	}
	return exec.LookPath(name)
}

// tools is a folder with no more programs than the script needs, one of them to
// fetch with, and a systemctl that notes what it is told.
func tools(t *testing.T, fetchers ...string) string {
	t.Helper()
	bin := t.TempDir()
	for _, name := range append([]string{"sha256sum", "rm", "mv", "chmod", "ln", "cat", "sh", "uname", "od"}, fetchers...) {
		p, err := program(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(p, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	fake := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s/disabled\n", bin)
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	return bin
}

func wgetrc(t *testing.T, ca string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "wgetrc")
	if err := os.WriteFile(p, []byte("ca_certificate = "+ca+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://x.example/i", "https://x.example/'$(reboot)'", "https://x\n.example/", "https://[::1]:8443/a%20b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkURL(s) != nil {
			return
		}
		// What is let in is one word to a shell.
		out, err := exec.Command("/bin/sh", "-c", "printf %s '"+s+"'").Output()
		if err != nil || string(out) != s {
			t.Errorf("%q became %q, %v", s, out, err)
		}
	})
}
