package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom.example/config"
)

// maxTokens bounds how many tokens are looked up.
const maxTokens = 5000

// tokens is what the lookups found, once for several items.
type tokens struct {
	total  int // accessors
	looked int
	root   []string // accessors of tokens with the policy root
	// immortal have no end, by display name.
	immortal []string
	byPolicy map[string]int
	err      error
}

func (e *exam) allTokens(ctx context.Context) *tokens {
	if e.tokens != nil {
		return e.tokens
	}
	t := &tokens{byPolicy: map[string]int{}}
	e.tokens = t
	accessors, err := e.Vault.List(ctx, "auth/token/accessors")
	if err != nil {
		t.err = err
		return t
	}
	t.total = len(accessors)
	for _, a := range accessors[:min(len(accessors), maxTokens)] {
		data, err := e.Vault.Token(ctx, a)
		if err != nil {
			t.err = err
			return t
		}
		if data == nil {
			t.total--
			continue
		}
		t.looked++
		policies := texts(data["policies"])
		for _, p := range policies {
			t.byPolicy[p]++
		}
		if slices.Contains(policies, "root") {
			t.root = append(t.root, a)
		}
		if data["expire_time"] == nil {
			t.immortal = append(t.immortal, fmt.Sprintf("%v (accessor %s)", data["display_name"], a))
		}
	}
	return t
}

// rootToken is item 8.
func rootToken(ctx context.Context, e *exam) {
	file := path.Join(credentialDir, "root-token")
	if _, err := e.Machine.Stat(file); err == nil {
		e.fail("strongroom-installer install", "an unfinished installation has left its root token in %s", file)
	} else {
		e.saw(file, "not there")
	}
	if !e.vault("vault list auth/token/accessors") {
		return
	}
	t := e.allTokens(ctx)
	if t.err != nil {
		e.unseen("vault list auth/token/accessors", t.err)
		return
	}
	e.saw("vault list auth/token/accessors", "%s looked up, %d of root", plural(t.looked, "token"), len(t.root))
	for _, a := range t.root {
		e.fail("vault token revoke -accessor "+a, "a root token is alive")
	}
	if t.looked < t.total {
		e.unseen("tokens", fmt.Errorf("%d of %d were not looked up", t.total-t.looked, t.total))
	}
}

// tokensReviewed is item 21.
func tokensReviewed(ctx context.Context, e *exam) {
	if !e.vault("tokens, leases, entities") {
		return
	}
	t := e.allTokens(ctx)
	if t.err != nil {
		e.unseen("vault list auth/token/accessors", t.err)
	} else {
		var by []string
		for _, p := range slices.Sorted(maps.Keys(t.byPolicy)) {
			by = append(by, fmt.Sprintf("%s %d", p, t.byPolicy[p]))
		}
		e.saw("vault list auth/token/accessors", "%s; by policy: %s", plural(t.total, "token"), orNone(by))
		for _, name := range t.immortal {
			e.warn("vault token lookup -accessor …, and revoke it unless somebody answers for it", "a token never ends: %s", name)
		}
		if t.total > maxTokens/2 {
			e.warn("find out who logs in without end: vault read sys/internal/counters/tokens, and the audit log", "%d tokens are many", t.total)
		}
	}
	for _, q := range []struct{ path, what, field string }{
		{"sys/internal/counters/tokens", "service tokens", "counters.service_tokens.total"},
		{"sys/internal/counters/entities", "entities", "counters.entities.total"},
		{"sys/leases/count", "leases", "lease_count"},
	} {
		query := map[string][]string(nil)
		if q.field == "lease_count" {
			query = map[string][]string{"type": {"irrevocable"}}
		}
		data, err := e.Vault.Read(ctx, q.path, query)
		if err != nil {
			e.unseen("vault read "+q.path, err)
			continue
		}
		if q.field == "lease_count" {
			n := integer(data["lease_count"])
			e.saw("vault read sys/leases/count type=irrevocable", "%s that can't be revoked", plural(n, "lease"))
			if n > 0 {
				e.warn("vault read sys/leases type=irrevocable; then vault lease revoke -force", "%s can't be revoked: what they stand for is still valid elsewhere", plural(n, "lease"))
			}
			continue
		}
		e.saw("vault read "+q.path, "%d %s", integer(dig(data, q.field)), q.what)
	}
}

// shortTTL is the longest life of a machine's token that needs no second
// thought, longTTL Vault's own default, which is too long for one.
const (
	shortTTL = 24 * time.Hour
	longTTL  = 768 * time.Hour
)

// tokenTTL is item 22.
func tokenTTL(ctx context.Context, e *exam) {
	if !e.vault("auth methods and roles") {
		return
	}
	methods, err := e.Vault.Read(ctx, "sys/auth", nil)
	if err != nil {
		e.unseen("vault read sys/auth", err)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		m, ok := methods[name].(map[string]any)
		if !ok || m["type"] == nil {
			continue
		}
		// What is in force, whether the method's own or all of Vault's.
		p := "sys/auth/" + strings.TrimSuffix(name, "/") + "/tune"
		tune, err := e.Vault.Read(ctx, p, nil)
		if err == nil && integer(tune["max_lease_ttl"]) == 0 {
			err = errors.New("it tells no max_lease_ttl")
		}
		if err != nil {
			e.unseen("vault read "+p, err)
			continue
		}
		ceiling := time.Duration(integer(tune["max_lease_ttl"])) * time.Second
		e.saw("vault read "+p, "tokens live up to %v", ceiling)
		e.judgeTTL("vault read "+p, "auth/"+name, ceiling, 0)
		if m["type"] == "approle" {
			e.appRoles(ctx, strings.TrimSuffix(name, "/"), ceiling)
		}
	}
}

func (e *exam) appRoles(ctx context.Context, mount string, ceiling time.Duration) {
	roles, err := e.Vault.List(ctx, "auth/"+mount+"/role")
	if err != nil {
		e.unseen("vault list auth/"+mount+"/role", err)
		return
	}
	longest := time.Duration(0)
	for _, name := range roles {
		p := "auth/" + mount + "/role/" + name
		data, err := e.Vault.Read(ctx, p, nil)
		if err != nil {
			e.unseen("vault read "+p, err)
			continue
		}
		limit := ceiling
		if n := integer(data["token_max_ttl"]); n > 0 {
			limit = min(limit, time.Duration(n)*time.Second)
		}
		period := time.Duration(integer(data["token_period"])) * time.Second
		e.judgeTTL("vault read "+p, "AppRole "+name, limit, period)
		longest = max(longest, limit, period)
	}
	e.saw("vault list auth/"+mount+"/role", "%s, tokens live up to %v", plural(len(roles), "AppRole"), longest)
}

func (e *exam) judgeTTL(looked, what string, limit, period time.Duration) {
	const remedy = "set token_max_ttl (and no token_period) to 24h or less, or max_lease_ttl in appliance.toml"
	switch {
	case period > shortTTL:
		e.fail(remedy, "%s: tokens are renewed without end, %v each (%s)", what, period, looked)
	case limit >= longTTL:
		e.fail(remedy, "%s: tokens live up to %v (%s)", what, limit, looked)
	case limit > shortTTL:
		e.warn(remedy, "%s: tokens live up to %v (%s)", what, limit, looked)
	}
}

// userLockout is item 9.
func userLockout(ctx context.Context, e *exam) {
	f, ok := e.configuration()
	if !ok {
		return
	}
	const remedy = "put user_lockout \"all\" back into vault.hcl: " + reinstall
	found := false
	for _, l := range f.Lockouts {
		for kind, b := range l {
			found = found || kind == "all"
			e.saw(vaultHCL, "user_lockout %q: threshold %s, duration %s, disabled %s", kind, b.setting("lockout_threshold"), b.setting("lockout_duration"), orWord(b.setting("disable_lockout"), "false"))
			if b.setting("disable_lockout") == "true" {
				e.fail(remedy, "user_lockout %q has disable_lockout = true", kind)
			}
			if n := number(b.setting("lockout_threshold")); n > 10 {
				e.fail(remedy, "user_lockout %q lets a password be tried %d times", kind, n)
			}
		}
	}
	if !found {
		e.fail(remedy, "%s has no user_lockout \"all\"", vaultHCL)
	}
	if !e.vault("vault read sys/auth") {
		return
	}
	methods, err := e.Vault.Read(ctx, "sys/auth", nil)
	if err != nil {
		e.unseen("vault read sys/auth", err)
		return
	}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		t, ok := methods[name].(map[string]any)
		// Vault locks out at these methods only.
		if !ok || !slices.Contains([]string{"userpass", "ldap", "approle"}, text(t["type"])) {
			continue
		}
		p := "sys/auth/" + strings.TrimSuffix(name, "/") + "/tune"
		tune, err := e.Vault.Read(ctx, p, nil)
		if err != nil {
			e.unseen("vault read "+p, err)
			continue
		}
		n++
		if tune["user_lockout_disable"] == true {
			e.fail("vault auth tune -user-lockout-disable=false "+strings.TrimSuffix(name, "/"), "auth/%s has user lockout disabled", name)
		}
	}
	e.saw("vault read sys/auth/…/tune", "%s looked at", plural(n, "auth method"))
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

// vaultVersion is item 12.
func vaultVersion(ctx context.Context, e *exam) {
	h, err := e.Vault.Health(ctx)
	if err != nil {
		e.unseen("Vault's health", err)
		return
	}
	e.saw("GET /v1/sys/health", "Vault %s; the oldest without known faults is %s", h.Version, config.VaultFloor)
	old, err := config.OldVault(h.Version)
	switch {
	case err != nil:
		e.warn("docs/upgrade.md", "version %q can't be compared", h.Version)
	case old && e.Config.Vault.AllowOld:
		e.warn("upgrade Vault to "+config.VaultVersion+": docs/upgrade.md", "Vault %s has known faults, and vault.allow_old insists on it", h.Version)
	case old:
		e.fail("upgrade Vault to "+config.VaultVersion+": docs/upgrade.md", "Vault %s has known faults", h.Version)
	}
}

// pluginPinned is item 17.
func pluginPinned(ctx context.Context, e *exam) {
	if !e.vault("vault read sys/mounts") {
		return
	}
	mounts, err := e.Vault.Read(ctx, "sys/mounts", nil)
	if err != nil {
		e.unseen("vault read sys/mounts", err)
		return
	}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(mounts)) {
		m, ok := mounts[name].(map[string]any)
		if !ok {
			continue
		}
		running, sum := text(m["running_plugin_version"]), text(m["running_sha256"])
		if m["type"] == nil || sum == "" && (running == "" || strings.Contains(running, "builtin")) {
			continue
		}
		n++
		e.onePlugin(ctx, name, m, running, sum)
	}
	e.saw("vault read sys/mounts", "%s not built into Vault", plural(n, "plugin"))
}

func (e *exam) onePlugin(ctx context.Context, name string, m map[string]any, running, sum string) {
	kind, version := text(m["type"]), text(m["plugin_version"])
	e.saw("mount "+name, "%s, pinned version %q, running %s, sha256 %.12s…", kind, version, running, sum)
	if version == "" {
		e.fail("vault secrets tune -plugin-version="+running+" "+strings.TrimSuffix(name, "/"), "mount %s is not pinned to a version of %s", name, kind)
		return
	}
	entry, err := e.Vault.Read(ctx, "sys/plugins/catalog/secret/"+kind, map[string][]string{"version": {version}})
	if err != nil {
		e.unseen("vault read sys/plugins/catalog/secret/"+kind, err)
		return
	}
	want := text(entry["sha256"])
	if want == "" {
		e.fail(reinstall, "the catalog has no %s %s", kind, version)
		return
	}
	if sum != want {
		e.fail("vault plugin reload -mounts="+strings.TrimSuffix(name, "/"), "mount %s runs %.12s…, and the catalog has %.12s…", name, sum, want)
	}
	file := path.Join(pluginDir, path.Base(text(entry["command"])))
	got, err := e.Machine.Sum(file)
	if err != nil {
		e.unseen(file, err)
		return
	}
	e.saw(file, "sha256 %.12s…", got)
	if got != want {
		e.fail(reinstall+"; find out who has changed it", "%s has the sha256 %.12s…, and the catalog %.12s…: Vault will not start it", file, got, want)
	}
}

// dig follows dots through nested tables.
func dig(m map[string]any, dotted string) any {
	var v any = m
	for key := range strings.SplitSeq(dotted, ".") {
		t, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = t[key]
	}
	return v
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func texts(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, x := range list {
		out = append(out, text(x))
	}
	return out
}

// integer reads a number of Vault's answers; 0 for what is none.
func integer(v any) int {
	switch n := v.(type) {
	case json.Number:
		i, err := strconv.Atoi(n.String())
		if err == nil {
			return i
		}
	case float64:
		return int(n)
	case int:
		return n
	}
	return 0
}
