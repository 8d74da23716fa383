package steps

import (
	"bytes"
	"testing"

	"strongroom.example/config/machine"
)

// TestRecipientsAreWantedForSealing is about a machine whose operator has no key
// on it: only what is yet to be sealed needs one.
func TestRecipientsAreWantedForSealing(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := v.env()
	e.Recipients = nil
	check := func(what string, wanted bool) {
		t.Helper()
		if err := (preflight{e}).recipients(t.Context()); (err != nil) != wanted {
			t.Errorf("%s: %v", what, err)
		}
	}
	delete(v.Files, machine.DoctorSecretFile)
	check("Vault's keys are yet to be made", true)
	if err := v.Write(machine.DoctorSecretFile, bytes.NewReader([]byte("sealed")), root(0o600)); err != nil {
		t.Fatal(err)
	}
	check("all is sealed", false)
	delete(v.Files, machine.MasterKeyEscrow)
	check("no escrow, and no proof of one", true)
	delete(v.Files, machine.MasterKeyFile)
	check("no master key", true)
}
