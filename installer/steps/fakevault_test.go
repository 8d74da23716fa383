package steps

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// fakeVault is the part of a Vault that an installation speaks to: what is
// enabled in it, AppRoles, their secret ids, tokens. Any call that changes it can
// be made to fail.
type fakeVault struct {
	t       *testing.T
	url     string
	mu      sync.Mutex // of what calls change: an answer may be lost, and its call not yet over
	roles   map[string]map[string]any
	secrets map[string]*fakeSecret // by secret id
	tokens  map[string]bool
	made    int
	sealed  bool
	// enabled are what sys/audit, sys/auth, sys/mounts tell, by these names.
	enabled  map[string]map[string]any
	policies map[string]any
	catalog  map[string]map[string]any // by name and version
	users    map[string][]string       // by mount
	tuned    map[string]any            // of auth/strongroom-local/
	keyring  []string                  // the versions of secret/strongroom/keyring
	// answer, if set, comes in place of the answer to calls of its choice; 0
	// leaves one as it is.
	answer func(r *http.Request, path string) (status int, body any)

	// Writes counts what has changed it; the one at failAt, from 1, is refused,
	// or has its effect and no answer where afterEffect says so.
	writes, failAt int
	afterEffect    bool
}

type fakeSecret struct {
	role, accessor, node string
	half                 bool // its accessor leads nowhere
}

func newFakeVault(t *testing.T) *fakeVault {
	f := &fakeVault{t: t, roles: map[string]map[string]any{}, secrets: map[string]*fakeSecret{}, tokens: map[string]bool{fakeRoot: true, "admin": true},
		policies: map[string]any{"root": nil, "default": map[string]any{"policy": ""}}, catalog: map[string]map[string]any{}, users: map[string][]string{}, tuned: map[string]any{"default_lease_ttl": 0},
		enabled: map[string]map[string]any{
			"sys/audit": {}, "sys/auth": {"token/": map[string]any{"type": "token"}}, "sys/mounts": {"sys/": map[string]any{"type": "system"}},
		}}
	for _, m := range []string{machine.AuthAppRole, machine.AuthUserpass} {
		f.enabled["sys/auth"][m+"/"] = map[string]any{"type": m}
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func (f *fakeVault) connect(token string) (*vaultapi.Client, error) {
	return vaultapi.New(vaultapi.Options{Address: f.url, Token: token})
}

// ServeHTTP implements http.Handler. Calls come one after the other.
func (f *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := strings.TrimPrefix(r.URL.Path, "/v1/")
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in) // GET has none
	f.mu.Lock()
	defer f.mu.Unlock()
	read := r.Method == http.MethodGet
	status, out := 0, any(nil)
	if f.answer != nil {
		if status, out = f.answer(r, p); status != 0 {
			answerJSON(w, status, out)
			return
		}
	}
	switch {
	case p == "sys/health":
		answerJSON(w, 200, map[string]any{"initialized": true, "sealed": f.sealed, "standby": false})
		return
	case r.Header.Get("X-Vault-Namespace") != "": // there are none but in Vault's Enterprise edition
		status, out = noHandler(p)
	case r.Header.Get("X-Vault-Wrap-TTL") != "":
		out = map[string]any{"data": nil, "wrap_info": map[string]any{"token": "wrapped", "ttl": 60}}
		status = 200
	case p == "auth/approle/login", strings.HasSuffix(p, "/lookup"), read:
		status, out = f.call(r, p, in)
	default:
		f.writes++
		if f.writes != f.failAt || f.afterEffect {
			status, out = f.call(r, p, in)
		}
		switch {
		case f.writes == f.failAt && f.afterEffect:
			panic(http.ErrAbortHandler)
		case f.writes == f.failAt:
			status, out = http.StatusConflict, map[string]any{"errors": []string{"injected fault"}}
		}
	}
	answerJSON(w, status, out)
}

func answerJSON(w http.ResponseWriter, status int, out any) {
	if out == nil && status == 200 {
		status = http.StatusNoContent
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if out != nil {
		_ = json.NewEncoder(w).Encode(out)
	}
}

func refusal(status int) (int, any) { return status, map[string]any{"errors": []string{"refused"}} }

// nothing is the answer of an engine that has looked.
func nothing() (int, any) { return http.StatusNotFound, map[string]any{"errors": []string{}} }

// noHandler is the answer where nothing is mounted.
func noHandler(p string) (int, any) {
	return http.StatusNotFound, map[string]any{"errors": []string{fmt.Sprintf("no handler for route %q. route entry not found.", p)}}
}

func data(v any) (int, any) { return 200, map[string]any{"data": v} }

func (f *fakeVault) call(r *http.Request, p string, in map[string]any) (int, any) {
	if mount, ok := strings.CutPrefix(p, "auth/"); ok {
		if mount, _, _ = strings.Cut(mount, "/"); f.enabled["sys/auth"][mount+"/"] == nil {
			return noHandler(p)
		}
	}
	if p == "auth/approle/login" {
		s := f.secrets[fmt.Sprint(in["secret_id"])]
		if s == nil || in["role_id"] != "id-of-"+s.role {
			return refusal(400)
		}
		f.made++
		token := fmt.Sprintf("token-%d", f.made)
		f.tokens[token] = true
		return 200, map[string]any{"auth": map[string]any{"client_token": token}}
	}
	token := r.Header.Get("X-Vault-Token")
	if !f.tokens[token] {
		return refusal(403)
	}
	switch p {
	case "auth/token/lookup-self":
		return data(map[string]any{"id": "hidden"})
	case "auth/token/revoke-self":
		delete(f.tokens, token)
		return 200, nil
	}
	if p == "auth/approle/tidy/secret-id" {
		maps.DeleteFunc(f.secrets, func(_ string, s *fakeSecret) bool { return s.half })
		return 200, nil
	}
	writes := r.Method != http.MethodGet && !strings.HasSuffix(p, "/lookup")
	if writes && token != fakeRoot && token != "admin" {
		return refusal(403)
	}
	if rest, ok := strings.CutPrefix(p, "auth/approle/role/"); ok {
		role, verb, _ := strings.Cut(rest, "/")
		return f.role(r, role, verb, in)
	}
	return f.setup(r, p, in)
}

// setup is what vault-setup looks at and makes.
func (f *fakeVault) setup(r *http.Request, p string, in map[string]any) (int, any) {
	read := r.Method == http.MethodGet
	parent, name := path.Split(p)
	switch parent = strings.TrimSuffix(parent, "/"); {
	case read && f.enabled[p] != nil:
		return data(f.enabled[p])
	case !read && f.enabled[parent] != nil:
		f.enabled[parent][name+"/"] = in
		return 200, nil
	case parent == "sys/policies/acl" && read:
		if f.policies[name] == nil {
			return nothing()
		}
		return data(f.policies[name])
	case parent == "sys/policies/acl":
		f.policies[name] = in
		return 200, nil
	case parent == "sys/plugins/catalog/secret" && read:
		if p := f.catalog[name+" "+r.URL.Query().Get("version")]; p != nil {
			return data(p)
		}
		return nothing()
	case parent == "sys/plugins/catalog/secret":
		f.catalog[name+" "+fmt.Sprint(in["version"])] = in
		return 200, nil
	case p == machine.MountKV+"/data/"+machine.KVKeyring && (len(f.keyring) == 0 && read || f.enabled["sys/mounts"][machine.MountKV+"/"] == nil):
		return nothing()
	case p == machine.MountKV+"/data/"+machine.KVKeyring:
		if !read {
			text, _ := in["data"].(map[string]any)["keyring.json"].(string)
			if cas := in["options"].(map[string]any)["cas"]; cas != float64(len(f.keyring)) {
				f.t.Errorf("check-and-set %v, want %d", cas, len(f.keyring))
			}
			f.keyring = append(f.keyring, text)
			return data(map[string]any{"version": len(f.keyring)})
		}
		return data(map[string]any{"data": map[string]any{"keyring.json": f.keyring[len(f.keyring)-1]}, "metadata": map[string]any{"version": len(f.keyring)}})
	case p == machine.MountKV+"/config" && read && f.enabled["sys/mounts"][machine.MountKV+"/"] != nil:
		return data(map[string]any{"max_versions": 0})
	case p == "auth/userpass/users", p == "auth/"+machine.AuthLocal+"/users":
		if len(f.users[p]) == 0 {
			return nothing()
		}
		return data(map[string]any{"keys": f.users[p]})
	case parent == "auth/userpass/users", parent == "auth/"+machine.AuthLocal+"/users":
		f.users[parent] = append(f.users[parent], name)
		return 200, nil
	case p == "sys/auth/"+machine.AuthLocal+"/tune":
		if f.enabled["sys/auth"][machine.AuthLocal+"/"] == nil {
			return refusal(400)
		}
		if read {
			return data(f.tuned)
		}
		f.tuned = map[string]any{"user_lockout_disable": in["user_lockout_config"].(map[string]any)["lockout_disable"]}
		return 200, nil
	}
	f.t.Errorf("unexpected call: %s %s", r.Method, p)
	return refusal(404)
}

func (f *fakeVault) role(r *http.Request, role, verb string, in map[string]any) (int, any) {
	if verb == "" && r.Method != http.MethodGet {
		f.roles[role] = in
		return 200, nil
	}
	settings, ok := f.roles[role]
	if !ok {
		return nothing()
	}
	switch {
	case verb == "":
		return data(settings)
	case verb == "role-id":
		return data(map[string]any{"role_id": "id-of-" + role})
	case verb == "secret-id" && r.URL.Query().Get("list") == "true":
		var keys []string
		for _, s := range f.secrets {
			if s.role == role {
				keys = append(keys, s.accessor)
			}
		}
		if len(keys) == 0 {
			return nothing()
		}
		return data(map[string]any{"keys": keys})
	case verb == "secret-id":
		var meta struct {
			Node string `json:"node"`
		}
		if err := json.Unmarshal([]byte(fmt.Sprint(in["metadata"])), &meta); err != nil {
			return refusal(400)
		}
		return data(map[string]any{"secret_id": f.secret(role, meta.Node)})
	}
	for id, s := range f.secrets {
		if s.half || s.role != role || s.accessor != in["secret_id_accessor"] {
			continue
		}
		if verb == "secret-id-accessor/destroy" {
			delete(f.secrets, id)
			return 200, nil
		}
		return data(map[string]any{"metadata": map[string]any{"node": s.node}})
	}
	return http.StatusNotFound, map[string]any{"errors": []string{"failed to find accessor entry"}}
}

// secret makes a secret id.
func (f *fakeVault) secret(role, node string) string {
	f.made++
	id := fmt.Sprintf("secret-id-that-is-secret-%d", f.made)
	f.secrets[id] = &fakeSecret{role: role, accessor: fmt.Sprintf("accessor-%d", f.made), node: node}
	return id
}

// fakeRoot is the root token.
const fakeRoot = "hvs.the-root-token-of-the-fake"
