// Package cloudinit writes the user data by which a new machine installs the
// appliance on itself, unattended.
//
// Whatever runs on the machine can read its user data, and so can the provider:
// there is no secret in it, and a configuration that needs one is refused.
package cloudinit

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// MaxSize is Hetzner's limit on user data, in bytes.
const MaxSize = 32 << 10

// Dir is where the machine keeps what it is told, and the installer.
const Dir = "/root/strongroom"

// Params are what the user data is made of.
type Params struct {
	// URL is where the machine gets the installer: https.
	URL string
	// SHA256 is what it must be, hex.
	SHA256 string
	// Config is a valid configuration.
	Config config.Appliance
	// Version is for the comment.
	Version string

	// Dir, UnitDir and BinDir are other places than Dir, systemd's and that of
	// root's programs, for tests.
	Dir, UnitDir, BinDir string
}

//go:embed first-boot.sh.tmpl
var scriptText string

// unit runs the script until it has ended well: what is wrong on a first boot
// (a name that does not point to the machine yet, say) is often right a little
// later.
const unit = `[Unit]
Description=Install Strongroom
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=%[1]s/first-boot
Environment=HOME=/root
Restart=on-failure
RestartSec=1min
# The command line or the configuration is wrong, or the download is not what
# was pinned or is for another processor: trying again changes nothing.
RestartPreventExitStatus=2 100
TimeoutStartSec=30min

[Install]
WantedBy=multi-user.target
`

const unitName = machine.UnitFirstBoot

type file struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions"`
	Content     string `yaml:"content"`
}

// UserData is the whole of it: cloud-config, at most MaxSize bytes.
func UserData(p Params) ([]byte, error) {
	if err := errors.Join(checkURL(p.URL), checkSum(p.SHA256), noSecret(p.Config)); err != nil {
		return nil, err
	}
	if p.Dir == "" {
		p.Dir = Dir
	}
	if p.UnitDir == "" {
		p.UnitDir = machine.UnitDir
	}
	if p.BinDir == "" {
		p.BinDir = "/usr/local/sbin"
	}
	text, err := config.Encode(p.Config)
	if err != nil {
		return nil, err
	}
	script, err := p.script()
	if err != nil {
		return nil, err
	}
	body, err := yaml.Marshal(struct {
		Files []file     `yaml:"write_files"`
		Run   [][]string `yaml:"runcmd"`
	}{
		Files: []file{
			{p.Dir + "/appliance.toml", "0600", string(text)},
			{p.Dir + "/first-boot", "0700", script},
			{p.UnitDir + "/" + unitName, "0644", fmt.Sprintf(unit, p.Dir)},
		},
		Run: [][]string{
			{"systemctl", "daemon-reload"},
			{"systemctl", "enable", unitName},
			{"systemctl", "start", "--no-block", unitName},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("user data: %w", err)
	}
	out := fmt.Appendf(nil, "#cloud-config\n# Written by strongroom-installer %s: installs Vault at https://%s.\n# There is no secret in it. Progress: journalctl -f -u %s\n%s",
		p.Version, p.Config.Domain, unitName, body)
	if len(out) > MaxSize {
		return nil, fmt.Errorf("the user data has %d bytes, %d are allowed: take something out of the configuration and add it on the machine", len(out), MaxSize)
	}
	return out, nil
}

func (p Params) script() (string, error) {
	t, err := template.New("first-boot").Option("missingkey=error").Parse(scriptText)
	if err != nil {
		return "", fmt.Errorf("user data: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]string{"URL": p.URL, "SHA256": strings.ToLower(p.SHA256), "Dir": p.Dir, "BinDir": p.BinDir, "Unit": unitName, "UnitFile": p.UnitDir + "/" + unitName}); err != nil {
		return "", fmt.Errorf("user data: %w", err)
	}
	return b.String(), nil
}

// checkURL lets in only what stands for itself between quotes in a shell.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("--url: %w", err)
	case u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("--url %q: an https URL is needed", s)
	case u.User != nil:
		return errors.New("--url: it holds a user or password, and whoever reads the user data would have it")
	}
	for _, r := range s {
		if r <= ' ' || r > '~' || strings.ContainsRune(`'"\`+"`", r) {
			return fmt.Errorf("--url %q: it can't hold %q; escape it with %%", s, r)
		}
	}
	return nil
}

func checkSum(s string) error {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		return fmt.Errorf("--sha256 %q: want the 64 hex digits that sha256sum prints", s)
	}
	return nil
}

// noSecret refuses what a fresh machine would need a file or a disk for that
// user data doesn't bring: a secret's, or another that nobody has put there.
func noSecret(c config.Appliance) error {
	var errs []error
	refuse := func(field, what string) {
		errs = append(errs, fmt.Errorf("%s: %s can't be in user data, which others can read; leave it out, and add it on the machine with install", field, what))
	}
	// What isn't there when the installation begins would keep it trying for ever.
	absent := func(field, what string) {
		errs = append(errs, fmt.Errorf("%s: %s is not on a new machine; leave it out, put it there afterwards, and add it with install", field, what))
	}
	if c.TLS.Mode == config.TLSFiles {
		refuse("tls.mode", "a certificate's key")
	}
	for _, f := range []struct{ field, value, what string }{
		{"tls.acme.eab", c.TLS.ACME.EAB, "the key of an account at the authority"},
		{"tls.acme.fallback_eab", c.TLS.ACME.FallbackEAB, "the key of an account at the authority"},
		{"tls.acme.dns_token", c.TLS.ACME.DNSToken, "a DNS provider's token"},
	} {
		if f.value != "" {
			refuse(f.field, f.what)
		}
	}
	if c.TLS.ACME.CAFile != "" {
		absent("tls.acme.ca_file", "the authority's certificate")
	}
	if c.Alert.Mail.CAFile != "" {
		absent("alert.mail.ca_file", "the mail server's authority")
	}
	for i, p := range c.Node.Peers {
		if p.CACertFile != "" {
			absent(fmt.Sprintf("node.peer[%d].ca_cert_file", i), "the node's authority")
		}
	}
	for i, to := range c.Backup.To {
		switch to.Type {
		case config.BackupS3:
			refuse(fmt.Sprintf("backup.to[%d]", i), "a bucket's credentials")
		case config.BackupDir:
			absent(fmt.Sprintf("backup.to[%d].path", i), "a folder or disk for backups")
		}
	}
	if c.Backup.WebhookFile != "" {
		refuse("backup.webhook_file", "a webhook's URL")
	}
	if c.Alert.WebhookFile != "" {
		refuse("alert.webhook_file", "a webhook's URL")
	}
	if c.Alert.Mail.Credentials != "" {
		refuse("alert.mail.credentials", "a mail server's password")
	}
	text, err := config.Encode(c)
	if err != nil {
		return err
	}
	for _, mark := range []string{"AGE-SECRET-KEY-", "PRIVATE KEY", "hvs.", "hvb."} {
		if bytes.Contains(bytes.ToUpper(text), []byte(strings.ToUpper(mark))) {
			errs = append(errs, errors.New("the configuration holds what looks like a private key or a token"))
			break
		}
	}
	return errors.Join(errs...)
}
