package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
)

// run is the program as a user calls it: exit code, and both outputs.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := New("1.2.3", "abcdef")
	var out, errOut bytes.Buffer
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errOut)
	c.SetIn(strings.NewReader(""))
	code = Report(&errOut, c.ExecuteContext(t.Context()))
	return code, out.String(), errOut.String()
}

func TestVersion(t *testing.T) {
	code, out, _ := run(t, "--version")
	if want := "strongroom-installer 1.2.3 (abcdef)\n"; code != 0 || out != want {
		t.Errorf("%d %q, want %q", code, out, want)
	}
}

func TestHelpSaysWhatItDoes(t *testing.T) {
	for _, verb := range []string{"plan", "install"} {
		code, out, _ := run(t, verb, "--help")
		if code != 0 || !strings.Contains(out, "first snapshot") || !strings.Contains(out, "VAULT_TOKEN") {
			t.Errorf("%s --help: %d\n%s", verb, code, out)
		}
	}
}

func TestUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown verb": {[]string{"instal"}, "unknown command"},
		"unknown flag": {[]string{"plan", "--nope"}, "unknown flag: --nope"},
		"arguments":    {[]string{"upgrade", "now"}, "unknown command"},
		"no such file": {[]string{"cloud-init", "now", "--url", "https://downloads.example.com/x"}, "now: no such file"},
		"two words":    {[]string{"install", "it", "now"}, "accepts at most 1 arg(s)"},
		"two files":    {[]string{"config", "check", "a", "b"}, "accepts 1 arg(s), received 2"},
		"no file":      {[]string{"config", "check", "/no/such/file"}, "/no/such/file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errOut := run(t, c.args...)
			if code != fault.Usage || !strings.Contains(errOut, c.want) || !strings.Contains(errOut, "→") {
				t.Errorf("code %d, want %d with %q and a hint:\n%s", code, fault.Usage, c.want, errOut)
			}
		})
	}
}

func TestConfigInit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.toml")
	code, out, errOut := run(t, "config", "init", file)
	if code != 0 || !strings.Contains(out, "wrote "+file) {
		t.Fatalf("%d\n%s%s", code, out, errOut)
	}
	b, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(b, config.ApplianceTemplate()) {
		t.Errorf("content differs from the template (%v)", err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, out, _ := run(t, "config", "init"); out != string(b) {
		t.Error("standard output holds something else")
	}
	// It is not overwritten, and what is missing in it is told.
	if code, _, errOut := run(t, "config", "init", file); code != fault.Usage || !strings.Contains(errOut, "is there already") {
		t.Errorf("second time: %d %s", code, errOut)
	}
	code, _, errOut = run(t, "config", "check", file)
	if code != fault.Usage || !strings.Contains(errOut, "domain: is required") || !strings.Contains(errOut, "email: is required") || !strings.Contains(errOut, "2 faults") {
		t.Errorf("check: %d %s", code, errOut)
	}
	fixed := strings.Replace(strings.Replace(string(b), `domain = ""`, `domain = "vault.example.com"`, 1), `email = ""`, `email = "ops@example.com"`, 1)
	if err := os.WriteFile(file, []byte(fixed), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := run(t, "config", "check", file); code != 0 {
		t.Errorf("check: %d %s%s", code, out, errOut)
	}
}

// given is options as from a command line with these flags.
func given(in string, terminal bool, flags ...string) (*options, *bytes.Buffer) {
	var out bytes.Buffer
	return &options{in: strings.NewReader(in), out: &out, terminal: terminal,
		changed: func(f string) bool { return slices.Contains(flags, f) }}, &out
}

const demoKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA0w8XugjbQZEMN3mzIKSys8rzBev7xZuaWwAfLOpTK6 me"

func TestOverride(t *testing.T) {
	o, _ := given("", false, "domain", "no-firewall", "recipient", "ssh-port")
	o.domain, o.email, o.noFirewall, o.recipients, o.sshPort = "a.example.com", "not given", true, []string{demoKey}, 2222
	cfg := config.Default()
	cfg.Email = "from the file"
	if err := o.override(&cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Domain != "a.example.com" || cfg.Email != "from the file" || cfg.Firewall.Manage || cfg.Escrow.Recipients[0] != demoKey || cfg.Firewall.SSHPort != 2222 {
		t.Errorf("%+v", cfg)
	}
}

func TestAsk(t *testing.T) {
	o, out := given("vault.example.com\n", true)
	cfg := config.Default()
	cfg.Email = "ops@example.com"
	if err := o.ask(t.Context(), &cfg); err != nil || cfg.Domain != "vault.example.com" {
		t.Errorf("%q, %v", cfg.Domain, err)
	}
	if got := out.String(); !strings.Contains(got, "Domain") || strings.Contains(got, "E-mail") {
		t.Errorf("asked: %s", got)
	}
	// Nobody there: nothing is asked, and Validate will tell.
	o, out = given("x\n", false)
	cfg = config.Default()
	if err := o.ask(t.Context(), &cfg); err != nil || cfg.Domain != "" || out.Len() > 0 {
		t.Errorf("%q, %v, %s", cfg.Domain, err, out)
	}
}

func TestAskYes(t *testing.T) {
	for answer, ok := range map[string]bool{"yes\n": true, " yes \n": true, "y\n": false, "\n": false, "": false, "no\n": false} {
		o, _ := given(answer, true)
		if err := o.askYes(t.Context(), "?", time.Minute); (err == nil) != ok {
			t.Errorf("%q: %v", answer, err)
		}
	}
	o := &options{in: blocked{}, out: new(bytes.Buffer)}
	if err := o.askYes(t.Context(), "?", time.Millisecond); err == nil || !strings.Contains(err.Error(), "no answer within 1ms") {
		t.Errorf("error = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.askYes(ctx, "?", time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// blocked is a terminal where nobody types.
type blocked struct{}

func (blocked) Read([]byte) (int, error) { select {} }

// listening is a network in which somebody listens on these ports.
type listening []int

func (listening) Lookup(context.Context, string) ([]netip.Addr, error) { return nil, nil }
func (listening) CAA(context.Context, string, []string) error          { return nil }
func (listening) Local() ([]netip.Addr, error)                         { return nil, nil }
func (l listening) Taken(_ string, port int) (bool, error)             { return slices.Contains(l, port), nil }

func TestLetsIn(t *testing.T) {
	for name, c := range map[string]struct {
		session string
		port    int
		from    []string
		listen  listening
		want    string // "": let in
	}{
		"session from anywhere":   {session: "198.51.100.7 5555 203.0.113.5 22", port: 22, from: []string{"0.0.0.0/0"}},
		"session from the range":  {session: "198.51.100.7 5555 203.0.113.5 22", port: 22, from: []string{"198.51.100.0/24"}},
		"mapped address":          {session: "::ffff:198.51.100.7 5555 203.0.113.5 22", port: 22, from: []string{"198.51.100.0/24"}},
		"IPv6":                    {session: "2001:db8::1 5555 2001:db8::2 22", port: 22, from: []string{"::/0"}},
		"outside the range":       {session: "198.51.100.7 5555 203.0.113.5 22", port: 22, from: []string{"10.0.0.0/8", "::/0"}, want: "comes from 198.51.100.7"},
		"another port":            {session: "198.51.100.7 5555 203.0.113.5 2222", port: 22, from: []string{"0.0.0.0/0"}, want: "by port 2222"},
		"odd session":             {session: "who knows", port: 22, want: "is not of the form"},
		"odd address":             {session: "x 1 y 22", port: 22, want: "SSH_CONNECTION"},
		"console":                 {port: 22, listen: listening{22}},
		"console, sshd elsewhere": {port: 2222, listen: listening{22}, want: "nothing listens on port 2222"},
	} {
		t.Run(name, func(t *testing.T) {
			err := letsIn(config.Firewall{SSHPort: c.port, SSHFrom: c.from}, c.session, "", c.listen)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
}

func TestBegin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	end, err := begin(path, "upgrade")
	if err != nil {
		t.Fatal(err)
	}
	var failed *fault.Error
	if _, err := begin(path, "install"); !errors.As(err, &failed) || failed.Hint == "" || !strings.Contains(err.Error(), "strongroom-installer upgrade, pid ") {
		t.Errorf("error = %v", err)
	}
	end()
	if end, err = begin(path, "install"); err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := begin(filepath.Join(path, "no", "folder"), "install"); errors.Is(err, fs.ErrNotExist) || err == nil {
		t.Errorf("error = %v", err)
	}
}

// Whoever writes a configuration wants every fault of it at once, from whichever
// verb he tries first, and no fault that only follows from another.
func TestEveryFaultAtOnce(t *testing.T) {
	const s3 = "[[backup.to]]\ntype = \"s3\"\nendpoint = \"https://s3.example.com\"\nbucket = \"b\"\n"
	for name, c := range map[string]struct {
		text       string
		want, not  []string
		backupKeys string
	}{
		"an unknown key beside bad values": {
			text: "domain = \"under_score\"\nemail = \"ops\"\ncolour = \"blue\"\n",
			want: []string{":1: domain:", ":2: email:", ":3: colour: unknown key"},
		},
		"no TOML": {
			text: "domain = \"x.example.com\nemail = \"\"\n",
			want: []string{":1: "}, not: []string{"domain:", "email:"},
		},
		"an unknown key and a bucket that the flag serves": {
			text: "domain = \"x.example.com\"\nemail = \"ops@example.com\"\ncolour = \"blue\"\n" + s3,
			want: []string{":3: colour: unknown key"}, not: []string{"credentials"}, backupKeys: "/root/s3.toml",
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "appliance.toml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			o, _ := given("", false)
			o.config, o.backupKeys = file, c.backupKeys
			cmd := installCommand("1.2.3")
			cmd.SetContext(t.Context())
			_, loaded := o.load(cmd)
			_, _, checked := run(t, "config", "check", file)
			for from, said := range map[string]string{"install": fmt.Sprint(loaded), "config check": checked} {
				for _, s := range c.want {
					if !strings.Contains(said, s) {
						t.Errorf("%s does not say %q:\n%s", from, s, said)
					}
				}
				for _, s := range c.not {
					if strings.Contains(said, s) {
						t.Errorf("%s says %q:\n%s", from, s, said)
					}
				}
			}
		})
	}
}

// docs/install.md names the bucket's key pair on the command line and not in the
// file; such a file is right.
func TestConfigCheckWithoutCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.toml")
	text := "domain = \"x.example.com\"\nemail = \"ops@example.com\"\n[[backup.to]]\ntype = \"s3\"\nendpoint = \"https://s3.example.com\"\nbucket = \"b\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := run(t, "config", "check", file)
	if code != 0 || !strings.Contains(out, "backup.to[0]") || !strings.Contains(out, "--backup-credentials") || !strings.Contains(out, "is right") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
}
