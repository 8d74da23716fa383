package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
)

// ended says which live tokens end with a login that goes. Nothing but the way by
// which a token came tells what it is of.
func ended(o object) func(t tokenSeen) bool {
	mount, name, _ := strings.Cut(o.name, "/")
	switch {
	case o.kind == kindAppRole:
		return func(t tokenSeen) bool {
			return t.path == "auth/"+machine.AuthAppRole+"/login" && t.meta["role_name"] == o.name
		}
	case o.kind != kindAuthEntry:
		return nil
	case strings.HasPrefix(o.path, "auth/"+mount+"/users/"):
		name = strings.TrimPrefix(o.path, "auth/"+mount+"/users/")
		return func(t tokenSeen) bool { return strings.EqualFold(t.path, "auth/"+mount+"/login/"+name) }
	case strings.HasPrefix(o.path, "auth/"+mount+"/role/"):
		return func(t tokenSeen) bool { return strings.HasPrefix(t.path, "auth/"+mount+"/") && t.meta["role"] == name }
	}
	return nil // a directory's group: who was in it only the directory knows
}

// endsHow is what prune says of a login.
func (w *world) endsHow(o object) string {
	if ended(o) != nil {
		return "tokens that came by it end at once, with their leases"
	}
	return "who logged in by it stays so until the token's end, " + w.bound(o) + " at most; strongroom person end does it now"
}

// bound is how long a token of an auth method can still live.
func (w *world) bound(o object) string {
	mount, _, _ := strings.Cut(o.name, "/")
	for _, a := range w.conf.Auth {
		if a.MountPath() == mount && a.TokenMaxTTL > 0 {
			return a.TokenMaxTTL.String()
		}
	}
	if d := w.limits.server; d > 0 {
		return d.String()
	}
	return "the mount's limit"
}

// tokenSeen is what Vault tells of a live token.
type tokenSeen struct {
	accessor, path, name, entity string
	meta                         map[string]any
	orphan                       bool
}

// tokens looks at all live tokens, and gives those that match.
func tokens(ctx context.Context, v Vault, match func(tokenSeen) bool) ([]tokenSeen, error) {
	accessors, err := v.List(ctx, "auth/token/accessors")
	if err != nil {
		return nil, fmt.Errorf("list live tokens: %w", err)
	}
	var mu sync.Mutex
	var out []tokenSeen
	err = each(ctx, len(accessors), func(ctx context.Context, i int) error {
		got, err := v.Write(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": accessors[i]})
		if tokenGone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at a live token: %w", err)
		}
		t := tokenSeen{
			accessor: accessors[i], path: text(got, "path"), name: text(got, "display_name"), entity: text(got, "entity_id"), meta: mapOf(got["meta"]),
			orphan: got["orphan"] == true,
		}
		if match(t) {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, t)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b tokenSeen) int { return strings.Compare(a.accessor, b.accessor) })
	return out, err
}

// tokenGone: 403 of older versions, 404 or 400 of newer; its words alone tell it. A
// token that ends with its maker's at that moment has others.
func tokenGone(err error) bool {
	return vaultapi.Says(err, "invalid accessor") || vaultapi.Says(err, "token not found")
}

// endAll ends tokens, with their leases and the tokens made by them.
func endAll(ctx context.Context, v Vault, all []tokenSeen) error {
	return each(ctx, len(all), func(ctx context.Context, i int) error {
		_, err := v.Write(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": all[i].accessor})
		if err != nil && !tokenGone(err) {
			return fmt.Errorf("end a token of %s: %w", all[i].name, err)
		}
		return nil
	})
}

// entities are the people whose logins are gone.
func (w *world) entities(ctx context.Context, changes []Change, gone entering) ([]string, error) {
	var out []string
	for _, c := range changes {
		mount, _, _ := strings.Cut(c.Name, "/")
		name, user := strings.CutPrefix(c.object.path, "auth/"+mount+"/users/")
		if _, went := gone[c.object.id()]; !went || !user || c.Kind != kindAuthEntry || w.accessors[mount] == "" {
			continue
		}
		p, err := lookUp(ctx, w.vault, name, w.accessors[mount])
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, p.ID)
		}
	}
	return out, nil
}

// endTokens ends what came by logins that are gone. What can't be ended is told, and
// its login is in the ledger until it can.
func (w *world) endTokens(ctx context.Context, o Options, changes []Change, gone entering) error {
	matches := map[string]func(tokenSeen) bool{}
	for _, c := range changes {
		if _, went := gone[c.object.id()]; went {
			if m := ended(c.object); m != nil {
				matches[c.object.id()] = m
			}
		}
	}
	if len(matches) == 0 {
		return nil
	}
	people, err := w.entities(ctx, changes, gone)
	if err != nil {
		people = nil // who may not ask ends what came by the logins themselves
	}
	all, err := tokens(ctx, w.vault, func(t tokenSeen) bool {
		for _, m := range matches {
			if m(t) {
				return true
			}
		}
		// Of somebody who has gone: a token that was made to outlive the one that made it.
		return t.entity != "" && slices.Contains(people, t.entity) && strings.HasPrefix(t.path, "auth/token/")
	})
	if err == nil {
		err = endAll(ctx, w.vault, all)
	}
	if err != nil {
		for id := range matches {
			delete(gone, id)
		}
		return &NeedsOperator{
			Err:  errors.Join(errors.New("nobody can log in by them any more, and tokens that came by them may live on"), err),
			Hint: "run strongroom app prune again, as an administrator",
		}
	}
	if o.Out != nil && len(all) > 0 {
		fmt.Fprintf(o.Out, "ended %s\n", words.Count(len(all), "live token"))
	}
	return nil
}
