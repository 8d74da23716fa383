package presettest

import (
	"testing"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

// A rotation that is repeated with the old token kills the new one, too: the
// provider must never do that by itself, whatever the first answer was.
func TestGitLabIsNeverReplayed(t *testing.T) {
	f := gitlab()
	url, ca := f.Start(t)
	p := build(t, "gitlab", url, ca, nil)
	first := f.Seed("pipeline")
	req := provider.CreateRequest{Name: "sr-gl-1", Current: &first}
	for _, fault := range []conformance.Fault{conformance.StatusAfter(503, "", "Retry-After", "1"), conformance.Drop(true)} {
		f.Faults().Next("create", fault)
		current := f.Seed("another")
		before := f.Faults().Count("create")
		_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-gl-2", Current: &current})
		if provider.KindOf(err) != provider.KindUncertain || f.Faults().Count("create")-before != 1 {
			t.Fatalf("%v after %d requests, want uncertain after 1", err, f.Faults().Count("create")-before)
		}
	}
	second, err := p.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create(t.Context(), req); provider.KindOf(err) != provider.KindUnauthorized {
		t.Fatalf("the fake does not behave as GitLab: %v", err)
	}
	if f.Works(second) {
		t.Fatal("the fake does not behave as GitLab: the family lives on")
	}
	if second.Expires.IsZero() {
		t.Fatal("the end of the token's life is lost")
	}
	if _, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-gl-3"}); provider.KindOf(err) != provider.KindRejected {
		t.Fatalf("without a current token: %v", err)
	}
}
