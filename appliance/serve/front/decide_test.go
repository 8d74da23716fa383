package front

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"strongroom.example/config/machine"
)

func TestDecide(t *testing.T) {
	tests := []struct {
		name         string
		method, path string // as in the request line
		ns           string
		want         verdict
	}{
		{"a secret", "GET", "/v1/secret/data/app/production/database-url", "", passed},
		{"a list", "LIST", "/v1/secret/metadata/app/", "", passed},
		{"a secret with a space", "GET", "/v1/secret/data/my%20app", "", passed},
		{"a secret with an encoded slash", "GET", "/v1/secret/data/a%2Fb", "", passed},
		{"a secret with a percent sign", "GET", "/v1/secret/data/100%25", "", passed},
		{"a secret in a folder sys", "GET", "/v1/secret/data/sys/production/database-url", "", passed},
		{"a secret named like the word", "GET", "/v1/secret/data/system/init", "", passed},
		{"a login", "POST", "/v1/auth/approle/login", "", passed},
		{"an auth method named sys", "POST", "/v1/auth/sys/init", "", passed},
		{"health", "GET", "/v1/sys/health", "", passed},
		{"health by HEAD", "HEAD", "/v1/sys/health", "", passed},
		{"health of a namespace", "GET", "/v1/sys/health", "team/", passed},
		{"unwrap", "PUT", "/v1/sys/wrapping/unwrap", "", passed},
		{"renew with the lease in the path", "PUT", "/v1/sys/leases/renew/database/creds/app/x", "", passed},
		{"the settings that the UI of Vault 2.2 asks for", "GET", "/v1/sys/internal/ui/settings", "", passed},
		{"settings, changed", "POST", "/v1/sys/internal/ui/settings", "", refusedSystem},
		{"mount of a secret for vault kv", "GET", "/v1/sys/internal/ui/mounts/secret/my%20app", "", passed},
		{"list of policies", "LIST", "/v1/sys/policies/acl/", "", passed},
		{"a policy", "DELETE", "/v1/sys/policies/acl/app", "", passed},

		{"init", "PUT", "/v1/sys/init", "", refusedSystem},
		{"init's state", "GET", "/v1/sys/init", "", refusedSystem},
		{"unseal", "PUT", "/v1/sys/unseal", "", refusedSystem},
		{"seal", "PUT", "/v1/sys/seal", "", refusedSystem},
		{"rekey", "PUT", "/v1/sys/rekey/init", "", refusedSystem},
		{"rekey of recovery keys", "PUT", "/v1/sys/rekey-recovery-key/init", "", refusedSystem},
		{"generate-root", "PUT", "/v1/sys/generate-root/attempt", "", refusedSystem},
		{"decode-token", "PUT", "/v1/sys/decode-token", "", refusedSystem},
		{"raft bootstrap", "POST", "/v1/sys/storage/raft/bootstrap", "", refusedSystem},
		{"raft join", "POST", "/v1/sys/storage/raft/join", "", refusedSystem},
		{"snapshot", "GET", "/v1/sys/storage/raft/snapshot", "", refusedSystem},
		{"restore", "PUT", "/v1/sys/storage/raft/snapshot-force", "", refusedSystem},
		{"raw", "GET", "/v1/sys/raw/core/keyring", "", refusedSystem},
		{"step-down", "PUT", "/v1/sys/step-down", "", refusedSystem},
		{"plugins", "PUT", "/v1/sys/plugins/catalog/secret/x", "", refusedSystem},
		{"monitor", "GET", "/v1/sys/monitor", "", refusedSystem},
		{"metrics", "GET", "/v1/sys/metrics", "", refusedSystem},
		{"pprof", "GET", "/v1/sys/pprof/heap", "", refusedSystem},
		{"audit", "PUT", "/v1/sys/audit/x", "", refusedSystem},
		{"mass revocation", "PUT", "/v1/sys/leases/revoke-prefix/database", "", refusedSystem},
		{"forced revocation", "PUT", "/v1/sys/revoke-force/database", "", refusedSystem},
		{"new mount", "POST", "/v1/sys/mounts/x", "", refusedSystem},
		{"sys alone", "GET", "/v1/sys", "", refusedSystem},
		{"sys with a slash", "GET", "/v1/sys/", "", refusedSystem},
		{"what Vault may have tomorrow", "GET", "/v1/sys/brand-new", "", refusedSystem},
		{"health with a method it has not", "PUT", "/v1/sys/health", "", refusedSystem},
		{"health with a slash", "GET", "/v1/sys/health/", "", refusedSystem},
		{"below an exact entry", "GET", "/v1/sys/health/x", "", refusedSystem},

		{"encoded letter", "PUT", "/v1/s%79s/init", "", refusedSystem},
		{"encoded letter of an allowed path", "GET", "/v1/s%79s/health", "", refusedSystem},
		{"encoded slash", "PUT", "/v1/sys%2Finit", "", refusedSystem},
		{"encoded slash before sys", "PUT", "/v1%2fsys/init", "", refusedSystem},
		{"encoded twice", "PUT", "/v1/sys%252Finit", "", refusedSystem},
		{"encoded three times", "PUT", "/v1/sys%25252Finit", "", refusedSystem},
		{"encoded without end", "PUT", "/v1/%25252525252525252573ys/init", "", refusedSpelled},
		{"two slashes", "PUT", "/v1//sys/init", "", refusedSystem},
		{"two slashes at the start", "PUT", "//v1/sys/init", "", refusedSystem},
		{"two slashes in an allowed path", "GET", "/v1/sys//health", "", refusedSystem},
		{"a dot", "PUT", "/v1/./sys/init", "", refusedSystem},
		{"an encoded dot", "PUT", "/v1/%2e/sys/init", "", refusedSystem},
		{"up and down", "PUT", "/v1/secret/../sys/init", "", refusedSpelled},
		{"up and down, encoded", "PUT", "/v1/secret/%2e%2e/sys/init", "", refusedSpelled},
		{"up and down, slash encoded too", "PUT", "/v1/secret%2f..%2fsys/init", "", refusedSpelled},
		{"up out of an allowed path", "PUT", "/v1/sys/health/../init", "", refusedSpelled},
		{"up out of the UI", "PUT", "/ui/../v1/sys/init", "", refusedSpelled},
		{"capitals", "PUT", "/v1/SYS/init", "", refusedSystem},
		{"capitals in the version", "PUT", "/V1/sys/init", "", refusedSystem},
		{"capitals in an allowed path", "GET", "/v1/sys/Health", "", refusedSystem},
		{"backslashes", "PUT", `/v1%5Csys%5Cinit`, "", refusedSystem},
		{"control character", "PUT", "/v1/secret/%00/x", "", refusedSpelled},
		{"encoded slash in an allowed tail", "GET", "/v1/sys/internal/ui/mounts/..%2f..%2f..%2finit", "", refusedSpelled},
		{"namespace in the path", "PUT", "/v1/team/sys/init", "", refusedSystem},
		{"two namespaces in the path", "PUT", "/v1/team/sub/sys/unseal", "", refusedSystem},
		{"namespace in the path, allowed", "GET", "/v1/team/sys/health", "", passed},
		{"namespace in the path, encoded", "PUT", "/v1/team%2Fsys%2Finit", "", refusedSystem},
		{"namespace in the header", "PUT", "/v1/sys/init", "team", refusedSystem},
		{"sys as the header", "PUT", "/v1/init", "sys", refusedSystem},
		{"sys in the header", "PUT", "/v1/init", "team/SYS/", refusedSystem},
		{"sys in the header, encoded", "PUT", "/v1/init", "team%2fsys", refusedSystem},
		{"sys in the header of an allowed path", "GET", "/v1/sys/health", "sys", refusedSpelled},

		{"the machine's own log-in", "POST", "/v1/auth/strongroom-local/login/admin", "", refusedLocal},
		{"with a slash at its end", "PUT", "/v1/auth/strongroom-local/login/admin/", "", refusedLocal},
		{"its mount alone", "GET", "/v1/auth/strongroom-local", "", refusedLocal},
		{"its users, whoever asks", "LIST", "/v1/auth/strongroom-local/users", "", refusedLocal},
		{"its tuning", "GET", "/v1/sys/auth/strongroom-local/tune", "", refusedLocal},
		{"local, encoded letter", "POST", "/v1/auth/strongroom%2dlocal/login/admin", "", refusedLocal},
		{"local, encoded letter of auth", "POST", "/v1/%61uth/strongroom-local/login/admin", "", refusedLocal},
		{"local, encoded twice", "POST", "/v1/auth/strongroom%252dlocal/login/admin", "", refusedLocal},
		{"local, encoded slash", "POST", "/v1/auth%2Fstrongroom-local%2Flogin%2Fadmin", "", refusedLocal},
		{"local, backslashes", "POST", "/v1/auth%5Cstrongroom-local/login/admin", "", refusedLocal},
		{"local, two slashes", "POST", "/v1/auth//strongroom-local/login/admin", "", refusedLocal},
		{"local, two slashes at the start", "POST", "//v1/auth/strongroom-local/login/admin", "", refusedLocal},
		{"local, a dot", "POST", "/v1/auth/./strongroom-local/login/admin", "", refusedLocal},
		{"local, up and down", "POST", "/v1/auth/x/../strongroom-local/login/admin", "", refusedSpelled},
		{"local, up and down at its end", "POST", "/v1/auth/strongroom-local/x/../login/admin", "", refusedSpelled},
		{"local, capitals", "POST", "/v1/AUTH/Strongroom-LOCAL/login/admin", "", refusedLocal},
		{"local, a sign that folds to a letter", "POST", "/v1/auth/%C5%BFtrongroom-local/login/admin", "", passed}, // Vault folds no letters
		{"local, a parameter", "POST", "/v1/auth/strongroom-local;a=b/login/admin", "", refusedLocal},
		{"local, a space at its end", "POST", "/v1/auth/strongroom-local%20/login/admin", "", refusedLocal},
		{"local, a dot at its end", "POST", "/v1/auth/strongroom-local./login/admin", "", refusedLocal},
		{"local, a NUL at its end", "POST", "/v1/auth/strongroom-local%00/login/admin", "", refusedSpelled},
		{"local, behind a namespace", "POST", "/v1/team/auth/strongroom-local/login/admin", "", refusedLocal},
		{"local, behind the root namespace", "POST", "/v1/root/auth/strongroom-local/login/admin", "", refusedLocal},
		{"local, in a namespace", "POST", "/v1/auth/strongroom-local/login/admin", "team", refusedLocal},
		{"auth as the header", "POST", "/v1/strongroom-local/login/admin", "auth", refusedLocal},
		{"auth in the header, encoded", "POST", "/v1/strongroom-local/login/admin", "root%2fauth%2f", refusedLocal},
		{"local in the header", "POST", "/v1/login/admin", "auth/strongroom-local", refusedLocal},
		{"local, below another version", "POST", "/V1/auth/strongroom-local/login/admin", "", refusedLocal},
		{"local without v1", "POST", "/auth/strongroom-local/login/admin", "", refusedLocal},
		{"a secret of that name", "GET", "/v1/secret/data/strongroom-local", "", passed},

		{"the root", "GET", "/", "", refusedUnknown},
		{"the UI", "GET", "/ui/", "", refusedUnknown},
		{"another version", "GET", "/v2/secret/x", "", refusedUnknown},
		{"v1 alone", "GET", "/v1", "", refusedUnknown},
		{"a method of a proxy", "CONNECT", "/v1/secret/x", "", refusedMethod},
		{"trace", "TRACE", "/v1/secret/x", "", refusedMethod},
		{"an invented method", "FOO", "/v1/secret/x", "", refusedMethod},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := url.ParseRequestURI(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if got := decide(tt.method, u, tt.ns, false); got != tt.want {
				t.Fatalf("%s %s (namespace %q): got %+v, want %+v", tt.method, tt.path, tt.ns, got, tt.want)
			}
		})
	}
}

func TestDecideUI(t *testing.T) {
	for path, want := range map[string]verdict{
		"/": passed, "/ui": passed, "/ui/": passed, "/ui/assets/vault.js": passed, "/robots.txt": passed,
		"/uix": refusedUnknown, "/v1/sys/init": refusedSystem, "/ui/%2e%2e/v1/sys/init": refusedSpelled,
	} {
		if got := decide("GET", &url.URL{Path: mustUnescape(t, path), RawPath: path}, "", true); got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

func mustUnescape(t *testing.T, p string) string {
	t.Helper()
	s, err := url.PathUnescape(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The table itself: each entry has a reason, is spelled as decide compares it,
// and lets nothing through that a stranger must not reach.
func TestAllowList(t *testing.T) {
	for _, r := range allowed {
		if r.why == "" || len(r.methods) == 0 {
			t.Errorf("%q has no reason or no method", r.path)
		}
		if name, _, _ := strings.Cut(r.path, "/"); r.path != strings.ToLower(r.path) || !slices.Contains(systemNames, name) {
			t.Errorf("%q is not among Vault's names, so it would not be judged behind a namespace", r.path)
		}
	}
	if !slices.IsSorted(systemNames) {
		t.Error("systemNames is not sorted")
	}
	for _, inside := range insideOnly {
		segments := strings.Split(inside, "/")
		for _, m := range []string{"GET", "HEAD", "LIST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "SCAN"} {
			if allows(m, segments, false) || allows(m, segments, true) {
				t.Errorf("%s sys/%s passes", m, inside)
			}
		}
	}
}

// insideOnly is what must never be reached from outside, whatever the
// allow-list may come to say: FACTS of the design and Vault's http/handler.go.
var insideOnly = []string{
	"init", "unseal", "seal", "seal-backend-status", "step-down", "rekey/init", "rekey/update", "rekey/verify", "rekey/backup",
	"rekey-recovery-key/init", "rekey-recovery-key/update", "generate-root/attempt", "generate-root/update",
	"generate-recovery-token/attempt", "decode-token", "raw", "raw/core/keyring", "storage/raft/bootstrap",
	"storage/raft/join", "storage/raft/snapshot", "storage/raft/snapshot-force", "storage/raft/remove-peer",
	"monitor", "pprof/heap", "metrics", "host-info", "in-flight-req", "plugins/catalog/secret/x", "plugins/reload/backend",
	"audit", "audit/file", "config/cors", "config/state/sanitized", "rotate", "remount", "loggers", "replication/status",
	"leases/revoke-prefix/x", "leases/revoke-force/x", "revoke-prefix/x", "revoke-force/x", "leases/tidy",
}

// vaultRoutes is Vault's own HTTP routing in miniature: what its ServeMux and
// its logical handler would make of a request. It names the sys/ path reached,
// or "".
func vaultRoutes() http.Handler {
	mux := http.NewServeMux()
	name := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Reached", strings.TrimPrefix(r.Pattern, "/v1/sys/"))
	}
	for _, p := range insideOnly {
		if p != "raw/core/keyring" { // below raw/, as a logical path
			mux.HandleFunc("/v1/sys/"+p, name)
		}
	}
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		logical := strings.TrimPrefix(r.URL.Path, "/v1/")
		if ns := strings.Trim(r.Header.Get("X-Vault-Namespace"), "/"); ns != "" {
			logical = ns + "/" + logical
		}
		if strings.Contains("/"+logical, "/auth/"+machine.AuthLocal+"/") {
			w.Header().Set("Reached", machine.AuthLocal)
			return
		}
		// A Vault with namespaces takes every leading segment for one.
		for i, s := 0, strings.Split(logical, "/"); i < len(s); i++ {
			switch {
			case s[i] == "sys":
				w.Header().Set("Reached", strings.Join(s[i+1:], "/"))
				return
			case i == 0 && slices.Contains([]string{"auth", "identity", "cubbyhole", "audit", "root"}, s[i]):
				return
			}
		}
	})
	return mux
}

// Whatever passes, no router of Vault's kind takes it to a path that belongs
// inside, be it handed on as it was sent, decoded or cleaned.
func FuzzDecide(f *testing.F) {
	for _, p := range []string{
		"/v1/sys/init", "/v1/sys/health", "/v1/%73ys/init", "/v1/sys%2finit", "//v1/sys/./init", "/v1/x/../sys/init",
		"/v1/team/sys/unseal", `/v1\sys\seal`, "/V1/SYS/raw/x", "/v1/sys/internal/ui/mounts/a%2f..%2f..", "/v1/sys%252Finit", "/v1/sys/leases/renew/..%2finit",
		"/v1/auth/strongroom-local/login/admin", "/v1/auth%2fstrongroom-local/login/x", "/v1/x/auth/./strongroom-local/login/x",
	} {
		f.Add("PUT", p, "")
		f.Add("GET", p, "team/sys")
	}
	vault := vaultRoutes()
	f.Fuzz(func(t *testing.T, method, path, ns string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || decide(method, u, ns, true) != passed {
			return
		}
		paths := []string{u.EscapedPath(), u.Path, strings.ReplaceAll(u.Path, `\`, "/"), strings.ToLower(u.Path)}
		if again, err := url.PathUnescape(u.Path); err == nil {
			paths = append(paths, again)
		}
		for _, p := range paths {
			if reached := reach(vault, method, p, ns); belongsInside(reached) {
				t.Fatalf("%s %q (namespace %q) passes, and as %q reaches sys/%s", method, path, ns, p, reached)
			}
		}
	})
}

// reach follows the mux's redirects to clean paths, as clients do.
func reach(h http.Handler, method, rawPath, ns string) string {
	for range 5 {
		u, err := url.ParseRequestURI(rawPath)
		if err != nil {
			// A decoded form that is no longer a request line: take it as a path.
			u = &url.URL{Path: rawPath}
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{"X-Vault-Namespace": {ns}}, Host: "vault"}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		to := w.Header().Get("Location")
		if to == "" {
			return w.Header().Get("Reached")
		}
		rawPath = to
	}
	return ""
}

func belongsInside(reached string) bool {
	return reached == machine.AuthLocal || slices.ContainsFunc(insideOnly, func(p string) bool {
		return reached == p || strings.HasPrefix(reached, p+"/")
	})
}
