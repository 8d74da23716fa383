package recover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

const canary = "canary-of-the-escrow"

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func masterKey(t testing.TB) (*kms.Keyset, []byte) {
	t.Helper()
	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return k, plain
}

// put seals a file of an escrow.
func put(t testing.TB, dir, name, plain string, to ...age.Recipient) {
	t.Helper()
	sealed, err := escrow.Seal([]byte(plain), to...)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
}

const localNote = "vault login -method=userpass -path=strongroom-local username=admin\n" + canary + "\n"

const adminNote = "vault login -method=userpass username=admin\n" + canary + "\n"

func TestOpenEscrow(t *testing.T) {
	ann, bob := identity(t), identity(t)
	k, plain := masterKey(t)
	text, err := kms.EscrowText(k, "Confirmation code of this rotation: AAAA")
	if err != nil {
		t.Fatal(err)
	}
	other, otherPlain := masterKey(t)
	_ = other
	whole := func(dir string) {
		put(t, dir, "master-key.age", string(text), ann.Recipient(), bob.Recipient())
		put(t, dir, "recovery-keys-1.age", "one\nthree\n", ann.Recipient())
		put(t, dir, "recovery-keys-2.age", "two\n", bob.Recipient())
		put(t, dir, "admin.age", adminNote, ann.Recipient(), bob.Recipient())
		put(t, dir, "local-admin.age", localNote, ann.Recipient())
		put(t, dir, "holiday.age", "not ours", ann.Recipient())
	}
	for _, c := range []struct {
		name   string
		fill   func(dir string)
		path   string // below the folder
		ids    []age.Identity
		key    []byte
		shares []string
		admins int
		files  int
		closed []string
		err    error
	}{
		{name: "one of two people", fill: whole, ids: []age.Identity{ann}, shares: []string{"one", "three"}, admins: 2, files: 5, closed: []string{"recovery-keys-2.age"}},
		{name: "both", fill: whole, ids: []age.Identity{ann, bob}, shares: []string{"one", "three", "two"}, admins: 2, files: 5},
		{name: "a stranger", fill: whole, ids: []age.Identity{identity(t)}, err: escrow.ErrWrongIdentity},
		{name: "the file alone", fill: whole, path: "master-key.age", ids: []age.Identity{bob}, files: 1},
		{name: "the file under another name", fill: func(dir string) { put(t, dir, "key.age", string(plain), ann.Recipient()) }, path: "key.age", ids: []age.Identity{ann}, files: 1},
		{name: "an opened key beside the folder", fill: func(dir string) { put(t, dir, "admin.age", adminNote, ann.Recipient()) }, ids: []age.Identity{ann}, key: plain, admins: 1, files: 1},
		{name: "an opened key, and an identity of the backups alone", fill: func(dir string) {
			put(t, dir, "master-key.age", string(text), ann.Recipient())
			put(t, dir, "recovery-keys-1.age", "one\n", ann.Recipient())
			put(t, dir, "admin.age", adminNote, bob.Recipient())
		}, ids: []age.Identity{bob}, key: plain, admins: 1, files: 3, closed: []string{"master-key.age", "recovery-keys-1.age"}},
		{name: "an opened key that is another", fill: whole, ids: []age.Identity{ann}, key: otherPlain, err: errAny},
		{name: "no master key", fill: func(dir string) { put(t, dir, "admin.age", adminNote, ann.Recipient()) }, ids: []age.Identity{ann}, err: ErrNoMasterKey},
		{name: "an empty folder", fill: func(string) {}, ids: []age.Identity{ann}, err: fs.ErrNotExist},
		{name: "no folder", fill: func(string) {}, path: "none", ids: []age.Identity{ann}, err: fs.ErrNotExist},
		{name: "something else in its place", fill: func(dir string) { put(t, dir, "master-key.age", canary, ann.Recipient()) }, ids: []age.Identity{ann}, err: kms.ErrNotKeyset},
		{name: "not encrypted", fill: func(dir string) { _ = os.WriteFile(filepath.Join(dir, "master-key.age"), text, 0o600) }, ids: []age.Identity{ann}, err: ErrDamaged},
		{name: "an administrator without a password", fill: func(dir string) {
			put(t, dir, "master-key.age", string(plain), ann.Recipient())
			put(t, dir, "admin.age", canary, ann.Recipient())
		}, ids: []age.Identity{ann}, err: errAny},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.fill(dir)
			o, err := OpenEscrow(filepath.Join(dir, c.path), c.ids, c.key)
			if c.err != nil {
				if err == nil || c.err != errAny && !errors.Is(err, c.err) {
					t.Fatalf("got %v, want %v", err, c.err)
				}
				if strings.Contains(err.Error(), canary) {
					t.Errorf("the error tells a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o.MasterKey.Fingerprint() != k.Fingerprint() {
				if c.name != "the file under another name" && len(c.key) == 0 {
					t.Errorf("master key %s", o.MasterKey.Fingerprint())
				}
			}
			if !slices.Equal(o.Shares, c.shares) || len(o.Admins) != c.admins || len(o.Files) != c.files || !slices.Equal(o.Unopened(), c.closed) {
				t.Errorf("shares %d, admins %v, %d files, unopened %q", len(o.Shares), o.Admins, len(o.Files), o.Unopened())
			}
			if len(o.Admins) == 2 && o.Admins[0].Mount != machine.AuthLocal {
				t.Errorf("first %v, which strangers can lock", o.Admins[0])
			}
			if shown := fmt.Sprintf("%v %+v %#v", o, o, o); strings.Contains(shown, canary) {
				t.Errorf("printed: %s", shown)
			}
		})
	}
}

var errAny = errors.New("any error")
