package steps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// jobs gives each job of the appliance its own way into Vault: an AppRole that
// can do its one thing, and a secret id sealed for the job's unit. One that works
// is never made again.
type jobs struct{ *Env }

func (jobs) ID() string    { return "jobs" }
func (jobs) Title() string { return "logins of the appliance's own jobs" }

// job is one AppRole. Its name is its policy's.
type job struct {
	policy string
	name   string // its credentials are NAME-role-id and NAME-secret-id
	what   string
	// A job's token lives for ttl, and the job may renew it up to max.
	ttl, max time.Duration
}

var allJobs = []job{
	// Big snapshots to slow places take their time.
	{config.PolicySnapshot, machine.JobSnapshot, "takes snapshots", 3 * time.Hour, 3 * time.Hour},
	{config.PolicyCanary, machine.JobCanary, "writes the canary", 5 * time.Minute, 5 * time.Minute},
	{config.PolicyDrill, machine.JobDrill, "looks at a restored Vault", 30 * time.Minute, time.Hour},
	{config.PolicyMonitor, machine.JobMonitor, "reads metrics", 15 * time.Minute, time.Hour},
	// Last: with it later runs get in, so all others are there before.
	{config.PolicyDoctor, machine.JobDoctor, "reads settings", 10 * time.Minute, 30 * time.Minute},
}

// jobList are the jobs of this version.
func jobList() []job {
	policies := config.Policies()
	var out []job
	for _, j := range allJobs {
		if _, ok := policies[j.policy]; ok {
			out = append(out, j)
		}
	}
	return out
}

func (j job) path() string       { return RolePath(j.policy) }
func (j job) roleCred() string   { return machine.CredentialFile(machine.CredRoleID(j.name)) }
func (j job) secretCred() string { return machine.CredentialFile(machine.CredSecretID(j.name)) }

// RolePath is where Vault has the AppRole of a job, which is named by its policy.
func RolePath(policy string) string { return "auth/" + machine.AuthAppRole + "/role/" + policy }

// RoleKeys are the settings of those AppRoles that an installation makes.
func RoleKeys() []string { return slices.Sorted(maps.Keys(job{}.settings())) }

// settings are what the role must be. The unix socket shows no address, so a
// login is bound by the secret id alone; it does not end by itself, since a
// backup that stops quietly is worse.
func (j job) settings() map[string]any {
	return map[string]any{
		"bind_secret_id":          true,
		"secret_id_num_uses":      0,
		"secret_id_ttl":           0,
		"token_policies":          []string{j.policy},
		"token_no_default_policy": true,
		"token_ttl":               int(j.ttl / time.Second),
		"token_max_ttl":           int(j.max / time.Second),
		"token_num_uses":          0,
		"token_type":              "service",
	}
}

func (s jobs) Check(ctx context.Context) (engine.Diff, error) {
	if why := s.notReady(ctx); why != "" {
		var diff engine.Diff
		for _, j := range jobList() {
			diff = append(diff, engine.Change{What: "AppRole " + j.policy, To: j.what + "; sealed in " + j.secretCred(),
				Apply: func(context.Context) error { return fmt.Errorf("vault %s", why) }})
		}
		return diff, nil
	}
	c, mayWrite, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	methods, err := c.AuthMethods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list auth methods: %w", err)
	}
	_, enabled := methods[machine.AuthAppRole+"/"]
	var all collect
	for _, j := range jobList() {
		all.add(s.role(ctx, c, j, enabled))
	}
	for i := range all.diff {
		if !mayWrite {
			all.diff[i].Apply = s.needsAdmin
		}
	}
	return all.done()
}

// notReady says why Vault can't be asked; "" where it can.
func (e *Env) notReady(ctx context.Context) string {
	health, err := e.health(ctx)
	switch {
	case err != nil:
		return "does not answer: " + err.Error()
	case !health.Initialized:
		return "is not initialised"
	case health.Sealed:
		return "is sealed"
	}
	return ""
}

func (s jobs) role(ctx context.Context, c *vaultapi.Client, j job, enabled bool) (engine.Diff, error) {
	from, err := missing, error(nil)
	if enabled { // else nobody answers for its roles, as a plan finds it
		from, err = s.roleFault(ctx, c, j)
	}
	if err != nil {
		return nil, err
	}
	var diff engine.Diff
	if from != "" {
		change := engine.Change{What: "AppRole " + j.policy, To: j.what, Apply: func(ctx context.Context) error {
			_, err := c.Write(ctx, j.path(), j.settings())
			return err
		}}
		if from != missing {
			change.From = from
		}
		diff = append(diff, change)
	}
	dead, err := s.loginFault(ctx, j, from == missing)
	if err != nil {
		return nil, err
	}
	if dead != "" {
		change := engine.Change{What: j.secretCred(), To: "a new secret id, sealed", Apply: func(ctx context.Context) error { return s.newSecret(ctx, c, j) }}
		if dead != missing {
			change.From = dead
		}
		diff = append(diff, change)
	}
	return diff, nil
}

const missing = "missing"

// roleFault says how the role differs; "" where it doesn't.
func (s jobs) roleFault(ctx context.Context, c *vaultapi.Client, j job) (string, error) {
	got, err := c.Read(ctx, j.path())
	if vaultapi.IsNotFound(err) {
		return missing, nil
	}
	if err != nil {
		return "", fmt.Errorf("read AppRole %q: %w", j.policy, err)
	}
	for key, want := range j.settings() {
		if text := fmt.Sprint(got[key]); text != fmt.Sprint(want) {
			return fmt.Sprintf("%s is %s", key, text), nil
		}
	}
	return "", nil
}

// loginFault says why the sealed credentials don't do; "" where they do. A
// Vault that was restored from an older snapshot may not know them.
func (s jobs) loginFault(ctx context.Context, j job, noRole bool) (string, error) {
	for _, p := range []string{j.roleCred(), j.secretCred()} {
		there, err := s.exists(p)
		if err != nil {
			return "", err
		}
		if !there {
			return missing, nil
		}
	}
	if noRole {
		return "of a role that is gone", nil
	}
	c, err := s.loginJob(ctx, j)
	if errors.Is(err, errLost) {
		return "never to be opened again", nil
	}
	if refused(err) {
		return "refused by Vault", nil
	}
	if err != nil {
		return "", err
	}
	return "", c.RevokeSelf(ctx)
}

// loginJob logs in as the job does.
func (e *Env) loginJob(ctx context.Context, j job) (*vaultapi.Client, error) {
	role, err := e.openCredential(ctx, path.Base(j.roleCred()), j.roleCred())
	if err != nil {
		return nil, err
	}
	secret, err := e.openCredential(ctx, path.Base(j.secretCred()), j.secretCred())
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	c, err := e.Vault("")
	if err != nil {
		return nil, err
	}
	return c, c.LoginAppRole(ctx, strings.TrimSpace(string(role)), strings.TrimSpace(string(secret)))
}

// newSecret makes a secret id of this node's and seals it. What a run that was
// killed in it has made is ended first, and what this one has made as soon as it
// fails, so that none is alive that nobody holds.
func (s jobs) newSecret(ctx context.Context, c *vaultapi.Client, j job) error {
	if err := s.endSecrets(ctx, c, j); err != nil {
		return err
	}
	id, err := c.Read(ctx, j.path()+"/role-id")
	var roleID string
	if err == nil {
		roleID, err = id.Text("role_id")
	}
	if err != nil {
		return fmt.Errorf("read role id of %q: %w", j.policy, err)
	}
	secret, err := c.Write(ctx, j.path()+"/secret-id", map[string]any{
		"metadata": fmt.Sprintf(`{"node":%q}`, s.Config.Node.ID),
	})
	if err != nil && !vaultapi.IsUncertain(err) {
		return fmt.Errorf("make secret id of %q: %w", j.policy, err)
	}
	if err == nil {
		err = s.sealSecret(ctx, j, roleID, secret)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("make secret id of %q: %w", j.policy, err)
	// Also for a caller who has given up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	if end := s.endSecrets(ctx, c, j); end != nil {
		return operator("run the same command again: it ends that one", "%w; a secret id may be alive that nobody holds: %w", err, end)
	}
	return err
}

// endPatience is how long Vault may take to end what came to nothing.
const endPatience = 30 * time.Second

// sealSecret keeps what Vault has made.
func (s jobs) sealSecret(ctx context.Context, j job, roleID string, made vaultapi.Data) error {
	secretID, err := made.Text("secret_id")
	if err != nil {
		return err
	}
	if roleID == "" || secretID == "" {
		return errors.New("vault's answer holds no ids")
	}
	if err := s.sealCredential(ctx, path.Base(j.roleCred()), j.roleCred(), []byte(roleID)); err != nil {
		return err
	}
	// Commit point: until it is written, the next run ends this one and makes
	// another.
	return s.sealCredential(ctx, path.Base(j.secretCred()), j.secretCred(), []byte(secretID))
}

// endSecrets ends the role's secret ids that were made for this node. Another
// node's are its own.
func (s jobs) endSecrets(ctx context.Context, c *vaultapi.Client, j job) error {
	accessors, err := c.List(ctx, j.path()+"/secret-id")
	if err != nil {
		return fmt.Errorf("list secret ids of %q: %w", j.policy, err)
	}
	halves := false
	for _, a := range accessors {
		body := map[string]any{"secret_id_accessor": a}
		found, err := c.Write(ctx, j.path()+"/secret-id-accessor/lookup", body)
		if vaultapi.IsNotFound(err) {
			// Vault removes the accessor first, and stops where its caller dies.
			halves = true
			continue
		}
		var meta vaultapi.Data
		switch {
		case err != nil:
		case found == nil:
			err = vaultapi.ErrNoData
		case found.Has("metadata"): // one made by hand has none
			meta, err = found.Map("metadata")
		}
		if err != nil {
			return fmt.Errorf("look up a secret id of %q: %w", j.policy, err)
		}
		if meta["node"] != s.Config.Node.ID {
			continue
		}
		if _, err := c.Write(ctx, j.path()+"/secret-id-accessor/destroy", body); err != nil {
			return err
		}
	}
	if halves {
		// Vault's own way to end those that no accessor leads to; it goes on by
		// itself.
		_, err := c.Write(ctx, "auth/approle/tidy/secret-id", nil)
		return err
	}
	return nil
}

// needsAdmin is what changes in Vault do where nobody has logged in who may
// make them.
func (e *Env) needsAdmin(context.Context) error {
	return operator("log in as an administrator (vault login -method=userpass username=admin), and run the same command with that token in VAULT_TOKEN or in a file named by --token-file",
		"Vault's own settings differ, and the root token is gone, as it should be")
}

// errNoWay is returned where no login is at hand.
var errNoWay = errors.New("no way into Vault")

// login gives a client with the most that is at hand: the root token of an
// unfinished installation, the administrator's that the operator gives, or the
// doctor's, which may only look.
func (e *Env) login(ctx context.Context) (c *vaultapi.Client, mayWrite bool, err error) {
	if c, err := e.rootClient(ctx); c != nil || err != nil {
		return c, true, err
	}
	if e.AdminToken != "" {
		if c, err = e.Vault(e.AdminToken); err != nil {
			return nil, false, err
		}
		if _, err := c.LookupSelf(ctx); vaultapi.IsDenied(err) {
			return nil, false, operator("log in again: vault login -method=userpass username=admin", "Vault refuses the administrator's token that was given")
		} else if err != nil {
			return nil, false, fmt.Errorf("look at the administrator's token: %w", err)
		}
		return c, true, nil
	}
	c, err = e.doctorClient(ctx)
	if errors.Is(err, errNoWay) {
		return nil, false, operator("log in as an administrator and give the token in VAULT_TOKEN or by --token-file; it makes a new login for the doctor", "%w", err)
	}
	return c, false, err
}

// rootClient is nil where there is no root token that works.
func (e *Env) rootClient(ctx context.Context) (*vaultapi.Client, error) {
	there, err := e.exists(machine.RootTokenFile)
	if err != nil || !there {
		return nil, err
	}
	token, err := e.openCredential(ctx, machine.CredRootToken, machine.RootTokenFile)
	if errors.Is(err, errLost) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer clear(token)
	c, err := e.Vault(string(token))
	if err != nil {
		return nil, err
	}
	_, err = c.LookupSelf(ctx)
	if vaultapi.IsDenied(err) {
		// Revoked by a run that was killed before it had removed the file.
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the root token: %w", err)
	}
	return c, nil
}

// doctorClient may look at settings, and change nothing.
func (e *Env) doctorClient(ctx context.Context) (*vaultapi.Client, error) {
	doctor := job{policy: config.PolicyDoctor, name: machine.JobDoctor}
	for _, p := range []string{doctor.roleCred(), doctor.secretCred()} {
		there, err := e.exists(p)
		if err != nil {
			return nil, err
		}
		if !there {
			return nil, fmt.Errorf("%w: neither a root token that works nor %q", errNoWay, p)
		}
	}
	c, err := e.loginJob(ctx, doctor)
	if errors.Is(err, errLost) {
		return nil, fmt.Errorf("%w: %w", errNoWay, err)
	}
	if refused(err) {
		return nil, fmt.Errorf("%w: Vault refuses what is in %q", errNoWay, doctor.secretCred())
	}
	return c, err
}

// refused says whether Vault answered that an AppRole login is not good.
func refused(err error) bool {
	return vaultapi.IsDenied(err) || vaultapi.IsBadRequest(err)
}
