package apps

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// roleVault is a Vault with one AppRole, whose answers can be lost: before is
// without effect, after with it.
type roleVault struct {
	mu            sync.Mutex
	secretIDs     map[string]string // accessor → metadata
	wrapped       map[string]bool
	made          int
	before, after map[string]int // path → how many answers are lost
	denied        string         // path that the policy does not grant
}

func (v *roleVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	const role = "auth/approle/role/a-e"
	lose := func(from map[string]int) bool {
		if from[path] == 0 {
			return false
		}
		from[path]--
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			conn.Close()
		}
		return true
	}
	if lose(v.before) {
		return
	}
	var body map[string]string
	_ = json.NewDecoder(r.Body).Decode(&body)
	status, answer := 200, ""
	switch {
	case path == v.denied:
		status, answer = 403, `{"errors":["permission denied"]}`
	case path == role+"/role-id":
		answer = `{"data":{"role_id":"r"}}`
	case path == role+"/secret-id" && r.Method == http.MethodGet:
		var keys []string
		for a := range v.secretIDs {
			keys = append(keys, a)
		}
		text, _ := json.Marshal(map[string]any{"data": map[string]any{"keys": keys}})
		answer = string(text)
		if len(keys) == 0 {
			status, answer = 404, `{"errors":[]}`
		}
	case path == role+"/secret-id":
		v.made++
		a := fmt.Sprintf("accessor-%d", v.made)
		v.secretIDs[a], v.wrapped[a] = body["metadata"], true
		answer = fmt.Sprintf(`{"wrap_info":{"token":%q,"ttl":3600,"creation_time":"2026-01-02T03:04:05Z","creation_path":"x"}}`, a)
	case path == role+"/secret-id-accessor/lookup":
		answer = fmt.Sprintf(`{"data":{"metadata":%s}}`, v.secretIDs[body["secret_id_accessor"]])
	case path == role+"/secret-id-accessor/destroy":
		delete(v.secretIDs, body["secret_id_accessor"])
		status = 204
	case path == "sys/wrapping/lookup" && v.wrapped[body["token"]]:
		answer = `{"data":{"creation_path":"` + role + `/secret-id"}}`
	case path == "sys/wrapping/unwrap" && v.wrapped[r.Header.Get("X-Vault-Token")]:
		delete(v.wrapped, r.Header.Get("X-Vault-Token"))
		answer = `{"data":{"secret_id":"the-secret-id"}}`
	default:
		status, answer = 400, `{"errors":["wrapping token is not valid or does not exist"]}`
	}
	if lose(v.after) {
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(answer))
}

func newAppRole(t *testing.T) (*roleVault, Vault) {
	t.Helper()
	v := &roleVault{secretIDs: map[string]string{"another": `{"bundle":"other"}`, "a-service": `{}`}, wrapped: map[string]bool{}, before: map[string]int{}, after: map[string]int{}}
	return v, answering(t, v.ServeHTTP)
}

// answering is a Vault behind which h answers.
func answering(t *testing.T, h http.HandlerFunc) Vault {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return New(c.Once(time.Minute))
}

// A secret id whose answer was lost is not left alive, and others' stay.
func TestMakeBundleLost(t *testing.T) {
	const secretID = "auth/approle/role/a-e/secret-id"
	target := config.Target{App: "a", Environment: "e", Role: "a-e"}
	for name, c := range map[string]struct {
		before, after map[string]int
		denied        string
		operator      bool // is told that one may be alive
		alive         int
	}{
		"before it was made": {before: map[string]int{secretID: 1}, alive: 2},
		"after it was made":  {after: map[string]int{secretID: 1}, alive: 2},
		"and cannot be found": {after: map[string]int{secretID: 1},
			denied: secretID + "-accessor/lookup", operator: true, alive: 3},
	} {
		t.Run(name, func(t *testing.T) {
			v, vault := newAppRole(t)
			v.denied = c.denied
			for path, n := range c.before {
				v.before[path] = n
			}
			for path, n := range c.after {
				v.after[path] = n
			}
			_, err := makeBundle(t.Context(), vault, target, time.Hour)
			var operator *NeedsOperator
			if !vaultapi.IsUncertain(err) || errors.As(err, &operator) != c.operator {
				t.Errorf("error %v", err)
			}
			if len(v.secretIDs) != c.alive || v.secretIDs["another"] == "" || v.made > 1 {
				t.Errorf("%d were made; alive: %v", v.made, v.secretIDs)
			}
		})
	}
	t.Run("written to no file", func(t *testing.T) {
		v, vault := newAppRole(t)
		b, err := makeBundle(t.Context(), vault, target, time.Hour)
		if err != nil || b.WrappedSecret == "" || len(v.secretIDs) != 3 {
			t.Fatalf("%v, %v", v.secretIDs, err)
		}
		if err := b.end(t.Context(), vault); err != nil || len(v.secretIDs) != 2 {
			t.Errorf("alive: %v, %v", v.secretIDs, err)
		}
	})
}

// A lost answer is not taken for a thief, and the login is lost only when Vault
// has given it.
func TestOpenBundleLost(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(v *roleVault)
		want string
		is   error
	}{
		"nothing is lost":     {func(*roleVault) {}, "the-secret-id", nil},
		"before it was given": {func(v *roleVault) { v.before["sys/wrapping/unwrap"] = 1 }, "the-secret-id", nil},
		"after it was given":  {func(v *roleVault) { v.after["sys/wrapping/unwrap"] = 1 }, "", ErrLost},
		"somebody was first":  {func(v *roleVault) { clear(v.wrapped) }, "", ErrIntercepted},
	} {
		t.Run(name, func(t *testing.T) {
			v, vault := newAppRole(t)
			v.wrapped["w"] = true
			c.lose(v)
			got, err := openBundle(t.Context(), vault, Bundle{WrappedSecret: "w", role: "a-e"})
			if got != c.want || !errors.Is(err, c.is) || errors.Is(err, ErrIntercepted) != (c.is == ErrIntercepted) { //nolint:errorlint // of the table
				t.Errorf("%t, %v", got != "", err)
			}
		})
	}
}

// An entry of another form is not an empty ledger, whose owner prunes nothing.
func TestLedgerOfAnotherForm(t *testing.T) {
	version := func(n any) map[string]any { return map[string]any{"version": n} }
	for name, got := range map[string]map[string]any{
		"no metadata":       {"data": map[string]any{"objects": map[string]any{}, "owned": map[string]any{}, "rotated": []any{}}},
		"no version":        {"metadata": map[string]any{}, "data": map[string]any{"objects": map[string]any{}, "owned": map[string]any{}, "rotated": []any{}}},
		"an odd version":    {"metadata": version("3"), "data": map[string]any{"objects": map[string]any{}, "owned": map[string]any{}, "rotated": []any{}}},
		"no objects":        {"metadata": version(json.Number("3")), "data": map[string]any{"rotated": []any{}}},
		"odd objects":       {"metadata": version(json.Number("3")), "data": map[string]any{"objects": []any{}, "owned": []any{}, "rotated": []any{}}},
		"an odd entry":      {"metadata": version(json.Number("3")), "data": map[string]any{"objects": map[string]any{"a": json.Number("1")}, "owned": map[string]any{"a": "m"}, "rotated": []any{}}},
		"an odd connection": {"metadata": version(json.Number("3")), "data": map[string]any{"objects": map[string]any{}, "owned": map[string]any{"a": json.Number("1")}, "rotated": []any{json.Number("1")}}},
	} {
		for _, entry := range []string{"m", "_ab"} {
			t.Run(name+" in "+entry, func(t *testing.T) {
				m := newMemory()
				m.data[ledgerPath(entry)] = got
				if l, err := readLedger(t.Context(), m, "m"); err == nil {
					t.Errorf("read as %d objects", len(l.entries))
				}
			})
		}
	}
}
