package steps

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

func TestSealSecrets(t *testing.T) {
	s3 := func(credentials string) config.BackupTo {
		return config.BackupTo{Type: config.BackupS3, Credentials: credentials}
	}
	for name, c := range map[string]struct {
		to    []config.BackupTo
		forS3 string
		names []string
		given map[string]string
	}{
		"a file":              {to: []config.BackupTo{s3("/root/a")}, names: []string{"backup-s3"}, given: map[string]string{"backup-s3": "/root/a"}},
		"a name":              {to: []config.BackupTo{s3("backup-s3")}, names: []string{"backup-s3"}, given: map[string]string{}},
		"the flag":            {to: []config.BackupTo{s3("")}, forS3: "/root/f", names: []string{"backup-s3"}, given: map[string]string{"backup-s3": "/root/f"}},
		"two files":           {to: []config.BackupTo{s3("/a"), s3("/b")}, names: []string{"backup-s3", "backup-s3-2"}, given: map[string]string{"backup-s3": "/a", "backup-s3-2": "/b"}},
		"one file twice":      {to: []config.BackupTo{s3("/a"), s3("/a")}, names: []string{"backup-s3", "backup-s3"}, given: map[string]string{"backup-s3": "/a"}},
		"a name, then a file": {to: []config.BackupTo{s3("backup-s3"), s3("/b")}, names: []string{"backup-s3", "backup-s3-2"}, given: map[string]string{"backup-s3-2": "/b"}},
		"the flag and a file": {to: []config.BackupTo{s3(""), s3("/b")}, forS3: "/f", names: []string{"backup-s3", "backup-s3-2"}, given: map[string]string{"backup-s3": "/f", "backup-s3-2": "/b"}},
		"a directory":         {to: []config.BackupTo{{Type: config.BackupDir, Path: "/mnt"}}, names: []string{""}, given: map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			a := config.Default()
			a.Backup.To = c.to
			before := c.to[0].Credentials
			given := SealSecrets(&a, c.forS3)
			if !maps.Equal(given, c.given) {
				t.Errorf("given = %v, want %v", given, c.given)
			}
			for i, want := range c.names {
				if got := a.Backup.To[i].Credentials; got != want {
					t.Errorf("place %d: %q, want %q", i, got, want)
				}
			}
			if c.to[0].Credentials != before {
				t.Error("the caller's slice was changed")
			}
		})
	}
	a := config.Default()
	a.Backup.WebhookFile, a.Alert.WebhookFile, a.Alert.Mail.Credentials = "/w", "/x", "alert-smtp"
	if given := SealSecrets(&a, ""); !maps.Equal(given, map[string]string{"backup-webhook": "/w", "alert-webhook": "/x"}) || a.Alert.Mail.Credentials != "alert-smtp" {
		t.Errorf("given = %v, %+v", given, a.Alert)
	}
}

// keyed is a machine with the folder for credentials.
func keyed(t *testing.T) (*vps, *Env) {
	t.Helper()
	v := newVPS(t)
	for _, d := range []string{machine.Etc, machine.CredentialDir, machine.EscrowDir} {
		v.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	return v, v.env()
}

func (v *vps) jobKeys(t *testing.T, e *Env) (engine.Result, error) {
	t.Helper()
	return (&engine.Engine{Steps: []engine.Step{jobKeys{e}}, Out: new(bytes.Buffer), Now: e.Host.Now}).Install(t.Context())
}

func TestJobKeys(t *testing.T) {
	v, e := keyed(t)
	if _, err := v.jobKeys(t, e); err != nil {
		t.Fatal(err)
	}
	secret, err := e.openCredential(t.Context(), machine.CredDrillKey, machine.CredentialFile(machine.CredDrillKey))
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(secret)))
	if err != nil || id.Recipient().String()+"\n" != string(v.Files[machine.DrillKeyPub].Data) {
		t.Errorf("the drill's key and its public half: %v", err)
	}
	seed, err := e.openCredential(t.Context(), machine.CredDrillSigningKey, machine.CredentialFile(machine.CredDrillSigningKey))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(seed)))
	if err != nil || len(raw) != ed25519.SeedSize {
		t.Fatalf("the signing key: %v", err)
	}
	pub := ed25519.NewKeyFromSeed(raw).Public().(ed25519.PublicKey)
	if want := "ed25519 " + base64.StdEncoding.EncodeToString(pub) + "\n"; string(v.Files[machine.DrillSigningPub].Data) != want {
		t.Errorf("the signing key's public half: %q", v.Files[machine.DrillSigningPub].Data)
	}
	// A public half that is lost or wrong is derived; the key stays.
	delete(v.Files, machine.DrillKeyPub)
	v.Files[machine.DrillSigningPub].Data = []byte("another")
	if _, err := v.jobKeys(t, e); err != nil {
		t.Fatal(err)
	}
	again, err := e.openCredential(t.Context(), machine.CredDrillKey, machine.CredentialFile(machine.CredDrillKey))
	if err != nil || !bytes.Equal(again, secret) || string(v.Files[machine.DrillKeyPub].Data) != id.Recipient().String()+"\n" || string(v.Files[machine.DrillSigningPub].Data) == "another" {
		t.Errorf("after the loss of the public halves: %v", err)
	}
	if res, err := v.jobKeys(t, e); err != nil || res.Changes != 0 {
		t.Errorf("one more run: %d changes, %v", res.Changes, err)
	}
}

// The keyring holds what the jobs sign with, here and in the escrow; a machine that has
// none gets it, and the keys of a lost machine, which came with its escrow, are added.
func TestKeyring(t *testing.T) {
	v, e := keyed(t)
	read := func() *signing.Keyring {
		t.Helper()
		if !bytes.Equal(v.Files[machine.KeyringFile].Data, v.Files[machine.KeyringEscrow].Data) {
			t.Fatal("the escrow's is another")
		}
		r, err := signing.ParseKeyring(v.Files[machine.KeyringFile].Data)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	public := func(name string) ed25519.PublicKey {
		t.Helper()
		secret, err := e.openCredential(t.Context(), name, machine.CredentialFile(name))
		if err != nil {
			t.Fatal(err)
		}
		key, err := signing.ParseKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		return key.Public().(ed25519.PublicKey)
	}
	install := func(changes int) {
		t.Helper()
		if res, err := v.jobKeys(t, e); err != nil || changes >= 0 && res.Changes != changes {
			t.Fatalf("%d changes, want %d: %v\n%s", res.Changes, changes, err, v.Files[machine.KeyringFile].Data)
		}
	}
	install(-1)
	first := public(machine.CredSnapshotSigningKey)
	if r := read(); len(r.Keys) != 2 || r.Signs("snapshot", first) != nil || r.Signs("drill", public(machine.CredDrillSigningKey)) != nil || r.Signs("snapshot", public(machine.CredDrillSigningKey)) == nil {
		t.Errorf("%+v", r)
	}
	install(0)
	// An upgrade of a machine that signs nothing yet.
	for _, f := range []string{machine.KeyringFile, machine.KeyringEscrow, machine.CredentialFile(machine.CredSnapshotSigningKey)} {
		delete(v.Files, f)
	}
	install(3)
	second := public(machine.CredSnapshotSigningKey)
	if second.Equal(first) || read().Signs("snapshot", second) != nil {
		t.Error("the new key is not in force")
	}
	// Half of it lost, a kill in between included.
	for _, lost := range []string{machine.KeyringFile, machine.KeyringEscrow} {
		before := v.Files[lost].Data
		delete(v.Files, lost)
		install(1)
		if len(read().Keys) != 2 || read().Signs("snapshot", second) != nil {
			t.Errorf("after the loss of %s: %s", lost, before)
		}
	}
	// The key lost: a new one signs, and the old one still verifies.
	delete(v.Files, machine.CredentialFile(machine.CredSnapshotSigningKey))
	install(-1)
	third := public(machine.CredSnapshotSigningKey)
	if r := read(); len(r.Keys) != 3 || r.Signs("snapshot", third) != nil || r.Signs("snapshot", second) == nil {
		t.Errorf("%+v", r)
	}
	install(0)
	// Of a lost machine.
	lost := &signing.Keyring{}
	theirs := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	lost.Use("snapshot", "lost.example.com", theirs, e.Host.Now())
	text, err := lost.Encode()
	if err != nil {
		t.Fatal(err)
	}
	v.Files[machine.KeyringEscrow].Data = text
	install(2)
	if r := read(); len(r.Keys) != 4 || r.Signs("snapshot", theirs) == nil || r.Signs("snapshot", third) != nil {
		t.Errorf("%+v", r)
	}
	install(0)
	v.Files[machine.KeyringFile].Data = []byte("{")
	if _, err := v.jobKeys(t, e); err == nil || !strings.Contains(err.Error(), machine.KeyringFile) {
		t.Errorf("a damaged keyring: %v", err)
	}
}

func TestGivenSecretsAreSealed(t *testing.T) {
	const canary = "canary-secret-key"
	v, e := keyed(t)
	if _, err := v.jobKeys(t, e); err != nil {
		t.Fatal(err)
	}
	e.Config.Backup.To = []config.BackupTo{{Type: config.BackupS3, Credentials: machine.CredS3}}
	operatorMust := func(what, want string) {
		t.Helper()
		_, err := v.jobKeys(t, e)
		var failed *fault.Error
		if !errors.As(err, &failed) || failed.Code != fault.Operator || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		// The command line would take it for the configuration's own, and end with 2.
		if faults := (config.Faults{}); errors.As(err, &faults) {
			t.Errorf("%s: the file's faults are told as the configuration's", what)
		}
		if err != nil && strings.Contains(err.Error()+failed.Hint, canary) {
			t.Errorf("%s: the error quotes the secret", what)
		}
	}
	operatorMust("nobody gave it", `names the credential "backup-s3"`)
	e.Given = map[string]string{machine.CredS3: "/root/s3.toml", machine.CredBackupWebhook: "/root/hook"}
	operatorMust("no such file", "backup-s3")
	for what, text := range map[string]string{
		"one of two":   "secret_key = \"" + canary + "\"\n",
		"a third":      "access_key = \"a\"\nsecret_key = \"" + canary + "\"\nmore = 1\n",
		"not TOML":     canary + "\n",
		"empty values": "access_key = \"\"\nsecret_key = \"\"\n",
	} {
		v.Files["/root/s3.toml"] = &host.Node{Data: []byte(text)}
		operatorMust(what, "/root/s3.toml:")
	}
	good := []byte("access_key = \"a\"\nsecret_key = \"" + canary + "\"\n")
	v.Files["/root/s3.toml"] = &host.Node{Data: good}
	v.Files["/root/hook"] = &host.Node{Data: []byte("not a URL\n")}
	operatorMust("no URL", "holds no URL")
	v.Files["/root/hook"].Data = []byte("https://hooks.example.com/" + canary + "\n")
	if _, err := v.jobKeys(t, e); err != nil {
		t.Fatal(err)
	}
	sealed := func() string {
		t.Helper()
		b, err := e.openCredential(t.Context(), machine.CredS3, machine.CredentialFile(machine.CredS3))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if sealed() != string(good) {
		t.Error("another content is sealed")
	}
	for p, n := range v.Files {
		if !strings.HasPrefix(p, "/root/") && bytes.Contains(n.Data, []byte(canary)) {
			t.Errorf("the secret is in %s", p)
		}
	}
	for _, c := range v.Calls {
		if strings.Contains(c, canary) {
			t.Errorf("the secret is in the command %q", c)
		}
	}
	// The files may go; a new key pair takes the old one's place.
	delete(v.Files, "/root/hook")
	next := []byte("access_key = \"b\"\nsecret_key = \"another\"\n")
	v.Files["/root/s3.toml"].Data = next
	if res, err := v.jobKeys(t, e); err != nil || res.Changes != 1 || sealed() != string(next) {
		t.Errorf("a new key pair: %d changes, %v", res.Changes, err)
	}
	delete(v.Files, "/root/s3.toml")
	if res, err := v.jobKeys(t, e); err != nil || res.Changes != 0 {
		t.Errorf("without the files: %d changes, %v", res.Changes, err)
	}
}
