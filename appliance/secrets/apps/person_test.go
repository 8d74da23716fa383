package apps

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// Who is shut out is out with every token, by every way, at once, and comes back only
// when somebody lets him.
func TestPersonEnd(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	ctx := t.Context()
	write := func(path string, data map[string]any) {
		t.Helper()
		if _, err := s.Root.Write(ctx, path, data); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range config.Policies() {
		write("sys/policies/acl/"+name, map[string]any{"policy": text})
	}
	// Whoever may make tokens has some that outlive the one that made them.
	write("sys/policies/acl/maker", map[string]any{"policy": `path "auth/token/create*" { capabilities = ["update", "sudo"] }`})
	for _, mount := range []string{"userpass", "other"} {
		write("sys/auth/"+mount, map[string]any{"type": "userpass"})
		for _, who := range []string{"alice", "bob"} {
			write("auth/"+mount+"/users/"+who, map[string]any{"password": "a-password", "token_policies": []string{"maker"}})
		}
	}
	login := func(mount, who string) (*vaultapi.Client, error) {
		c := s.Client(t, "")
		return c, c.Login(ctx, "auth/"+mount+"/login/"+who, map[string]any{"password": "a-password"})
	}
	in := func(mount, who string) *vaultapi.Client {
		t.Helper()
		c, err := login(mount, who)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	v := New(s.Client(t, tokenOf(t, s, config.PolicyAdmin)))
	find := func(name string, makeKnown bool) []Identity {
		t.Helper()
		p, err := FindPeople(ctx, v, name, makeKnown)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	bob := in("userpass", "bob")
	held := map[string]*vaultapi.Client{"the token": in("userpass", "alice"), "another": in("userpass", "alice")}
	for name, request := range map[string]map[string]any{"a child": {}, "an orphan": {"no_parent": true}, "a batch token": {"type": "batch"}} {
		held[name] = s.Client(t, held["the token"].Token())
		if err := held[name].Login(ctx, "auth/token/create", request); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := in("other", "alice")
	several := find("alice", true)
	if _, err := One(several, false); !errors.Is(err, ErrSeveral) || !strings.Contains(err.Error(), "userpass/alice") || !strings.Contains(err.Error(), "other/alice") {
		t.Errorf("of two: %v", err)
	}
	one, err := One(find("userpass/alice", true), false)
	if err != nil || len(one) != 1 || !slices.Equal(one[0].Aliases, []string{"userpass/alice"}) {
		t.Fatalf("%+v, %v", one, err)
	}
	e, err := EndPerson(ctx, v, one[0])
	if err != nil || e.Tokens < 3 || len(e.Left) != 4 || !strings.HasPrefix(e.Left[3], "1 token that somebody made to outlive") {
		t.Errorf("%+v, %v", e, err)
	}
	for what, c := range held {
		if what == "an orphan" {
			continue // nobody's: that is said
		}
		if _, err := c.LookupSelf(ctx); !vaultapi.IsDenied(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := login("userpass", "alice"); err == nil {
		t.Error("alice logs in")
	}
	for who, c := range map[string]*vaultapi.Client{"bob": bob, "alice by another method, who may be another": elsewhere} {
		if _, err := c.LookupSelf(ctx); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	again := find("userpass/alice", false)
	if len(again) != 1 || !again[0].Disabled || again[0].ID != one[0].ID {
		t.Fatalf("%+v", again)
	}
	if err := AllowPerson(ctx, v, again[0]); err != nil {
		t.Fatal(err)
	}
	in("userpass", "alice")
	if _, err := held["a child"].LookupSelf(ctx); err == nil {
		t.Error("a token of before is alive again")
	}

	t.Run("somebody who has never logged in", func(t *testing.T) {
		for _, name := range []string{"nobody", "userpass", "other/", "", "Userpass/bob"} {
			if _, err := One(find(name, false), false); !errors.Is(err, ErrNobody) {
				t.Errorf("%q: %v", name, err)
			}
		}
		p, err := One(find("other/bob", true), false)
		if err != nil || !p[0].made {
			t.Fatalf("%+v, %v", p, err)
		}
		if e, err := EndPerson(ctx, v, p[0]); err != nil || e.Tokens != 0 {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := login("other", "bob"); err == nil {
			t.Error("bob logs in for the first time")
		}
		if err := AllowPerson(ctx, v, find("other/bob", false)[0]); err != nil {
			t.Fatal(err)
		}
		in("other", "bob")
	})
	t.Run("by who may not", func(t *testing.T) {
		if _, err := FindPeople(ctx, New(s.Client(t, tokenOf(t, s, config.PolicyReader))), "alice", true); !vaultapi.IsDenied(err) {
			t.Errorf("a reader: %v", err)
		}
	})
	t.Run("an administrator makes no token that outlives his", func(t *testing.T) {
		for what, request := range map[string]struct {
			path string
			data map[string]any
			made bool
		}{
			"an orphan by create-orphan": {"auth/token/create-orphan", nil, false},
			"an orphan by no_parent":     {"auth/token/create", map[string]any{"no_parent": true}, false},
			"a child":                    {"auth/token/create", map[string]any{"policies": []string{config.PolicyReader}}, true},
		} {
			admin := s.Client(t, tokenOf(t, s, config.PolicyAdmin))
			if err := admin.Login(ctx, request.path, request.data); (err == nil) != request.made {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
