package steps

import (
	"bytes"
	"testing"
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
	delete(v.Files, doctorCred)
	check("Vault's keys are yet to be made", true)
	if err := v.Write(doctorCred, bytes.NewReader([]byte("sealed")), root(0o600)); err != nil {
		t.Fatal(err)
	}
	check("all is sealed", false)
	delete(v.Files, masterKeyEscrow)
	check("no escrow, and no proof of one", true)
	delete(v.Files, masterKeyCred)
	check("no master key", true)
}
