package config

import (
	"errors"
	"strings"
	"testing"

	"strongroom.example/config/recipient/recipienttest"
)

// Both lists of recipients take what can be encrypted to, and nothing else; the
// place of what is wrong is told, and no secret.
func TestRecipients(t *testing.T) {
	for _, v := range recipienttest.Vectors(t) {
		a := Default()
		a.Domain, a.Email = "vault.example.com", "ops@example.com"
		a.Escrow.Recipients, a.Backup.Recipients = []string{v.Text}, []string{v.Text}
		a.Backup.To = []BackupTo{{Type: BackupDir, Path: "/srv"}}
		text, err := Encode(a)
		if err != nil {
			t.Fatal(err)
		}
		_, backup := ParseBackup("", text)
		for field, err := range map[string]error{"escrow": a.Validate("a.toml", text), "backup": a.Validate("a.toml", text), "backup alone": backup} {
			field, _, _ := strings.Cut(field, " ")
			said := ""
			var faults Faults
			if errors.As(err, &faults) {
				for _, f := range faults {
					if f.Field == field+".recipients[0]" {
						said = f.Msg
					}
				}
			}
			if (said == "") != (v.Fault == "") || !strings.Contains(said, v.Fault) {
				t.Errorf("%s: %s: %q, want %q", v.Name, field, said, v.Fault)
			}
			if v.Secret != "" && strings.Contains(said, v.Secret) {
				t.Errorf("%s: %s: a private key is quoted", v.Name, field)
			}
		}
	}
}
