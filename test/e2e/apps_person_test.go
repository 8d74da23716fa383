package e2e

import (
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/cli"
)

// The commands of docs/people.md, in its order.
func TestPeoplePageCommands(t *testing.T) {
	t.Parallel()
	s := newAppSite(t, twoApps+"[[auth]]\ntype = \"userpass\"\n[[auth.map]]\nuser = \"alice\"\nroles = [\"owner:a\"]\n")
	s.applied(t)
	if _, err := s.Root.Write(t.Context(), "auth/userpass/users/alice/password", map[string]any{"password": "a-password"}); err != nil {
		t.Fatal(err)
	}
	login := func() (*vaultapi.Client, error) {
		c := s.Client(t, "")
		return c, c.LoginUserpass(t.Context(), "alice", "a-password")
	}
	person := func(want int, block string) string {
		t.Helper()
		args := strings.Fields(docBlock(t, "people.md", block))[1:]
		return mustRun(t, want, append(args, "--address", vaultAddr(s.Server), "--token-file", s.admin)...)
	}
	// Whom nobody knows is not shut out without a word.
	if out := mustRun(t, cli.ExitUsage, "person", "end", "erin", "--address", vaultAddr(s.Server), "--token-file", s.admin); !strings.Contains(out, `"erin": nobody has logged in by that name`) {
		t.Errorf("it said:\n%s", out)
	}
	alice, err := login()
	if err != nil {
		t.Fatal(err)
	}
	out := person(cli.ExitOK, "end")
	for _, want := range []string{"userpass/alice: shut out, 1 live token ended with their leases", "left: batch tokens", `strongroom person allow "userpass/alice"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
	if _, err := alice.LookupSelf(t.Context()); !vaultapi.IsDenied(err) {
		t.Errorf("alice is in: %v", err)
	}
	if _, err := login(); err == nil {
		t.Error("alice logs in")
	}
	person(cli.ExitOK, "allow")
	if out := person(cli.ExitOK, "allow"); !strings.Contains(out, "was not shut out") {
		t.Errorf("it said:\n%s", out)
	}
	alice, err = login()
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, twoApps)
	if out := s.app(t, cli.ExitDrift, "plan"); !strings.Contains(out, "login userpass/alice  (no longer named, and works until a prune") {
		t.Errorf("plan said:\n%s", out)
	}
	s.app(t, cli.ExitOK, strings.Fields(docBlock(t, "people.md", "prune"))[2:]...)
	if _, err := alice.LookupSelf(t.Context()); !vaultapi.IsDenied(err) {
		t.Errorf("after a prune alice is in: %v", err)
	}
	s.app(t, cli.ExitOK, "plan")
}
