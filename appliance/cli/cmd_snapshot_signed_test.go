package cli

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
)

func seeded(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func keyringFile(t *testing.T, ring *signing.Keyring) string {
	t.Helper()
	text, err := ring.Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keyring.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// At the command line: what nobody has signed is shown, and used by its name and the word
// alone.
func TestSnapshotKeyring(t *testing.T) {
	b := newBackups(t)
	ring := &signing.Keyring{}
	ring.Use(snapshot.RoleTaker, "box", seeded(1).Public().(ed25519.PublicKey), time.Now())
	file := keyringFile(t, ring)
	take := func(seed byte, at time.Time) string {
		t.Helper()
		d, err := snapshot.NewDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		o := snapshot.TakeOptions{
			Source: archive{}, Vault: snapshot.VaultInfo{ClusterID: "one", Version: "1.21.1"},
			Recipients: []recipient.Recipient{b.recipient}, Destinations: []snapshot.Destination{d},
			StateDir: t.TempDir(), Now: func() time.Time { return at },
		}
		if seed > 0 {
			o.SigningKey = seeded(seed)
		}
		taken, err := snapshot.Take(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return taken.Manifest.ID
	}
	now := time.Now().UTC().Truncate(time.Second)
	unsigned := take(0, now.Add(-2*time.Hour))
	says(t, b.verify(t, ExitDrift, "--keyring", file), unsigned, "signed by no key of the keyring", "→ of another machine")
	says(t, b.verify(t, ExitDrift, "--keyring", file, "--id", unsigned), "signed by no key of the keyring")
	says(t, b.verify(t, ExitOK, "--keyring", file, "--id", unsigned, "--unsigned"), "good "+unsigned)
	good := take(1, now.Add(-time.Hour))
	forged := take(2, now)
	says(t, b.verify(t, ExitOK, "--keyring", file), "good "+good)
	says(t, b.verify(t, ExitDrift, "--keyring", file, "--id", forged, "--unsigned"), "it should be signed", "→ do not use it")

	var list []listed
	if err := json.Unmarshal([]byte(b.run(t, ExitOK, "list", "--json", "--keyring", file)), &list); err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, l := range list {
		if mine := l.ID == good; mine != (l.Untrusted == "") || mine != l.Newest {
			t.Errorf("%+v", l)
		}
	}
	if out := b.run(t, ExitOK, "list", "--keyring", file); strings.Count(out, "NOT SIGNED") != 2 {
		t.Errorf("%s", out)
	}
	says(t, b.verify(t, ExitDrift, "--keyring", filepath.Join(b.state, "none")), "file does not exist")

	// What was verified once, and whose manifest cannot be read any more.
	manifest := filepath.Join(b.dir, filepath.FromSlash(good)+".json")
	text, err := os.ReadFile(manifest)
	if err == nil {
		err = os.WriteFile(manifest, append([]byte("\ufeff"), text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := b.run(t, ExitOK, "list", "--keyring", file); strings.Count(out, "MANIFEST UNREADABLE") != 1 || strings.Contains(out, "newest") {
		t.Errorf("%s", out)
	}
}

// The key that a take signs with: none where there is no keyring, and never a retired one.
func TestTakerKey(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, machine.CredSnapshotSigningKey), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seed := func(b byte) string { return base64.StdEncoding.EncodeToString(seeded(b).Seed()) + "\n" }
	ring := &signing.Keyring{}
	ring.Use(snapshot.RoleTaker, "box", seeded(1).Public().(ed25519.PublicKey), time.Now())
	ring.Use(snapshot.RoleTaker, "box", seeded(2).Public().(ed25519.PublicKey), time.Now())
	o := snapshotOptions{keyring: filepath.Join(dir, "none")}
	if key, err := o.takerKey(); key != nil || err != nil {
		t.Errorf("no keyring: %v", err)
	}
	o.keyring = keyringFile(t, ring)
	if key, err := o.takerKey(); key != nil || err == nil {
		t.Errorf("no key: %v", err)
	}
	for _, c := range []struct {
		text, want string
	}{{seed(2), ""}, {seed(1), "not retired"}, {seed(3), "the keyring has no key"}, {"\n", "want the base64"}, {"SECRET", "want the base64"}} {
		put(c.text)
		key, err := o.takerKey()
		if (c.want == "") != (key != nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), strings.TrimSpace(c.text)) && strings.TrimSpace(c.text) != "") {
			t.Errorf("%.8q: %v", c.text, err)
		}
	}
}
