package escrow

import (
	"slices"
	"testing"
)

func TestStale(t *testing.T) {
	c := Checks{File: "admin.age", SealedSHA256: "00112233445566778899aabbccddeeff"}
	got := c.Stale([]string{
		".check-admin.age-ffffffffffffffff.json.tmp-1",
		".check-master-key.age-ffffffffffffffff.json.tmp-1",
		"admin.age",
		"check-admin.age-0011223344556677.json",
		"check-admin.age-ffffffffffffffff.json",
		"check-master-key.age-ffffffffffffffff.json",
		"confirmed.json",
	})
	want := []string{".check-admin.age-ffffffffffffffff.json.tmp-1", "check-admin.age-ffffffffffffffff.json"}
	if !slices.Equal(got, want) {
		t.Errorf("stale: %q, want %q", got, want)
	}
}
