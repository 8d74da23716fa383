package docs

import (
	"bytes"
	"slices"
	"testing"
)

func TestPages(t *testing.T) {
	names := Names()
	for _, want := range []string{"README.md", "install.md", "upgrade.md", "escrow.md"} {
		if !slices.Contains(names, want) {
			t.Errorf("no page %s", want)
		}
	}
	for _, n := range names {
		if b, err := Page(n); err != nil || !bytes.HasPrefix(b, []byte("# ")) {
			t.Errorf("%s begins with %.20q, %v", n, b, err)
		}
	}
	if _, err := Page("no.md"); err == nil {
		t.Error("no error for a page that isn't there")
	}
}
