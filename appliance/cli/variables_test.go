package cli

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/vaultenv"
)

// pathVault is a Vault of paths: what is written is read back, and KV has its
// versions. It minds the headers that HashiCorp's client takes from variables.
type pathVault struct {
	mu   sync.Mutex
	data map[string]map[string]any
}

// ServeHTTP implements http.Handler.
func (v *pathVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	status, out := v.answer(r, strings.TrimPrefix(r.URL.Path, "/v1/"))
	body := map[string]any{"data": out}
	switch {
	case r.Header.Get("X-Vault-Token") != "mine" || r.Header.Get("X-Vault-Namespace") != "":
		status, body = http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}}
	case status == http.StatusNotFound:
		body = map[string]any{"errors": []string{}}
	case r.Header.Get("X-Vault-Wrap-TTL") != "":
		body = map[string]any{"data": nil, "wrap_info": map[string]any{"token": "w", "ttl": 60}}
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (v *pathVault) answer(r *http.Request, p string) (int, map[string]any) {
	if r.URL.Query().Get("list") == "true" {
		var keys []string
		for at := range v.data {
			if rest, ok := strings.CutPrefix(at, strings.TrimSuffix(p, "/")+"/"); ok {
				name, _, folder := strings.Cut(rest, "/")
				if folder {
					name += "/"
				}
				keys = append(keys, name)
			}
		}
		if len(keys) == 0 {
			return http.StatusNotFound, nil
		}
		slices.Sort(keys)
		return http.StatusOK, map[string]any{"keys": slices.Compact(keys)}
	}
	if r.Method == http.MethodGet {
		if v.data[p] == nil {
			return http.StatusNotFound, nil
		}
		return http.StatusOK, v.data[p]
	}
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in) // some send none
	parent, name := filepath.Split(p)
	switch parent {
	case "sys/auth/", "sys/mounts/":
		in["accessor"] = "of_" + name
		v.data[strings.TrimSuffix(parent, "/")][name+"/"] = in
	case "secret/data/", "secret/data/strongroom/manifests/":
		version := map[string]any{"version": 1, "created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false}
		v.data[p] = map[string]any{"data": in["data"], "metadata": version}
		v.data[strings.Replace(p, "/data/", "/metadata/", 1)] = map[string]any{"current_version": 1, "versions": map[string]any{"1": version}}
		return http.StatusOK, version
	default:
		all := maps.Clone(v.data[p])
		switch {
		case all != nil:
		case strings.HasPrefix(p, "secret/metadata/"):
			all = map[string]any{"current_version": 0, "versions": map[string]any{}}
		default:
			all = map[string]any{}
		}
		maps.Copy(all, in)
		v.data[p] = all
	}
	return http.StatusOK, nil
}

const twoApps = `manifest = "m"
[[app]]
name = "a"
secrets = ["x"]
[[app]]
name = "b"
secrets = ["y"]
`

// No variable of the caller's but those that a flag stands for changes what app
// plan, app prune and kv export see. Wrapped answers once read as an empty Vault.
func TestVariablesOfOtherPrograms(t *testing.T) {
	v := &pathVault{data: map[string]map[string]any{
		"sys/mounts": {"secret/": map[string]any{"type": "kv"}}, "sys/auth": {"token/": map[string]any{"type": "token"}},
	}}
	srv := httptest.NewServer(v)
	defer srv.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	both, one := file("both.toml", twoApps), file("one.toml", twoApps[:strings.LastIndex(twoApps, "[[app]]")])
	where := []string{"--address", srv.URL, "--token-file", file("token", "mine")}
	if code, out := run(t, slices.Concat([]string{"app", "apply", "--config", both}, where)...); code != ExitOK {
		t.Fatalf("apply: exit code %d:\n%s", code, out)
	}
	look := func(t *testing.T) (said string) {
		t.Helper()
		for _, c := range []struct {
			want int
			says string
			args []string
		}{
			{ExitOK, "", []string{"app", "plan", "--config", both}},
			{ExitDrift, "- ", []string{"app", "prune", "--config", one}},
			{ExitOK, "secrets\n", []string{"kv", "export", "--all", "--recipient", id.Recipient().String(), "--output", filepath.Join(dir, "out.age")}},
		} {
			code, out := run(t, slices.Concat(c.args, where)...)
			if code != c.want || !strings.Contains(out, c.says) {
				t.Errorf("%q: exit code %d, want %d:\n%s", c.args, code, c.want, out)
			}
			said += out
		}
		return said
	}
	want := look(t)
	vaultenv.Garbage(t, func(t *testing.T) {
		if got := look(t); got != want {
			t.Errorf("it says\n%s\nwithout the variables\n%s", got, want)
		}
	}, "VAULT_CACERT")
}
