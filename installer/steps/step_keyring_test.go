package steps

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config/machine"
)

func jobKey(seed byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
}

// keyringOf is a keyring's file, with a key of each node that takes snapshots.
func keyringOf(t *testing.T, nodes map[string]byte) []byte {
	t.Helper()
	r := &signing.Keyring{}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		r.Use("snapshot", node, jobKey(nodes[node]), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func hinted(err error) string {
	if known := new(fault.Error); errors.As(err, &known) {
		return err.Error() + "\n" + known.Hint
	}
	return err.Error()
}

// Vault holds the keyring as the files do: written when it changes, by whoever may; what
// only Vault knows, of another node or of this machine before it was restored, is taken in.
func TestKeyringInVault(t *testing.T) {
	const own, other = "vault.example.com", "two.example.com"
	for name, c := range map[string]struct {
		vault  map[string]byte // nil: nothing is there
		text   string          // in its place
		older  bool            // the doctor's policy lets nobody read it
		admin  bool
		writes int
		signs  map[byte]bool
		says   string
	}{
		"nothing is there":            {admin: true, writes: 1, signs: map[byte]bool{1: true}},
		"nothing, and nobody may":     {signs: map[byte]bool{1: true}, says: "log in as an administrator"},
		"as it is here":               {vault: map[string]byte{own: 1}, signs: map[byte]bool{1: true}},
		"the machine before it":       {vault: map[string]byte{own: 5}, admin: true, writes: 1, signs: map[byte]bool{1: true, 5: false}},
		"that, and nobody may":        {vault: map[string]byte{own: 5}, signs: map[byte]bool{1: true, 5: false}, says: "log in as an administrator"},
		"another node's besides":      {vault: map[string]byte{own: 1, other: 2}, signs: map[byte]bool{1: true, 2: true}},
		"another node's alone":        {vault: map[string]byte{other: 2}, admin: true, writes: 1, signs: map[byte]bool{1: true, 2: true}},
		"it cannot be read":           {text: "{", admin: true, signs: map[byte]bool{1: true}, says: "vault kv rollback -mount=secret -version=N strongroom/keyring"},
		"of a newer version":          {text: `{"format": 2}`, admin: true, signs: map[byte]bool{1: true}, says: "format 2"},
		"the doctor's policy is old":  {vault: map[string]byte{own: 1}, older: true, signs: map[byte]bool{1: true}, says: "log in as an administrator"},
		"Vault denies even its admin": {vault: map[string]byte{own: 1}, older: true, admin: true, signs: map[byte]bool{1: true}, says: "read secret/strongroom/keyring"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBareWorld(t)
			if said, _, err := w.installAll(t.Context(), w.env()); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if len(w.vault.keyring) != 1 || w.vault.keyring[0] != string(w.Files[machine.KeyringFile].Data) {
				t.Fatalf("in Vault after the installation: %q", w.vault.keyring)
			}
			w.vault.keyring = nil
			if c.vault != nil {
				c.text = string(keyringOf(t, c.vault))
			}
			if c.text != "" {
				w.vault.keyring = []string{c.text}
			}
			if c.older {
				w.vault.answer = func(_ *http.Request, p string) (int, any) {
					if p == "secret/data/"+machine.KVKeyring {
						return refusal(http.StatusForbidden)
					}
					return 0, nil
				}
			}
			e := w.env()
			if c.admin {
				e.AdminToken = "admin"
			}
			before := len(w.vault.keyring)
			said, _, err := w.installAll(t.Context(), e)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(said+hinted(err), c.says)) {
				t.Errorf("%v\n%s", err, said)
			}
			if n := len(w.vault.keyring) - before; n != c.writes {
				t.Errorf("%d writes, want %d", n, c.writes)
			}
			ring, err := signing.ParseKeyring(w.Files[machine.KeyringFile].Data)
			if err != nil || !bytes.Equal(w.Files[machine.KeyringFile].Data, w.Files[machine.KeyringEscrow].Data) || len(ring.Keys) != len(c.signs) {
				t.Fatalf("%v:\n%s\n%s", err, w.Files[machine.KeyringFile].Data, w.Files[machine.KeyringEscrow].Data)
			}
			for seed, signs := range c.signs {
				if err := ring.Signs("snapshot", jobKey(seed)); (err == nil) != signs {
					t.Errorf("key %d: %v\n%s", seed, err, w.Files[machine.KeyringFile].Data)
				}
			}
			if c.says != "" {
				return
			}
			if _, changes, err := w.installAll(t.Context(), w.env()); err != nil || changes != 0 {
				t.Errorf("once more: %d changes, %v", changes, err)
			}
		})
	}
}

// Whichever write fails, of a file or in Vault, the next run makes it good.
func TestKeyringWritesFail(t *testing.T) {
	begin := func(t *testing.T) (*jobWorld, *Env) {
		w := newBareWorld(t)
		if said, _, err := w.installAll(t.Context(), w.env()); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		w.vault.keyring = []string{string(keyringOf(t, map[string]byte{"vault.example.com": 5}))}
		w.Actions, w.vault.writes = 0, 0
		e := w.env()
		e.AdminToken = "admin"
		return w, e
	}
	for name, fail := range map[string]func(w *jobWorld, after bool){
		"the escrow's file": func(w *jobWorld, after bool) { w.FailAt, w.AfterEffect = 1, after },
		"the file":          func(w *jobWorld, after bool) { w.FailAt, w.AfterEffect = 2, after },
		"Vault":             func(w *jobWorld, after bool) { w.vault.failAt, w.vault.afterEffect = 1, after },
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with its effect %v", name, after), func(t *testing.T) {
				w, e := begin(t)
				fail(w, after)
				if said, _, err := w.installAll(t.Context(), e); err == nil {
					t.Fatalf("no fault\n%s", said)
				}
				w.FailAt, w.vault.failAt = 0, 0
				if said, _, err := w.installAll(t.Context(), e); err != nil {
					t.Fatalf("%v\n%s", err, said)
				}
				text := w.Files[machine.KeyringFile].Data
				if ring, err := signing.ParseKeyring(text); err != nil || len(ring.Keys) != 2 {
					t.Errorf("%v:\n%s", err, text)
				}
				if !bytes.Equal(text, w.Files[machine.KeyringEscrow].Data) || w.vault.keyring[len(w.vault.keyring)-1] != string(text) {
					t.Errorf("they differ:\n%s\n%s\n%s", text, w.Files[machine.KeyringEscrow].Data, w.vault.keyring)
				}
			})
		}
	}
}
