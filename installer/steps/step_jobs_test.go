package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// jobWorld is a machine on which Vault is set up, with the root token still
// alive.
type jobWorld struct {
	*vps
	vault *fakeVault
}

func newJobWorld(t *testing.T) *jobWorld {
	t.Helper()
	w := &jobWorld{newVPS(t), newFakeVault(t)}
	for _, d := range []string{machine.Etc, machine.CredentialDir} {
		w.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o700}, Type: fs.ModeDir}}
	}
	w.Files[machine.KeyringFile] = &host.Node{Info: host.Info{Attr: root(0o644)}, Data: keyringOf(t, map[string]byte{"vault.example.com": 1})}
	w.Files[machine.KeyringEscrow] = w.Files[machine.KeyringFile]
	if err := w.env().sealCredential(t.Context(), machine.CredRootToken, machine.RootTokenFile, []byte(fakeRoot)); err != nil {
		t.Fatal(err)
	}
	// Another node's job has its own login by the same role.
	w.vault.roles[config.PolicySnapshot] = map[string]any{"token_ttl": 1}
	w.vault.secret(config.PolicySnapshot, "node-2")
	// Of a run that was killed while it ended this one.
	w.vault.secrets[w.vault.secret(config.PolicySnapshot, "node-1")].half = true
	w.Actions = 0
	return w
}

func (w *jobWorld) env() *Env {
	e := w.vps.env()
	e.Vault = w.vault.connect
	return e
}

func (w *jobWorld) install(t *testing.T, e *Env) (engine.Result, string, error) {
	t.Helper()
	var out bytes.Buffer
	eng := engine.Engine{Steps: []engine.Step{jobs{e}, rootToken{e}}, Out: &out, Now: e.Host.Now}
	res, err := eng.Install(t.Context())
	return res, out.String(), err
}

// check asserts the end state: one secret id alive for each job, which is the
// sealed one; another node's untouched; no root token.
func (w *jobWorld) check(t *testing.T, name string) {
	t.Helper()
	alive := map[string]int{}
	for _, s := range w.vault.secrets {
		alive[s.role+" of "+s.node]++
	}
	for _, j := range jobList() {
		if n := alive[j.policy+" of node-1"]; n != 1 {
			t.Errorf("%s: %d secret ids of %s are alive, want one", name, n, j.policy)
		}
		secret, err := w.env().openCredential(t.Context(), j.name+"-secret-id", j.secretCred())
		if err != nil || w.vault.secrets[string(secret)] == nil {
			t.Errorf("%s: what is sealed for %s is not alive (%v)", name, j.name, err)
		}
		if got := fmt.Sprint(w.vault.roles[j.policy]["token_policies"]); got != "["+j.policy+"]" {
			t.Errorf("%s: %s has the policies %s", name, j.policy, got)
		}
		if w.vault.roles[j.policy]["token_no_default_policy"] != true {
			t.Errorf("%s: %s has the default policy", name, j.policy)
		}
	}
	if alive[config.PolicySnapshot+" of node-2"] != 1 {
		t.Errorf("%s: another node's secret id was ended", name)
	}
	if w.vault.tokens[fakeRoot] || w.Files[machine.RootTokenFile] != nil {
		t.Errorf("%s: the root token is alive, or kept", name)
	}
	for p, n := range w.Files {
		if strings.Contains(string(n.Data), "that-is-secret") {
			t.Errorf("%s: a plain secret id is in %s", name, p)
		}
	}
	for _, c := range w.Calls {
		if strings.Contains(c, "that-is-secret") {
			t.Errorf("%s: a plain secret id is in the command %q", name, c)
		}
	}
}

// nobodys asserts that no secret id of this node is alive that is not sealed.
func (w *jobWorld) nobodys(t *testing.T, name string) {
	t.Helper()
	held := map[string]bool{}
	for _, j := range jobList() {
		if w.Files[j.secretCred()] == nil {
			continue
		}
		secret, err := w.env().openCredential(t.Context(), j.name+"-secret-id", j.secretCred())
		if err != nil {
			t.Fatal(err)
		}
		held[string(secret)] = true
	}
	w.vault.mu.Lock()
	defer w.vault.mu.Unlock()
	for id, s := range w.vault.secrets {
		if s.node == "node-1" && !s.half && !held[id] {
			t.Errorf("%s: a secret id of %s is alive, and nobody holds it", name, s.role)
		}
	}
}

func TestJobs(t *testing.T) {
	w := newJobWorld(t)
	if _, out, err := w.install(t, w.env()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.check(t, "first run")
	before := len(w.vault.secrets)
	res, out, err := w.install(t, w.env())
	if err != nil || res.Changes != 0 || len(w.vault.secrets) != before {
		t.Errorf("second run: %v, %d changes\n%s", err, res.Changes, out)
	}
}

// TestJobsCrash fails each call of Vault's and each action on the machine in
// turn, before and after its effect, and runs again.
func TestJobsCrash(t *testing.T) {
	ref := newJobWorld(t)
	if _, out, err := ref.install(t, ref.env()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	writes, actions := ref.vault.writes, ref.Actions
	t.Logf("%d writes to Vault, %d actions on the machine", writes, actions)
	try := func(name string, inject func(*jobWorld)) {
		w := newJobWorld(t)
		inject(w)
		if _, _, err := w.install(t, w.env()); err == nil {
			t.Errorf("%s: the fault went unnoticed", name)
			return
		}
		w.nobodys(t, name)
		if _, out, err := w.install(t, w.env()); err != nil {
			t.Errorf("%s: second run: %v\n%s", name, err, out)
			return
		}
		w.check(t, name)
	}
	for _, after := range []bool{false, true} {
		for n := 1; n <= writes; n++ {
			try(fmt.Sprintf("write %d after=%v", n, after), func(w *jobWorld) { w.vault.failAt, w.vault.afterEffect = n, after })
		}
		for n := 1; n <= actions; n++ {
			try(fmt.Sprintf("action %d after=%v", n, after), func(w *jobWorld) { w.FailAt, w.AfterEffect = n, after })
		}
	}
}

func TestJobsNeedAnAdministratorLater(t *testing.T) {
	w := newJobWorld(t)
	if _, out, err := w.install(t, w.env()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for id, s := range w.vault.secrets {
		if s.role == config.PolicyCanary {
			delete(w.vault.secrets, id)
		}
	}
	delete(w.vault.roles, config.PolicyDrill)
	writes := w.vault.writes
	for name, c := range map[string]struct {
		token string
		code  int
		want  string
	}{
		"no token":    {"", fault.Operator, "root token is gone"},
		"wrong token": {"somebody", fault.Operator, "refuses the administrator's token"},
	} {
		e := w.env()
		e.AdminToken = c.token
		_, _, err := w.install(t, e)
		var failed *fault.Error
		if !errors.As(err, &failed) || failed.Code != c.code || !strings.Contains(err.Error(), c.want) || !strings.Contains(failed.Hint, "vault login") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, s := range w.vault.secrets {
		if s.role == config.PolicyCanary {
			t.Error("a secret id was made without an administrator")
		}
	}
	e := w.env()
	e.AdminToken = "admin"
	if _, out, err := w.install(t, e); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if w.vault.writes == writes {
		t.Error("nothing was written")
	}
	w.check(t, "administrator")
	// The doctor's own login is lost: only an administrator gets in.
	delete(w.Files, machine.DoctorSecretFile)
	_, _, err := w.install(t, w.env())
	if err == nil || !strings.Contains(err.Error(), errNoWay.Error()) {
		t.Errorf("error = %v", err)
	}
	if _, out, err := w.install(t, e); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.check(t, "doctor's login again")
}

func TestJobsWaitForVault(t *testing.T) {
	w := newJobWorld(t)
	w.vault.sealed = true
	e := w.env()
	diff, err := jobs{e}.Check(t.Context())
	if err != nil || len(diff) != len(jobList()) {
		t.Fatalf("%d changes, %v", len(diff), err)
	}
	if err := diff[0].Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("error = %v", err)
	}
}
