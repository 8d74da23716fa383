package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi/vaultenv"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// installAll is what an installation does in Vault, from its plan on: what both
// have said, and how many changes were made.
func (w *jobWorld) installAll(ctx context.Context, e *Env) (said string, changes int, err error) {
	var out bytes.Buffer
	eng := engine.Engine{Steps: []engine.Step{vaultSetup{e}, jobs{e}, rootToken{e}}, Out: &out, Now: e.Host.Now}
	if _, err := eng.Plan(ctx); err != nil && !errors.Is(err, engine.ErrDiffers) {
		return out.String(), 0, fmt.Errorf("plan: %w", err)
	}
	res, err := eng.Install(ctx)
	return out.String(), res.Changes, err
}

// newBareWorld is a machine whose Vault is initialised, and no more.
func newBareWorld(t *testing.T) *jobWorld {
	w := newJobWorld(t)
	clear(w.vault.roles)
	clear(w.vault.secrets)
	for _, m := range []string{machine.AuthAppRole, machine.AuthUserpass} {
		delete(w.vault.enabled["sys/auth"], m+"/")
	}
	w.Files[machine.EscrowDir] = w.Files[machine.Etc]
	return w
}

// No variable of the caller's changes what the installation sees in Vault, or
// does there.
func TestVaultVariables(t *testing.T) {
	type result struct {
		first, second, later string
		changes, none        int
	}
	run := func(t *testing.T) (r result) {
		t.Helper()
		w := newBareWorld(t)
		var err error
		if r.first, r.changes, err = w.installAll(t.Context(), w.env()); err != nil {
			t.Fatalf("%v\n%s", err, r.first)
		}
		if r.second, r.none, err = w.installAll(t.Context(), w.env()); err != nil || r.none != 0 {
			t.Fatalf("second run: %v, %d changes\n%s", err, r.none, r.second)
		}
		w.vault.policies[config.PolicyMonitor] = nil
		e := w.env()
		e.AdminToken = "admin"
		if r.later, _, err = w.installAll(t.Context(), e); err != nil || w.vault.policies[config.PolicyMonitor] == nil {
			t.Fatalf("administrator: %v\n%s", err, r.later)
		}
		return r
	}
	want := run(t)
	if want.changes < len(jobList()) {
		t.Fatalf("%d changes\n%s", want.changes, want.first)
	}
	vaultenv.Garbage(t, func(t *testing.T) {
		if got := run(t); got != want {
			t.Errorf("with the variables\n%+v\nwithout\n%+v", got, want)
		}
	})
}

// Only Vault's own "there is nothing" is that: any other answer without what was
// asked for stops the run, and the root token stays.
func TestAnswersThatSayNothing(t *testing.T) {
	answers := map[string]func(p string) (int, any){
		"nobody there": noHandler,
		"unsupported": func(string) (int, any) {
			return 404, map[string]any{"errors": []string{"1 error occurred:\n\t* unsupported path\n\n"}}
		},
		"not Vault":  func(string) (int, any) { return 404, "page not found" },
		"empty":      func(string) (int, any) { return 200, nil },
		"no data":    func(string) (int, any) { return 200, map[string]any{"data": nil} },
		"other data": func(string) (int, any) { return 200, map[string]any{"data": map[string]any{"metadata": 1}} },
		"wrapped": func(string) (int, any) {
			return 200, map[string]any{"data": nil, "wrap_info": map[string]any{"token": "w", "ttl": 60}}
		},
	}
	role := "auth/approle/role/" + config.PolicySnapshot
	for _, call := range []string{
		"GET sys/audit", "GET sys/auth", "GET sys/mounts", "GET sys/plugins/catalog/secret/" + machine.PluginName,
		"GET sys/policies/acl/" + config.PolicyAdmin, "GET auth/userpass/users", "GET auth/token/lookup-self",
		"GET " + role, "GET " + role + "/role-id", "GET " + role + "/secret-id",
		"GET secret/data/" + machine.KVKeyring,
		"PUT " + role + "/secret-id", "PUT " + role + "/secret-id-accessor/lookup",
	} {
		for name, answer := range answers {
			// A role that differs is written anew, and of a token nothing more is
			// asked than that it is known.
			if name == "other data" && (call == "GET "+role || call == "GET auth/token/lookup-self") {
				continue
			}
			t.Run(call+" "+name, func(t *testing.T) {
				w := newJobWorld(t)
				w.Files[machine.EscrowDir] = w.Files[machine.Etc]
				asked := false
				w.vault.answer = func(r *http.Request, p string) (int, any) {
					if r.Method+" "+p != call {
						return 0, nil
					}
					asked = true
					status, body := answer(p)
					if body == nil {
						status = http.StatusNoContent
					}
					return status, body
				}
				if said, _, err := w.installAll(t.Context(), w.env()); err == nil || !asked {
					t.Errorf("no error, asked %t\n%s", asked, said)
				}
				if !w.vault.tokens[fakeRoot] || w.Files[machine.RootTokenFile] == nil {
					t.Error("the root token is gone")
				}
				w.nobodys(t, "afterwards")
				w.vault.answer = nil
				if said, _, err := w.installAll(t.Context(), w.env()); err != nil {
					t.Fatalf("again: %v\n%s", err, said)
				}
				w.check(t, "again")
			})
		}
	}
}

// The secret id that Vault has made for a caller who has given up is ended too.
func TestSecretIDOfOneWhoGaveUp(t *testing.T) {
	w := newJobWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.vault.answer = func(r *http.Request, p string) (int, any) {
		if rest, ok := strings.CutSuffix(p, "/secret-id"); ok && r.Method == http.MethodPut {
			w.vault.secret(strings.TrimPrefix(rest, "auth/approle/role/"), "node-1")
			cancel()
			panic(http.ErrAbortHandler)
		}
		return 0, nil
	}
	if _, _, err := w.installAll(ctx, w.env()); err == nil {
		t.Fatal("no error")
	}
	w.nobodys(t, "given up")
}
