package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
)

// The kinds of places for backups.
const (
	BackupS3  = "s3"  // a bucket
	BackupDir = "dir" // a directory: a mounted disk or share
)

// Backup is the table [backup]: where snapshots go, who can open them, how
// long they are kept.
type Backup struct {
	// Recipients are age or SSH public keys, beside the drill key.
	Recipients []string `toml:"recipients"`
	// Files are kept beside each snapshot: absolute paths.
	Files []string `toml:"files"`
	// WebhookFile holds the URL that is told of failures. It is a file since
	// such URLs tend to hold a secret.
	WebhookFile string     `toml:"webhook_file"`
	Keep        BackupKeep `toml:"keep"`
	To          []BackupTo `toml:"to"`
}

// BackupKeep is for how many hours, days, weeks and months one snapshot each
// is kept.
type BackupKeep struct {
	Hourly  int `toml:"hourly"`
	Daily   int `toml:"daily"`
	Weekly  int `toml:"weekly"`
	Monthly int `toml:"monthly"`
}

// BackupTo is one place for snapshots.
type BackupTo struct {
	Type string `toml:"type"`
	// Path is the directory's.
	Path string `toml:"path"`
	// The others are the bucket's.
	Endpoint string `toml:"endpoint"` // URL
	Region   string `toml:"region"`
	Bucket   string `toml:"bucket"`
	Prefix   string `toml:"prefix"`
	CAFile   string `toml:"ca_file"`
	// Credentials names the file with access_key and secret_key: an absolute
	// path, or the name of a systemd credential.
	Credentials string        `toml:"credentials"`
	LockFor     time.Duration `toml:"lock_for"`
	LockMode    string        `toml:"lock_mode"`
	// Addressing is where the bucket's name stands in a request: AddressPath where empty.
	Addressing string `toml:"addressing"`
}

// Where a bucket's name stands in a request.
const (
	AddressPath    = "path"    // https://HOST/BUCKET/…
	AddressVirtual = "virtual" // https://BUCKET.HOST/…
)

// DefaultBackup is the table before any file: no place yet.
func DefaultBackup() Backup {
	return Backup{
		Files: []string{machine.FrontData, machine.Etc},
		Keep:  BackupKeep{Hourly: 48, Daily: 31, Weekly: 13, Monthly: 24},
	}
}

// LoadBackup reads and validates the table [backup] of a file and passes over
// what else is in it. Its error is Faults: all of them.
func LoadBackup(file string) (Backup, error) {
	data, err := Read(file)
	if err != nil {
		return Backup{}, err
	}
	return ParseBackup(file, data)
}

// ParseBackup is LoadBackup for data that came from file.
func ParseBackup(file string, data []byte) (Backup, error) {
	b := DefaultBackup()
	at, found, f := decodeTables(file, data, map[string]any{"backup": &b})
	if found == nil {
		return b, f.Err()
	}
	if !found["backup"] {
		return b, Faults{{File: file, Msg: "has no table [backup]"}}
	}
	check := f.Check(file, at)
	b.check(check)
	if len(b.To) == 0 {
		check("backup.to", errors.New("is required: at least one place for snapshots, [[backup.to]]"))
	}
	return b, f.Err()
}

// CheckHidden refuses files that the machine's job which packs them cannot see: they would
// be missing from each backup, and nobody would be told.
func (b Backup) CheckHidden(check func(string, error)) {
	for i, p := range b.Files {
		for _, hidden := range machine.HiddenFromPacking() {
			if p == hidden || strings.HasPrefix(p, hidden+"/") {
				check(fmt.Sprintf("backup.files[%d]", i), fmt.Errorf("%q is hidden from the job that packs the files (%s): keep it elsewhere, such as in /srv", p, hidden))
			}
		}
	}
}

func (b Backup) check(check func(string, error)) {
	checkRecipients("backup.recipients", b.Recipients, check)
	for i, p := range b.Files {
		check(fmt.Sprintf("backup.files[%d]", i), checkPath(p))
	}
	if b.WebhookFile != "" {
		check("backup.webhook_file", checkCredential(b.WebhookFile))
	}
	k := b.Keep
	if k.Hourly < 0 || k.Daily < 0 || k.Weekly < 0 || k.Monthly < 0 || k == (BackupKeep{}) {
		check("backup.keep", errors.New("must not be below 0, nor all 0: nothing would be kept"))
	}
	for _, f := range []struct {
		name    string
		n, most int
	}{{"hourly", k.Hourly, 24 * 366}, {"daily", k.Daily, 3660}, {"weekly", k.Weekly, 530}, {"monthly", k.Monthly, 120}} {
		if f.n > f.most {
			check("backup.keep."+f.name, fmt.Errorf("%d is more than %d: hourly ones are kept for a year at most, the others for ten", f.n, f.most))
		}
	}
	for i, t := range b.To {
		at := fmt.Sprintf("backup.to[%d].", i)
		check(at+"type", checkOneOf(t.Type, BackupS3, BackupDir))
		switch t.Type {
		case BackupDir:
			t.checkDir(at, check)
		case BackupS3:
			t.checkS3(at, check)
		}
	}
}

func checkRecipients(field string, list []string, check func(string, error)) {
	for i, s := range list {
		_, err := recipient.Parse(s)
		check(fmt.Sprintf("%s[%d]", field, i), err)
	}
}

func (t BackupTo) checkDir(at string, check func(string, error)) {
	check(at+"path", PlaceFolder(t.Path))
	for _, f := range []field{
		{"endpoint", t.Endpoint}, {"region", t.Region}, {"bucket", t.Bucket}, {"prefix", t.Prefix},
		{"ca_file", t.CAFile}, {"credentials", t.Credentials}, {"lock_mode", t.LockMode}, {"addressing", t.Addressing},
	} {
		if f.value != "" {
			check(at+f.name, fmt.Errorf("is only for type %q", BackupS3))
		}
	}
	if t.LockFor != 0 {
		check(at+"lock_for", fmt.Errorf("is only for type %q", BackupS3))
	}
}

// checkEndpoint says now what the jobs would say at the first snapshot: the key
// pair and the bucket's name go over plain HTTP to this machine alone.
func (t BackupTo) checkEndpoint() error {
	endpoint := t.Endpoint
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf(`%s is not a URL such as "https://fsn1.your-objectstorage.com"`, shown(endpoint))
	}
	if p := strings.Trim(u.Path, "/"); p != "" && p != t.Bucket {
		return fmt.Errorf("%s has a path, which no S3 request can be signed for: a bucket belongs to bucket, what its objects begin with to prefix", shown(endpoint))
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); u.Scheme == "http" && host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s: plain http is only for this machine itself, such as 127.0.0.1; want https", shown(endpoint))
	}
	return nil
}

func (t BackupTo) checkS3(at string, check func(string, error)) {
	if t.Path != "" {
		check(at+"path", fmt.Errorf("is only for type %q", BackupDir))
	}
	check(at+"endpoint", t.checkEndpoint())
	if t.Bucket == "" {
		check(at+"bucket", errors.New("is required"))
	}
	if t.CAFile != "" {
		check(at+"ca_file", checkPath(t.CAFile))
	}
	check(at+"credentials", checkCredential(t.Credentials))
	if t.Addressing != "" {
		check(at+"addressing", checkOneOf(t.Addressing, AddressPath, AddressVirtual))
	}
	if t.Addressing == AddressVirtual && strings.Contains(t.Bucket, ".") {
		check(at+"addressing", fmt.Errorf("%q cannot stand before the host: no certificate covers a bucket's name with dots; use %q", t.Bucket, AddressPath))
	}
	if t.LockMode != "" {
		check(at+"lock_mode", checkOneOf(t.LockMode, "GOVERNANCE", "COMPLIANCE"))
	}
	if t.LockFor > longestKept {
		check(at+"lock_for", fmt.Errorf("%v is more than %s: nobody can delete what is locked, not even the bucket's owner", t.LockFor, days(longestKept)))
	}
	if t.LockMode != "" && t.LockFor == 0 {
		check(at+"lock_mode", errors.New("says nothing without lock_for"))
	}
}

// checkCredential accepts an absolute path or the name of a systemd credential.
func checkCredential(s string) error {
	if s == "" {
		return errors.New("is required: a file's absolute path, or a systemd credential's name")
	}
	if strings.Contains(s, "/") {
		return checkSecretFile(s)
	}
	if checkName(s) != nil {
		return errors.New("is neither a file's absolute path nor a systemd credential's name (it is not shown, as it may be the secret itself)")
	}
	return nil
}
