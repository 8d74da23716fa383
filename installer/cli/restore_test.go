package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/installer/recover"
)

// What can be refused is refused before anything is looked for in the network,
// with what to do.
func TestRestoreRefuses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: it refuses that first")
	}
	if _, err := os.Stat(recover.StatePath); err == nil {
		t.Skip("this machine has been recovered itself")
	}
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := escrow.Seal(plain, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, data := range map[string][]byte{
		"id": []byte(id.String() + "\n"), "noid": []byte("AGE-SECRET-KEY-canary\n"), "master-key.age": sealed, "key": plain, "half": plain[:len(plain)/2],
		"pair": []byte("access_key = \"a\"\nsecret_key = \"canary\"\n"), "nopair": []byte("canary"),
		"none.toml": []byte("domain = \"vault.example.com\"\n"),
	} {
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(path("empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	opened := []string{"--identity", path("id"), "--escrow", path("master-key.age")}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no identity", []string{"--escrow", path("master-key.age")}, 2, "no --identity"},
		{"no identity in the file", []string{"--identity", path("noid"), "--escrow", path("master-key.age")}, 2, "malformed age identity"},
		{"no escrow", opened[:2], 2, "no --escrow"},
		{"an escrow that is not there", []string{"--identity", path("id"), "--escrow", path("nothing")}, 4, "no such file"},
		{"an empty escrow", []string{"--identity", path("id"), "--escrow", path("empty")}, 4, "no file of an escrow"},
		{"half a master key", []string{"--identity", path("id"), "--key-file", path("half")}, 4, "master key"},
		{"no place", opened, 2, "where are the snapshots?"},
		{"half a bucket", append(opened, "--bucket", "b"), 2, "--endpoint, --bucket and --backup-credentials"},
		{"a key pair that is none", append(opened, "--endpoint", "http://127.0.0.1:1", "--bucket", "b", "--backup-credentials", path("nopair")), 4, "access_key"},
		{"a configuration without a place", append(opened, "--config", path("none.toml")), 2, "backup"},
		{"a folder that is not there", append(opened, "--dir", path("nowhere")), 4, "no such file"},
		{"a folder without snapshots", append(opened, "--dir", path("empty")), 4, "no snapshot"},
		{"a name that is none", append(opened, "--dir", path("empty"), "--id", "x"), 2, `"x"`},
		{"a credential without a name", append(opened, "--credential-file", "x"), 2, "want NAME=FILE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, said := run(t, append([]string{"restore", "--yes"}, c.args...)...)
			if code != c.code || !strings.Contains(said, c.want) || !strings.Contains(said, "→") && !strings.Contains(said, "nothing was changed") && !strings.Contains(said, "none.toml") {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, c.code, c.want, said)
			}
			if strings.Contains(out+said, "canary") {
				t.Errorf("it tells a secret:\n%s", said)
			}
		})
	}
}
