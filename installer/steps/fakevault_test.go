package steps

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
)

// fakeVault is the part of a Vault that the jobs' step speaks to: AppRoles,
// their secret ids, tokens. Any call that changes it can be made to fail.
type fakeVault struct {
	t       *testing.T
	url     string
	roles   map[string]map[string]any
	secrets map[string]*fakeSecret // by secret id
	tokens  map[string]bool
	made    int
	sealed  bool

	// Writes counts what has changed it; the one at failAt, from 1, fails, after
	// its effect where afterEffect says so.
	writes, failAt int
	afterEffect    bool
}

type fakeSecret struct {
	role, accessor, node string
	half                 bool // its accessor leads nowhere
}

func newFakeVault(t *testing.T) *fakeVault {
	f := &fakeVault{t: t, roles: map[string]map[string]any{}, secrets: map[string]*fakeSecret{}, tokens: map[string]bool{fakeRoot: true, "admin": true}}
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
	read := r.Method == http.MethodGet || r.Method == "LIST"
	status, out := 0, any(nil)
	switch {
	case p == "sys/health":
		answerJSON(w, 200, map[string]any{"initialized": true, "sealed": f.sealed, "standby": false})
		return
	case p == "auth/approle/login", strings.HasSuffix(p, "/lookup"), read:
		status, out = f.call(r, p, in)
	default:
		f.writes++
		if f.writes != f.failAt || f.afterEffect {
			status, out = f.call(r, p, in)
		}
		if f.writes == f.failAt {
			// Not one that the client tries again.
			status, out = http.StatusConflict, map[string]any{"errors": []string{"injected fault"}}
		}
	}
	answerJSON(w, status, out)
}

func answerJSON(w http.ResponseWriter, status int, out any) {
	if out == nil && status == 200 {
		status = http.StatusNoContent
	}
	w.WriteHeader(status)
	if out != nil {
		_ = json.NewEncoder(w).Encode(out)
	}
}

func refusal(status int) (int, any) { return status, map[string]any{"errors": []string{"refused"}} }

func data(v any) (int, any) { return 200, map[string]any{"data": v} }

func (f *fakeVault) call(r *http.Request, p string, in map[string]any) (int, any) {
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
	rest, ok := strings.CutPrefix(p, "auth/approle/role/")
	if !ok {
		f.t.Errorf("unexpected call: %s %s", r.Method, p)
		return refusal(404)
	}
	role, verb, _ := strings.Cut(rest, "/")
	writes := r.Method != http.MethodGet && r.Method != "LIST" && !strings.HasSuffix(p, "/lookup")
	if writes && token != fakeRoot && token != "admin" {
		return refusal(403)
	}
	return f.role(r, role, verb, in)
}

func (f *fakeVault) role(r *http.Request, role, verb string, in map[string]any) (int, any) {
	if verb == "" && r.Method != http.MethodGet {
		f.roles[role] = in
		return 200, nil
	}
	settings, ok := f.roles[role]
	if !ok {
		return refusal(404)
	}
	switch {
	case verb == "":
		return data(settings)
	case verb == "role-id":
		return data(map[string]any{"role_id": "id-of-" + role})
	case verb == "secret-id" && (r.Method == "LIST" || r.URL.Query().Get("list") == "true"):
		var keys []string
		for _, s := range f.secrets {
			if s.role == role {
				keys = append(keys, s.accessor)
			}
		}
		if len(keys) == 0 {
			return refusal(404)
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
	return refusal(404)
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
