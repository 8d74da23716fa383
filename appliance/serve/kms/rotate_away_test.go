package kms

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/serve/escrow"
)

// The escrow has been carried away and confirmed, as it should be. A rotation that is
// begun, again and again and killed anywhere, takes nothing of that back, and its key is
// not given for the one in force.
func TestBegunRotationLeavesTheConfirmation(t *testing.T) {
	for failAt := 0; ; failAt++ {
		x := newRotationTest(t)
		dir, file := filepath.Dir(x.r.Escrow), filepath.Base(x.r.Escrow)
		sealed, err := os.ReadFile(x.r.Escrow)
		if err != nil {
			t.Fatal(err)
		}
		text, err := EscrowText(x.v1, "")
		if err != nil {
			t.Fatal(err)
		}
		checks, err := escrow.NewChecks(file, sealed, text, x.v1.Fingerprint(), x.r.Rand, x.r.Now().AddDate(0, -1, 0))
		if err != nil {
			t.Fatal(err)
		}
		b, err := checks.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, checks.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := escrow.Record(dir, file, escrow.ByChallenge, x.v1.Fingerprint(), x.r.Now()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(x.r.Escrow); err != nil {
			t.Fatal(err)
		}
		calls := 0
		x.r.write = func(path string, data []byte, perm fs.FileMode) error {
			if calls++; calls == failAt {
				return errCrash
			}
			return atomicfile.Write(path, data, perm)
		}
		stays := func(when string) {
			t.Helper()
			all, err := escrow.LoadStatus(dir)
			if err != nil || len(all) != 1 || !all[0].Confirmed() || all[0].Key != x.v1.Fingerprint() {
				t.Fatalf("%s, write %d: %+v, %v", when, failAt, all, err)
			}
		}
		for _, when := range []string{"begun", "begun again", "and again"} {
			if _, err := x.r.Begin(t.Context(), x.id.Recipient()); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			stays(when)
		}
		x.r.write = atomicfile.Write
		if _, err := x.r.Begin(t.Context(), x.id.Recipient()); err != nil {
			t.Fatal(err)
		}
		stays("at last")
		_, code := x.opened(x.r.NextEscrow())
		p, err := x.r.Confirm(t.Context(), code)
		if err != nil {
			t.Fatal(err)
		}
		if all, err := escrow.LoadStatus(dir); err != nil || !all[0].Confirmed() || all[0].Key != p.Fingerprint || all[0].Challenges == 0 {
			t.Fatalf("confirmed: %+v, %v", all, err)
		}
		if failAt > calls {
			return
		}
	}
}
