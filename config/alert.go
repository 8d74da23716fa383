package config

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"strconv"
	"time"
)

// The ways to speak to a mail server.
const (
	MailStartTLS = "starttls" // RFC 3207; port 587
	MailTLS      = "tls"      // RFC 8314; port 465
	MailPlain    = "plain"    // in clear: a mail server on this machine
)

// Alert is the table [alert]: who is told when a job fails.
type Alert struct {
	// WebhookFile holds the URL that is told: an absolute path, or the name of a
	// systemd credential. Empty: that of the table [backup].
	WebhookFile string `toml:"webhook_file"`
	// Repeat is how long the same failure of the same unit is not told again.
	Repeat time.Duration `toml:"repeat"`
	Mail   AlertMail     `toml:"mail"`
}

// AlertMail is the e-mail that is sent; none without a server.
type AlertMail struct {
	Server string   `toml:"server"` // host:port
	From   string   `toml:"from"`
	To     []string `toml:"to"`
	// Security is starttls, tls or plain; plain only to this machine.
	Security string `toml:"security"`
	// Credentials names the file with username and password: an absolute path,
	// or the name of a systemd credential. Empty: the server asks for none.
	Credentials string `toml:"credentials"`
	CAFile      string `toml:"ca_file"` // PEM; empty: the system's authorities
}

// DefaultAlert is the table before any file: nobody is told.
func DefaultAlert() Alert {
	return Alert{Repeat: 6 * time.Hour, Mail: AlertMail{Security: MailStartTLS}}
}

// LoadAlert reads and validates the table [alert] of a file and passes over what
// else is in it, except that the webhook of [backup] is used where [alert] names
// none. A file without the table gives the defaults. Its error is Faults: all of
// them.
func LoadAlert(file string) (Alert, error) {
	data, err := Read(file)
	if err != nil {
		return Alert{}, err
	}
	return ParseAlert(file, data)
}

// ParseAlert is LoadAlert for data that came from file.
func ParseAlert(file string, data []byte) (Alert, error) {
	all := struct {
		alert  Alert
		backup Backup
	}{DefaultAlert(), DefaultBackup()}
	at, _, f := decodeTables(file, data, map[string]any{"alert": &all.alert, "backup": &all.backup})
	a := all.alert
	a.check(f.Check(file, at))
	if a.WebhookFile == "" {
		a.WebhookFile = all.backup.WebhookFile
	}
	return a, f.Err()
}

func (a Alert) check(check func(string, error)) {
	if a.WebhookFile != "" {
		check("alert.webhook_file", checkCredential(a.WebhookFile))
	}
	if a.Repeat > 7*24*time.Hour {
		check("alert.repeat", fmt.Errorf("%v is longer than a week: a failure would be forgotten", a.Repeat))
	}
	m := a.Mail
	if m.Server == "" {
		for _, f := range []field{{"from", m.From}, {"credentials", m.Credentials}, {"ca_file", m.CAFile}} {
			if f.value != "" {
				check("alert.mail."+f.name, errors.New("says nothing without server"))
			}
		}
		if len(m.To) > 0 {
			check("alert.mail.to", errors.New("says nothing without server"))
		}
		return
	}
	host, port, err := net.SplitHostPort(m.Server)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
		check("alert.mail.server", fmt.Errorf(`%s is not of the form "smtp.example.com:587"`, shown(m.Server)))
	}
	check("alert.mail.from", checkAddress(m.From))
	if len(m.To) == 0 {
		check("alert.mail.to", errors.New("is required: who is told"))
	}
	for i, to := range m.To {
		check(fmt.Sprintf("alert.mail.to[%d]", i), checkAddress(to))
	}
	check("alert.mail.security", checkOneOf(m.Security, MailStartTLS, MailTLS, MailPlain))
	if ip := net.ParseIP(host); m.Security == MailPlain && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		check("alert.mail.security", fmt.Errorf("%q is only for a mail server on this machine, not %q", MailPlain, host))
	}
	if m.Credentials != "" {
		check("alert.mail.credentials", checkCredential(m.Credentials))
	}
	if m.CAFile != "" {
		check("alert.mail.ca_file", checkPath(m.CAFile))
	}
}

// checkAddress takes a bare address; nothing in it can end a header's line.
func checkAddress(s string) error {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return fmt.Errorf(`%q is not an e-mail address such as "ops@example.com"`, s)
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f {
			return fmt.Errorf("%q: only printable ASCII is allowed", s)
		}
	}
	return nil
}
