package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"strongroom.example/appliance/base/words"
)

// ErrSeveral is for a name that several people have, each by another way to log in.
var ErrSeveral = errors.New("several people have that name")

// ErrNobody is for a name under which nobody has logged in.
var ErrNobody = errors.New("nobody has logged in by that name")

// Identity is somebody as Vault knows him: one person, by one or several ways to
// log in.
type Identity struct {
	ID       string   // of the entity
	Aliases  []string // METHOD/NAME of each way, sorted
	Disabled bool
	// made: nobody has logged in yet, and Vault knows the person from now on.
	made bool
}

// String is the person by all ways to log in.
func (p Identity) String() string { return strings.Join(p.Aliases, ", ") }

// Ending is what became of a person.
type Ending struct {
	Identity Identity
	Tokens   int      // ended, with their leases
	Left     []string // what goes on, for a person to read
}

// loginMethods are the mounted ways to log in, with their accessors.
func loginMethods(ctx context.Context, v Vault) (map[string]string, error) {
	got, err := v.Read(ctx, "sys/auth")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for mount, m := range got {
		if accessor := text(mapOf(m), "accessor"); accessor != "" && text(mapOf(m), "type") != "token" && text(mapOf(m), "type") != "approle" {
			out[strings.TrimSuffix(mount, "/")] = accessor
		}
	}
	return out, nil
}

// FindPeople gives who logs in as name, which may say by which method:
// "userpass/alice". With makeKnown, somebody who has never logged in by a method that is
// named is made known to Vault, so that there is somebody to end.
func FindPeople(ctx context.Context, v Vault, name string, makeKnown bool) ([]Identity, error) {
	methods, err := loginMethods(ctx, v)
	if err != nil {
		return nil, err
	}
	mounts, named := sortedKeys(methods), false
	if mount, rest, ok := strings.Cut(name, "/"); ok && methods[mount] != "" {
		mounts, name, named = []string{mount}, rest, true
	}
	if name == "" {
		return nil, nil
	}
	var out []Identity
	for _, mount := range mounts {
		p, err := lookUp(ctx, v, name, methods[mount])
		if err != nil {
			return nil, err
		}
		if p != nil && !slices.ContainsFunc(out, func(o Identity) bool { return o.ID == p.ID }) {
			out = append(out, *p)
		}
	}
	if len(out) > 0 || !makeKnown {
		return out, nil
	}
	if !named {
		// A user of a method of Vault's own is known without having logged in.
		var local []string
		for _, mount := range mounts {
			if got, err := v.Read(ctx, "auth/"+mount+"/users/"+strings.ToLower(name)); err == nil && got != nil {
				local = append(local, mount)
			}
		}
		mounts = local
	}
	if len(mounts) != 1 {
		return nil, nil
	}
	p, err := makeKnownTo(ctx, v, mounts[0], name, methods[mounts[0]])
	return []Identity{p}, err
}

// lookUp finds the entity of one way to log in; nil: there is none.
func lookUp(ctx context.Context, v Vault, name, accessor string) (*Identity, error) {
	got, err := v.Write(ctx, "identity/lookup/entity", map[string]any{"alias_name": name, "alias_mount_accessor": accessor})
	if err != nil || got == nil {
		return nil, err
	}
	return identityOf(got), nil
}

func identityOf(got map[string]any) *Identity {
	p := &Identity{ID: text(got, "id"), Disabled: got["disabled"] == true}
	list, _ := got["aliases"].([]any)
	for _, a := range list {
		alias := mapOf(a)
		p.Aliases = append(p.Aliases, strings.TrimPrefix(strings.TrimSuffix(text(alias, "mount_path"), "/"), "auth/")+"/"+text(alias, "name"))
	}
	slices.Sort(p.Aliases)
	return p
}

// makeKnownTo makes the entity that the first login would have made.
func makeKnownTo(ctx context.Context, v Vault, mount, name, accessor string) (Identity, error) {
	got, err := v.Write(ctx, "identity/entity", map[string]any{"disabled": true})
	if err != nil {
		return Identity{}, err
	}
	p := Identity{ID: text(got, "id"), Aliases: []string{mount + "/" + name}, Disabled: true, made: true}
	if _, err := v.Write(ctx, "identity/entity-alias", map[string]any{"name": name, "canonical_id": p.ID, "mount_accessor": accessor}); err != nil {
		return Identity{}, err
	}
	return p, nil
}

// EndPerson shuts a person out: Vault refuses the entity at once, with whatever token
// it comes; then its tokens end, with their leases. It is disabled and never deleted,
// as a login would make a new one.
func EndPerson(ctx context.Context, v Vault, p Identity) (Ending, error) {
	out := Ending{Identity: p}
	if err := disable(ctx, v, p, true); err != nil {
		return out, err
	}
	var orphans atomic.Int64
	for {
		// One that had passed the check a moment before is found the next time.
		orphans.Store(0)
		all, err := tokens(ctx, v, func(t tokenSeen) bool {
			if t.orphan && t.entity == "" && strings.HasPrefix(t.path, "auth/token/create") {
				orphans.Add(1)
			}
			return t.entity == p.ID
		})
		if err != nil {
			return out, fmt.Errorf("%s is shut out, and tokens that nobody can use may be there still: %w", p, err)
		}
		if len(all) == 0 {
			break
		}
		if err := endAll(ctx, v, all); err != nil {
			return out, fmt.Errorf("%s is shut out, and tokens that nobody can use may be there still: %w", p, err)
		}
		out.Tokens += len(all)
	}
	out.Left = []string{
		"batch tokens can't be ended: they are refused as long as the person is shut out, and end by themselves",
		"login bundles that were handed out and not opened, and secret ids of apps: strongroom app show counts them",
		"what was read is known: rotate the keys and passwords that the person could read (strongroom app show; the audit log says which were read)",
	}
	if n := orphans.Load(); n > 0 {
		out.Left = append(out.Left, words.Count(int(n), "token")+" that somebody made to outlive the one that made it: whose it is Vault doesn't say (vault list auth/token/accessors, those with orphan true and no entity_id)")
	}
	if p.made {
		out.Left = append([]string{"nobody had logged in by that name yet, and nobody will"}, out.Left...)
	}
	return out, nil
}

// AllowPerson lets a person log in again, as the policies say by then.
func AllowPerson(ctx context.Context, v Vault, p Identity) error { return disable(ctx, v, p, false) }

func disable(ctx context.Context, v Vault, p Identity, disabled bool) error {
	if _, err := v.Write(ctx, "identity/entity/id/"+p.ID, map[string]any{"disabled": disabled}); err != nil {
		return err
	}
	got, err := v.Read(ctx, "identity/entity/id/"+p.ID)
	if err != nil {
		return err
	}
	if got == nil || (got["disabled"] == true) != disabled {
		return fmt.Errorf("vault has taken that entity %s is disabled=%t, and says otherwise", p.ID, disabled)
	}
	return nil
}

// One picks the person that is meant.
func One(people []Identity, all bool) ([]Identity, error) {
	switch {
	case len(people) == 0:
		return nil, ErrNobody
	case len(people) > 1 && !all:
		var names []string
		for _, p := range people {
			names = append(names, p.String())
		}
		return nil, fmt.Errorf("%w: %s", ErrSeveral, words.List(names, 10))
	}
	return people, nil
}
