package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseAlert(t *testing.T) {
	for name, tc := range map[string]struct{ src, webhook string }{
		"nothing":               {"", ""},
		"the backup's webhook":  {"[backup]\nwebhook_file = \"backup-webhook\"\n", "backup-webhook"},
		"its own goes before":   {"[backup]\nwebhook_file = \"backup-webhook\"\n[alert]\nwebhook_file = \"/etc/hook\"\n", "/etc/hook"},
		"other tables are left": {"nonsense = 1\n[vault]\nversion = 7\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAlert("f", []byte(tc.src))
			if err != nil {
				t.Fatal(err)
			}
			if a.WebhookFile != tc.webhook || a.Repeat != 6*time.Hour || a.Mail.Security != MailStartTLS {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestAlertFaults(t *testing.T) {
	mail := "[alert.mail]\nserver = \"mail.example.com:587\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n"
	for name, tc := range map[string]struct {
		src   string
		field string // of the only fault
		line  int
	}{
		"unknown key":           {"[alert]\nwebhok = \"x\"\n", "alert.webhok", 2},
		"bad webhook":           {"[alert]\nwebhook_file = \"a b\"\n", "alert.webhook_file", 2},
		"repeat forever":        {"[alert]\nrepeat = \"30d\"\n", "alert.repeat", 2},
		"no server":             {"[alert.mail]\nfrom = \"a@example.com\"\n", "alert.mail.from", 2},
		"no recipient":          {strings.Replace(mail, "to = [\"b@example.com\"]\n", "", 1), "alert.mail.to", 0},
		"no port":               {strings.Replace(mail, ":587", "", 1), "alert.mail.server", 2},
		"port zero":             {strings.Replace(mail, ":587", ":0", 1), "alert.mail.server", 2},
		"a name beside address": {strings.Replace(mail, "a@example.com", "A <a@example.com>", 1), "alert.mail.from", 3},
		"a header in it":        {strings.Replace(mail, "b@example.com", "b@example.com\\r\\nBcc: c@example.com", 1), "alert.mail.to[0]", 4},
		"plain over a network":  {mail + "security = \"plain\"\n", "alert.mail.security", 5},
		"unknown security":      {mail + "security = \"ssl\"\n", "alert.mail.security", 5},
		"relative authority":    {mail + "ca_file = \"ca.crt\"\n", "alert.mail.ca_file", 5},
		"bad syntax":            {"[alert\n", "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseAlert("f", []byte(tc.src))
			var faults Faults
			if !errors.As(err, &faults) || len(faults) != 1 {
				t.Fatalf("error %v, want one fault", err)
			}
			if faults[0].Field != tc.field || tc.line != 0 && faults[0].Line != tc.line {
				t.Errorf("fault %+v, want %s in line %d", faults[0], tc.field, tc.line)
			}
		})
	}
	if _, err := ParseAlert("f", []byte(strings.Replace(mail, "mail.example.com:587", "127.0.0.1:25", 1)+"security = \"plain\"\n")); err != nil {
		t.Errorf("plain on this machine: %v", err)
	}
}

func TestLoadAudit(t *testing.T) {
	for name, tc := range map[string]struct{ src, field string }{
		"defaults":          {"", ""},
		"all":               {"[audit]\nrotate_mb = 1\nrotate_after = \"1h\"\nkeep = \"1d\"\nkeep_mb = 2\nwarn_percent = 50\nfull_percent = 60\n", ""},
		"no size":           {"[audit]\nrotate_mb = 0\n", "audit.rotate_mb"},
		"no time":           {"[audit]\nrotate_after = \"1s\"\n", "audit.rotate_after"},
		"kept too short":    {"[audit]\nkeep = \"1h\"\n", "audit.keep"},
		"kept too little":   {"[audit]\nkeep_mb = 63\n", "audit.keep_mb"},
		"warns never":       {"[audit]\nwarn_percent = 0\n", "audit.warn_percent"},
		"full before warn":  {"[audit]\nfull_percent = 80\n", "audit.full_percent"},
		"full is too late":  {"[audit]\nfull_percent = 100\n", "audit.full_percent"},
		"of the wrong kind": {"[audit]\nkeep_mb = \"4G\"\n", "audit.keep_mb"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "appliance.toml")
			if err := os.WriteFile(file, []byte(tc.src), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadAudit(file)
			var faults Faults
			if tc.field == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != tc.field {
				t.Errorf("error %v, want a fault of %s", err, tc.field)
			}
		})
	}
	if _, err := LoadAudit(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
