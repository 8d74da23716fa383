package steps

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// checkMasterKey asserts that the credential and the escrow hold the same key,
// and that it lies nowhere else.
func (v *vps) checkMasterKey(t *testing.T) *kms.Keyset {
	t.Helper()
	e := v.env()
	plain, err := e.openCredential(t.Context(), machine.CredMasterKey, machine.MasterKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := kms.ParseKeyset(plain)
	if err != nil {
		t.Fatal(err)
	}
	opened := v.openEscrow(t, machine.MasterKeyEscrow)
	if !bytes.Equal(opened, plain) {
		t.Error("the escrow holds another master key than the credential")
	}
	for p, n := range v.Files {
		if bytes.Contains(n.Data, plain) {
			t.Errorf("the plain master key is in %s", p)
		}
	}
	for _, c := range v.Calls {
		if strings.Contains(c, string(plain)) {
			t.Errorf("the plain master key is in the command %q", c)
		}
	}
	return key
}

// keyIfAny is the fingerprint of the key that the KMS has already, or "".
func (v *vps) keyIfAny(t *testing.T) string {
	t.Helper()
	if _, ok := v.Files[machine.MasterKeyFile]; !ok {
		return ""
	}
	plain, err := v.env().openCredential(t.Context(), machine.CredMasterKey, machine.MasterKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := kms.ParseKeyset(plain)
	if err != nil {
		t.Fatal(err)
	}
	return key.Fingerprint()
}

func TestMasterKeyIsNeverMadeAgain(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := v.checkMasterKey(t).Fingerprint()
	// The escrow has been moved off the machine: it is written again.
	delete(v.Files, machine.MasterKeyEscrow)
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := v.checkMasterKey(t).Fingerprint(); got != key {
		t.Error("another master key")
	}
	// Nor is it one of another key that has proved to open elsewhere.
	confirmation := func(key string) {
		v.Files[path.Join(machine.EscrowDir, escrow.ConfirmationFile)] = &host.Node{Data: []byte(`{"format":1,"files":{"master-key.age":{"sealed_sha256":"` +
			strings.Repeat("0", 64) + `","key":"` + key + `","at":"2026-01-01T00:00:00Z","by":"challenge"}}}`)}
	}
	confirmation("another")
	delete(v.Files, machine.MasterKeyEscrow)
	if diff, err := (masterKey{v.env()}).Check(t.Context()); err != nil || len(diff) != 1 || diff[0].What != machine.MasterKeyEscrow {
		t.Errorf("another key's proof: %v, %v", diff, err)
	}
	confirmation(key)
	if diff, err := (masterKey{v.env()}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("proved and taken away: %v, %v", diff, err)
	}
	// The credential is gone and Vault has data: nothing may be made.
	for _, d := range []string{machine.VaultData, machine.RaftDir} {
		v.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	v.Files[machine.RaftDir+"/vault.db"] = &host.Node{Data: []byte("data")}
	delete(v.Files, machine.MasterKeyFile)
	_, err := v.engine(v.env(), &out).Install(t.Context())
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != fault.Operator || !strings.Contains(err.Error(), "master key that opens it is not") {
		t.Errorf("error = %v", err)
	}
	if _, ok := v.Files[machine.MasterKeyFile]; ok {
		t.Error("a new master key was made beside old data")
	}
}

// A confirmation or a credential that cannot be read is neither "confirmed" nor
// "not confirmed": nothing is written over it, and the message says which file.
func TestMasterKeyUnreadable(t *testing.T) {
	confirmation := path.Join(machine.EscrowDir, escrow.ConfirmationFile)
	for _, c := range []struct {
		name   string
		spoil  func(v *vps)
		where  string
		person bool // has to act, and is told how
	}{
		{"a spoilt confirmation", func(v *vps) { v.Files[confirmation] = &host.Node{Data: []byte("{")} }, confirmation, true},
		{"a confirmation of a later format", func(v *vps) { v.Files[confirmation] = &host.Node{Data: []byte(`{"format":9}`)} }, confirmation, true},
		{"a credential of another name", func(v *vps) { v.Files[machine.MasterKeyFile].Data = []byte("another:eA==") }, machine.CredMasterKey, false},
		{"a credential that holds no key", func(v *vps) {
			v.Files[machine.MasterKeyFile].Data = []byte(machine.CredMasterKey + ":eA==")
			v.Files[confirmation] = &host.Node{Data: []byte(`{"format":1,"files":{"master-key.age":{"sealed_sha256":"` +
				strings.Repeat("0", 64) + `","key":"k","at":"2026-01-01T00:00:00Z","by":"challenge"}}}`)}
		}, machine.MasterKeyFile, false},
		{"nothing to put into the escrow again", func(v *vps) { v.Files[machine.MasterKeyFile].Data = []byte(machine.CredMasterKey + ":eA==") }, machine.MasterKeyFile, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVPS(t)
			var out bytes.Buffer
			if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			delete(v.Files, machine.MasterKeyEscrow)
			c.spoil(v)
			credential := string(v.Files[machine.MasterKeyFile].Data)
			_, err := v.engine(v.env(), &out).Install(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.where) {
				t.Errorf("error = %v, want one about %s", err, c.where)
			}
			var e *fault.Error
			if c.person && (!errors.As(err, &e) || e.Code != fault.Operator || !strings.Contains(e.Hint, "move it away")) {
				t.Errorf("error = %#v", err)
			}
			if _, there := v.Files[machine.MasterKeyEscrow]; there || string(v.Files[machine.MasterKeyFile].Data) != credential {
				t.Error("the key's files were written")
			}
		})
	}
}

// A changed escrow.recipients takes effect: the new ones can open the master key, and only
// they; what they cannot open is told. Killed anywhere, it is done by the next run.
func TestOtherRecipients(t *testing.T) {
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	start := func(failAt int) (*vps, *Env, error) {
		v := newVPS(t)
		named := func(id *age.X25519Identity) *Env {
			e := v.env()
			e.Config.Escrow.Recipients, e.Recipients = []string{id.Recipient().String()}, []age.Recipient{id.Recipient()}
			return e
		}
		var out bytes.Buffer
		if _, err := v.engine(named(v.id), &out).Install(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		if failAt > 0 {
			v.FailAt = v.Actions + failAt
			if _, err := v.engine(named(other), &out).Install(t.Context()); err == nil {
				return v, nil, nil
			}
			v.FailAt = 0
		}
		e := named(other)
		_, err := v.engine(e, &out).Install(t.Context())
		return v, e, err
	}
	for n := 0; ; n++ {
		v, e, err := start(n)
		if e == nil {
			if n < 5 {
				t.Errorf("only %d actions", n)
			}
			return
		}
		if err != nil {
			t.Fatalf("action %d: %v", n, err)
		}
		key := openAge(t, v.Files[machine.MasterKeyEscrow].Data, other)
		if plain, err := e.openCredential(t.Context(), machine.CredMasterKey, machine.MasterKeyFile); err != nil || !bytes.Equal(plain, key) {
			t.Errorf("action %d: the escrow holds another key: %v", n, err)
		}
		if _, err := age.Decrypt(bytes.NewReader(v.Files[machine.MasterKeyEscrow].Data), v.id); err == nil {
			t.Errorf("action %d: who is not named any more can open it", n)
		}
		if told := strings.Join(e.Notes, "\n"); n == 0 && !strings.Contains(told, "docs/escrow.md") {
			t.Errorf("the operator is told %q", told)
		}
	}
}
