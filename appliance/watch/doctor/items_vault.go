package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
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

func rootTokenFile(_ context.Context, e *exam) {
	file := machine.RootTokenFile
	switch _, err := e.Machine.Stat(file); {
	case err == nil:
		e.fail("strongroom-installer install", "an unfinished installation has left its root token in %s", file)
	case errors.Is(err, fs.ErrNotExist):
		e.yes(file, "not there")
	default:
		e.unseen(file, err)
	}
}

// tokensSeen looks up all tokens, and notes where that could not be.
func (e *exam) tokensSeen(ctx context.Context) (*tokens, bool) {
	if !e.vault("vault list auth/token/accessors") {
		return nil, false
	}
	t := e.allTokens(ctx)
	if t.err != nil {
		e.unseen("vault list auth/token/accessors", t.err)
		return nil, false
	}
	if t.looked < t.total {
		e.unseen("tokens", fmt.Errorf("%d of %d were not looked up", t.total-t.looked, t.total))
	}
	return t, true
}

func rootToken(ctx context.Context, e *exam) {
	t, ok := e.tokensSeen(ctx)
	if !ok {
		return
	}
	e.found(t.looked, "vault list auth/token/accessors", "%s looked up, %d of root", words.Count(t.looked, "token"), len(t.root))
	for _, a := range t.root {
		e.fail("vault token revoke -accessor "+a, "a root token is alive")
	}
}

func tokensEnd(ctx context.Context, e *exam) {
	t, ok := e.tokensSeen(ctx)
	if !ok {
		return
	}
	var by []string
	for _, p := range slices.Sorted(maps.Keys(t.byPolicy)) {
		by = append(by, fmt.Sprintf("%s %d", p, t.byPolicy[p]))
	}
	e.found(t.looked, "vault list auth/token/accessors", "%s; by policy: %s", words.Count(t.looked, "token"), orNone(by))
	for _, name := range t.immortal {
		e.warn("vault token lookup -accessor …, and revoke it unless somebody answers for it", "a token never ends: %s", name)
	}
	if t.total > maxTokens/2 {
		e.warn("find out who logs in without end: the audit log tells", "%d tokens are many", t.total)
	}
}

// entitiesCounted counts what logins have made: each AppRole that has logged in
// has one.
func entitiesCounted(ctx context.Context, e *exam) {
	const p = "identity/entity/id"
	if ids, ok := e.list(ctx, p); ok {
		e.found(len(ids), "vault list "+p, "%s", words.Count(len(ids), "record"))
	}
}

func leasesRevocable(ctx context.Context, e *exam) {
	const p, kind = "sys/leases/count", "irrevocable"
	data, ok := e.read(ctx, p, map[string][]string{"type": {kind}})
	if !ok {
		return
	}
	n, ok := integer(data["lease_count"])
	if !ok {
		e.unseen("vault read "+p, errors.New("it tells no lease_count"))
		return
	}
	e.yes("vault read "+p+" type="+kind, "%s that can't be revoked", words.Count(n, "lease"))
	if n > 0 {
		e.warn("vault read sys/leases type=irrevocable; then vault lease revoke -force", "%s can't be revoked: what they stand for is still valid elsewhere", words.Count(n, "lease"))
	}
}

// shortTTL is the longest life of a machine's token that needs no second
// thought, longTTL Vault's own default, which is too long for one.
const (
	shortTTL = 24 * time.Hour
	longTTL  = 768 * time.Hour
)

// methods are the auth methods, by their names without a slash, and their types.
func (e *exam) methods(ctx context.Context) (map[string]string, bool) {
	data, ok := e.read(ctx, "sys/auth", nil)
	if !ok {
		return nil, false
	}
	out := map[string]string{}
	for name, d := range data {
		if m, ok := d.(map[string]any); ok && text(m["type"]) != "" {
			out[strings.TrimSuffix(name, "/")] = text(m["type"])
		}
	}
	return out, true
}

// ceiling is how long the tokens of an auth method live at most, whether by the
// method's own setting or all of Vault's.
func (e *exam) ceiling(ctx context.Context, method string) (time.Duration, bool) {
	p := "sys/auth/" + method + "/tune"
	tune, ok := e.read(ctx, p, nil)
	if !ok {
		return 0, false
	}
	n, ok := integer(tune["max_lease_ttl"])
	if !ok || n == 0 {
		e.unseen("vault read "+p, errors.New("it tells no max_lease_ttl"))
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

func methodTTL(ctx context.Context, e *exam) {
	methods, ok := e.methods(ctx)
	if !ok {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		ceiling, ok := e.ceiling(ctx, name)
		if !ok {
			continue
		}
		looked := "vault read sys/auth/" + name + "/tune"
		if methods[name] == "approle" {
			// Its secret ids live so long, and each role's tokens are looked at by themselves.
			e.found(1, looked, "nothing lives longer than %v; tokens as their roles say", ceiling)
			continue
		}
		e.found(1, looked, "tokens live up to %v", ceiling)
		e.judgeTTL(looked, "auth/"+name+"/", ceiling, 0)
	}
}

func appRoleTTL(ctx context.Context, e *exam) {
	methods, ok := e.methods(ctx)
	if !ok {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if methods[name] != "approle" {
			continue
		}
		if ceiling, ok := e.ceiling(ctx, name); ok {
			e.appRoles(ctx, name, ceiling)
		}
	}
}

func (e *exam) appRoles(ctx context.Context, mount string, ceiling time.Duration) {
	roles, ok := e.list(ctx, "auth/"+mount+"/role")
	if !ok {
		return
	}
	seen, longest := 0, time.Duration(0)
	for _, name := range roles {
		p := "auth/" + mount + "/role/" + name
		data, ok := e.read(ctx, p, nil)
		if !ok {
			continue
		}
		most, ok1 := integer(data["token_max_ttl"])
		periods, ok2 := integer(data["token_period"])
		if !ok1 || !ok2 {
			e.unseen("vault read "+p, errors.New("it tells no token_max_ttl, or no token_period"))
			continue
		}
		seen++
		limit, period := ceiling, time.Duration(periods)*time.Second
		if most > 0 {
			limit = min(limit, time.Duration(most)*time.Second)
		}
		e.judgeTTL("vault read "+p, "AppRole "+name, limit, period)
		longest = max(longest, limit, period)
	}
	e.found(seen, "vault list auth/"+mount+"/role", "%s, tokens live up to %v", words.Count(seen, "AppRole"), longest)
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

// maxTries is how often a password may be tried before its user is locked out.
const maxTries = 10

// generateRootShut finds what a killed "strongroom generate-root" has left, and
// what somebody has written. Before 2.0 Vault asks for no token anyway.
func generateRootShut(_ context.Context, e *exam) {
	f, ok := e.configuration()
	if !ok {
		return
	}
	switch {
	case len(f.Listeners) == 0:
		e.unseen(machine.VaultHCL, errors.New("it has no listener, so it is not what Vault runs with"))
	case len(f.Unauthenticated) > 0:
		e.fail("systemctl restart "+machine.UnitVault+" takes out what strongroom generate-root has left; what stays: "+reinstall,
			"%s lets callers without a token at %s", machine.VaultHCL, strings.Join(f.Unauthenticated, ", "))
	case f.gate() != "":
		e.fail("systemctl restart "+machine.UnitVault+" takes out what strongroom generate-root has left; what stays: "+reinstall,
			"%s lets callers without a token at generate-root, on %s", machine.VaultHCL, f.gate())
	default:
		e.yes(machine.VaultHCL, "enable_unauthenticated_access is not there, and no listener of OpenBao's that lets strangers make root tokens")
	}
}

func lockoutConfigured(_ context.Context, e *exam) {
	f, ok := e.configuration()
	if !ok {
		return
	}
	const remedy = "put user_lockout \"all\" back into vault.hcl: " + reinstall
	found := false
	for _, l := range f.Lockouts {
		for kind, b := range l {
			found = found || kind == "all"
			e.saw(machine.VaultHCL, "user_lockout %q: threshold %s, duration %s, disabled %s", kind, b.setting("lockout_threshold"), b.setting("lockout_duration"), orWord(b.setting("disable_lockout"), "false"))
			if off := b.setting("disable_lockout"); off != "" && off != "false" {
				e.fail(remedy, "user_lockout %q has disable_lockout = %s", kind, off)
			}
			if tries := b.setting("lockout_threshold"); number(tries) < 1 || number(tries) > maxTries {
				e.fail(remedy, "user_lockout %q lets a password be tried %s times, and at most %d are wanted", kind, orWord(tries, "who knows how many"), maxTries)
			}
			if kind == "all" {
				e.found(1, machine.VaultHCL, "user_lockout \"all\" is there")
			}
		}
	}
	if !found {
		e.fail(remedy, "%s has no user_lockout \"all\"", machine.VaultHCL)
	}
}

func lockoutTuned(ctx context.Context, e *exam) {
	methods, ok := e.methods(ctx)
	if !ok {
		return
	}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		// Vault locks out at these methods only.
		if !slices.Contains([]string{"userpass", "ldap", "approle"}, methods[name]) {
			continue
		}
		tune, ok := e.read(ctx, "sys/auth/"+name+"/tune", nil)
		if !ok {
			continue
		}
		n++
		if off := tune["user_lockout_disable"] == true; name == machine.AuthLocal && !off {
			e.fail("vault auth tune -user-lockout-disable=true "+name, "auth/%s/ has user lockout, and is the way in for who is locked out elsewhere", name)
		} else if name != machine.AuthLocal && off {
			e.fail("vault auth tune -user-lockout-disable=false "+name, "auth/%s/ has user lockout disabled", name)
		}
	}
	e.found(n, "vault read sys/auth/…/tune", "%s looked at", words.Count(n, "auth method"))
}

// wayInUnlocked looks for the log-in that nobody outside can lock. A rate-limit quota
// goes by the client's address, of which there is none on Vault's socket: Vault then
// answers 500.
func wayInUnlocked(ctx context.Context, e *exam) {
	methods, ok := e.methods(ctx)
	if !ok {
		return
	}
	if methods[machine.AuthLocal] != machine.AuthUserpass {
		e.warn(reinstall+", as an administrator", "auth/%s/ is not there: five wrong passwords from anywhere lock an administrator out", machine.AuthLocal)
	}
	const p = "sys/quotas/rate-limit"
	quotas, ok := e.list(ctx, p)
	if !ok {
		return
	}
	e.yes("vault list "+p, "auth/%s/ of type %q, %s", machine.AuthLocal, methods[machine.AuthLocal], words.Count(len(quotas), "rate-limit quota"))
	for _, name := range quotas {
		e.fail("vault delete "+p+"/"+name+": the front has limits by address (docs/certificates.md)", "rate-limit quota %q: on its socket Vault answers 500 to what it is for", name)
	}
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

func vaultVersion(ctx context.Context, e *exam) {
	h, err := e.Vault.Health(ctx)
	if err != nil {
		e.unseen("Vault's health", err)
		return
	}
	server := h.Server()
	want := e.Config.Vault.Product
	upgrade := "upgrade " + server.Product.String() + " to " + server.Product.Release() + ": docs/upgrade.md"
	e.saw("GET /v1/sys/health", "%s; the oldest without known faults is %s", server, server.Product.Floor())
	old, err := server.Old()
	switch {
	case err != nil:
		e.warn("docs/upgrade.md", "version %q can't be compared", h.Version)
	case !server.Product.Is(want):
		e.fail("strongroom-installer install, with the program of "+want.String()+": docs/openbao.md", "%s answers, and vault.product is %q", server, string(want.Known()))
	case old && e.Config.Vault.AllowOld:
		e.warn(upgrade, "%s has known faults, and vault.allow_old insists on it", server)
	case old:
		e.fail(upgrade, "%s has known faults", server)
	default:
		e.yes("GET /v1/sys/health", "%s has none", server)
	}
}

// plugin is what a mount runs.
type plugin struct {
	kind, version string // as it is pinned
	running, sum  string
}

// plugins are the mounts whose plugin is not built into Vault, by their names
// without a slash.
func (e *exam) plugins(ctx context.Context) (map[string]plugin, bool) {
	mounts, ok := e.read(ctx, "sys/mounts", nil)
	if !ok {
		return nil, false
	}
	out := map[string]plugin{}
	for name, d := range mounts {
		m, _ := d.(map[string]any)
		p := plugin{text(m["type"]), text(m["plugin_version"]), text(m["running_plugin_version"]), text(m["running_sha256"])}
		if p.kind != "" && (p.sum != "" || p.running != "" && !strings.Contains(p.running, "builtin")) {
			out[strings.TrimSuffix(name, "/")] = p
		}
	}
	return out, true
}

func engineMounted(ctx context.Context, e *exam) {
	plugins, ok := e.plugins(ctx)
	if !ok {
		return
	}
	if p, ok := plugins[e.Mount]; ok {
		e.yes("vault read sys/mounts", "%s/ is %s %s", e.Mount, p.kind, p.running)
		return
	}
	e.fail(reinstall, "no plugin is mounted at %s/: the keys of applications are not served", e.Mount)
}

func pluginPinned(ctx context.Context, e *exam) {
	plugins, ok := e.plugins(ctx)
	if !ok {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		e.onePlugin(ctx, name, plugins[name])
	}
	e.found(len(plugins), "vault read sys/mounts", "%s not built into Vault", words.Count(len(plugins), "plugin"))
}

func (e *exam) onePlugin(ctx context.Context, name string, m plugin) {
	kind, version, sum := m.kind, m.version, m.sum
	e.saw("mount "+name+"/", "%s, pinned version %q, running %s, sha256 %.12s…", kind, version, m.running, sum)
	if version == "" {
		e.fail("vault secrets tune -plugin-version="+m.running+" "+name, "mount %s/ is not pinned to a version of %s", name, kind)
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
		e.fail("vault plugin reload -mounts="+name, "mount %s/ runs %.12s…, and the catalog has %.12s…", name, sum, want)
	}
	file := path.Join(machine.PluginDir, path.Base(text(entry["command"])))
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

// integer reads a number of Vault's answers; false for what is none: nothing is
// no zero.
func integer(v any) (int, bool) {
	switch n := v.(type) {
	case json.Number:
		i, err := strconv.Atoi(n.String())
		return i, err == nil
	case float64:
		return int(n), true
	case int:
		return n, true
	}
	return 0, false
}
