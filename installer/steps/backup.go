package steps

import (
	"fmt"
	"slices"
	"strings"

	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// SealSecrets makes a configuration fit to be kept on the machine: where it names
// a file with a secret, it names a systemd credential afterwards. given tells
// which credential is made of which file. forS3, where it is not empty, is the
// file for buckets that name none. What is already a credential's name stays.
func SealSecrets(a *config.Appliance, forS3 string) (given map[string]string) {
	given = sealBuckets(&a.Backup, forS3)
	for _, f := range []struct {
		into *string
		name string
	}{
		{&a.Backup.WebhookFile, machine.CredBackupWebhook},
		{&a.Alert.WebhookFile, machine.CredAlertWebhook},
		{&a.Alert.Mail.Credentials, machine.CredAlertSMTP},
		{&a.TLS.ACME.EAB, machine.CredACMEEAB},
		{&a.TLS.ACME.FallbackEAB, machine.CredACMEFallbackEAB},
		{&a.TLS.ACME.DNSToken, machine.CredACMEDNSToken},
	} {
		if strings.Contains(*f.into, "/") {
			given[f.name] = *f.into
			*f.into = f.name
		}
	}
	return given
}

func sealBuckets(b *config.Backup, forS3 string) map[string]string {
	given := map[string]string{}
	// Copied, since the caller's slice is not ours to change.
	b.To = slices.Clone(b.To)
	byFile := map[string]string{}
	taken := func(name string) bool {
		return given[name] != "" || slices.ContainsFunc(b.To, func(to config.BackupTo) bool { return to.Credentials == name })
	}
	if forS3 != "" {
		given[machine.CredS3] = forS3
		byFile[forS3] = machine.CredS3
	}
	for i := range b.To {
		to := &b.To[i]
		switch {
		case to.Type != config.BackupS3:
		case to.Credentials == "" && forS3 != "":
			to.Credentials = machine.CredS3
		case strings.Contains(to.Credentials, "/"):
			name, ok := byFile[to.Credentials]
			for n := 1; !ok; n++ {
				name = machine.CredS3
				if n > 1 {
					name = fmt.Sprintf("%s-%d", machine.CredS3, n)
				}
				ok = !taken(name)
			}
			byFile[to.Credentials], given[name] = name, to.Credentials
			to.Credentials = name
		}
	}
	return given
}
