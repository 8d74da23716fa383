package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const soundBackup = `
domain = "vault.example.com" # not this table's

[backup]
recipients = ["age1e5k5jnwjq570n284j082hysuspze5c63mrh6jmh697y7zfs98p2sravda2"]
webhook_file = "alerts"

[backup.keep]
monthly = 60

[[backup.to]]
type        = "s3"
endpoint    = "https://fsn1.your-objectstorage.com"
bucket      = "backups"
credentials = "s3-primary"
lock_for    = "30d"

[[backup.to]]
type = "dir"
path = "/mnt/backup"
`

func TestParseBackup(t *testing.T) {
	got, err := ParseBackup("appliance.toml", []byte(soundBackup))
	if err != nil {
		t.Fatal(err)
	}
	want := Backup{
		Recipients: []string{"age1e5k5jnwjq570n284j082hysuspze5c63mrh6jmh697y7zfs98p2sravda2"}, WebhookFile: "alerts",
		Files: DefaultBackup().Files,
		Keep:  BackupKeep{Hourly: 48, Daily: 31, Weekly: 13, Monthly: 60},
		To: []BackupTo{
			{Type: "s3", Endpoint: "https://fsn1.your-objectstorage.com", Bucket: "backups", Credentials: "s3-primary", LockFor: 30 * 24 * time.Hour},
			{Type: "dir", Path: "/mnt/backup"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestBackupFaults(t *testing.T) {
	swap := func(old, text string) string { return strings.Replace(soundBackup, old, text, 1) }
	tests := []struct {
		name, text, want string
	}{
		{"no table", `domain = "x"`, "appliance.toml: has no table [backup]"},
		{"not TOML", "[backup", "appliance.toml:1: "},
		{"not a table", `backup = "dir"`, "appliance.toml:1: backup: a table is wanted"},
		{"an unknown key", swap("webhook_file", "webhook"), "appliance.toml:6: backup.webhook: unknown key"},
		{"no place", "[backup]\n", "backup.to: is required"},
		{"an unknown type", swap(`"dir"`, `"ftp"`), "backup.to[1].type"},
		{"a relative path", swap(`"/mnt/backup"`, `"backup"`), "appliance.toml:20: backup.to[1].path"},
		{"a bucket's key at a directory", swap(`path = "/mnt/backup"`, "path = \"/mnt/backup\"\nbucket = \"x\""), `backup.to[1].bucket: is only for type "s3"`},
		{"a directory's key at a bucket", swap(`lock_for    = "30d"`, `path = "/x"`), `backup.to[0].path: is only for type "dir"`},
		{"no bucket", swap(`bucket      = "backups"`, ""), "backup.to[0].bucket: is required"},
		{"no credentials", swap(`credentials = "s3-primary"`, ""), "backup.to[0].credentials: is required"},
		{"no URL", swap(`"https://fsn1.your-objectstorage.com"`, `"fsn1"`), "backup.to[0].endpoint"},
		{"a URL without a host", swap("https://fsn1.your-objectstorage.com", "https://"), "backup.to[0].endpoint"},
		{"in clear over the network", swap("https://fsn1", "http://fsn1"), "plain http is only for this machine"},
		{"in clear to an address", swap("https://fsn1.your-objectstorage.com", "http://10.99.0.1:9000"), "plain http is only for this machine"},
		{"a lock mode without a time", swap(`lock_for    = "30d"`, `lock_mode = "GOVERNANCE"`), "backup.to[0].lock_mode: says nothing"},
		{"an unknown addressing", swap(`lock_for    = "30d"`, `addressing = "dns"`), "backup.to[0].addressing"},
		{"a bucket with dots before the host", swap(`bucket      = "backups"`, "bucket = \"vault.backups\"\naddressing = \"virtual\""), "no certificate covers"},
		{"an endpoint with a path", swap(`your-objectstorage.com"`, `your-objectstorage.com/store"`), "has a path"},
		{"an unknown lock mode", swap(`lock_for    = "30d"`, "lock_for = \"30d\"\nlock_mode = \"strict\""), "backup.to[0].lock_mode"},
		{"nothing is kept", swap("monthly = 60", "hourly = 0\ndaily = 0\nweekly = 0\nmonthly = 0"), "backup.keep: must not"},
		{"a number below 0", swap("monthly = 60", "monthly = -1"), "backup.keep: must not"},
		{"a relative file", swap("[backup.keep]", "files = [\"etc\"]\n[backup.keep]"), "backup.files[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseBackup("appliance.toml", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestBackupDoesNotQuoteAPrivateKey(t *testing.T) {
	const secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQ"
	_, err := ParseBackup("f", []byte(strings.Replace(soundBackup, "age1e5k5jnwjq570n284j082hysuspze5c63mrh6jmh697y7zfs98p2sravda2", secret, 1)))
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v, want an error that doesn't show the key", err)
	}
}
