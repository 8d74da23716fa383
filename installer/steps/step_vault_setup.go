package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"strongroom/appliance/vaultapi"
	"strongroom/config"
	"strongroom/installer/engine"
	"strongroom/installer/payload"
	"strongroom/systemd"
)

// vaultSetup is everything inside Vault: audit devices, engines, policies, the
// first administrator. It ends with the root token's revocation.
type vaultSetup struct{ *Env }

func (vaultSetup) ID() string    { return "vault-setup" }
func (vaultSetup) Title() string { return "audit, engines, policies, admin" }

const (
	readerName  = "reader"
	readerCred  = credentialDir + "/" + readerName // the AppRole of later looks
	adminUser   = "admin"
	adminEscrow = EscrowDir + "/admin.age"

	mountKeys = "apikeys"
	mountKV   = "secret"
)

// reader is the content of readerCred.
type reader struct {
	RoleID   string `json:"role_id"`
	SecretID string `json:"secret_id"`
}

func (s vaultSetup) Check(ctx context.Context) (engine.Diff, error) {
	health, err := s.health(ctx)
	if err != nil || !health.Initialized || health.Sealed {
		why := "is sealed or not initialised"
		if err != nil {
			why = "does not answer: " + err.Error()
		}
		return engine.Diff{{What: "Vault", To: "two audit devices, engines at apikeys/ and secret/, policies, first administrator, no root token",
			Apply: func(context.Context) error { return fmt.Errorf("vault %s", why) }}}, nil
	}
	c, isRoot, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	v := look{s, c}
	var all collect
	all.add(v.audit(ctx))
	all.add(v.engines(ctx))
	all.add(v.authMethods(ctx))
	all.add(v.policies(ctx))
	all.add(v.reader(ctx))
	all.add(v.admin(ctx))
	if !isRoot && len(all.diff) > 0 {
		// The reader can't change anything.
		for i := range all.diff {
			all.diff[i].Apply = s.needsAdmin
		}
	}
	// Last, and only from a run that finds the rest in order or has just made
	// it so.
	all.add(s.rootToken(c, isRoot))
	return all.done()
}

func (s vaultSetup) needsAdmin(context.Context) error {
	return operator("log in as an administrator and make the change that plan shows", "Vault's own settings differ, and the root token is gone, as it should be")
}

// login gives a client with the root token of an unfinished installation, or
// else the reader, who may look at settings.
func (s vaultSetup) login(ctx context.Context) (c *vaultapi.Client, isRoot bool, err error) {
	if there, err := s.exists(rootTokenCred); err != nil {
		return nil, false, err
	} else if there {
		token, err := s.openCredential(ctx, rootTokenName, rootTokenCred)
		if err != nil {
			return nil, false, err
		}
		if c, err = s.Vault(string(token)); err != nil {
			return nil, false, err
		}
		_, err = c.API().Auth().Token().LookupSelfWithContext(ctx)
		if err == nil {
			return c, true, nil
		}
		if !refused(err) {
			return nil, false, fmt.Errorf("look at the root token: %w", err)
		}
		// Revoked by a run that was killed before it had removed the file.
	}
	there, err := s.exists(readerCred)
	if err != nil {
		return nil, false, err
	}
	if !there {
		return nil, false, operator("see docs/install.md on an installation whose credentials are lost", "no way into Vault: neither a root token that works nor %q", readerCred)
	}
	b, err := s.openCredential(ctx, readerName, readerCred)
	if err != nil {
		return nil, false, err
	}
	var r reader
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, false, fmt.Errorf("%q holds no AppRole", readerCred)
	}
	if c, err = s.Vault(""); err != nil {
		return nil, false, err
	}
	return c, false, c.LoginAppRole(ctx, r.RoleID, r.SecretID)
}

// refused says whether Vault answered that the token is not good.
func refused(err error) bool {
	var re *api.ResponseError
	return errors.As(err, &re) && re.StatusCode == http.StatusForbidden
}

// look compares Vault with what is wanted, through one client.
type look struct {
	vaultSetup
	c *vaultapi.Client
}

// keys are the names at a path that Vault answers with a table: sys/audit,
// sys/mounts, sys/auth.
func (v look) keys(ctx context.Context, p string) (map[string]map[string]any, error) {
	s, err := v.c.API().Logical().ReadWithContext(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	out := map[string]map[string]any{}
	if s == nil {
		return out, nil
	}
	for name, value := range s.Data {
		if t, ok := value.(map[string]any); ok {
			out[strings.TrimSuffix(name, "/")] = t
		}
	}
	return out, nil
}

func (v look) audit(ctx context.Context) (engine.Diff, error) {
	there, err := v.keys(ctx, "sys/audit")
	if err != nil {
		return nil, err
	}
	var diff engine.Diff
	// Two: Vault refuses requests when no device can write.
	for _, name := range []string{"audit-1", "audit-2"} {
		if _, ok := there[name]; ok {
			continue
		}
		file := path.Join(auditDir, name+".log")
		diff = append(diff, engine.Change{What: "audit device " + name, To: file,
			Apply: v.settled(func(ctx context.Context) error { return v.c.EnableFileAudit(ctx, name, file) })})
	}
	return diff, nil
}

func (v look) engines(ctx context.Context) (engine.Diff, error) {
	program, err := v.Payload.Program(payload.Plugin)
	if err != nil {
		return nil, err
	}
	p := vaultapi.Plugin{Name: payload.Plugin, Command: pluginFile(v.Version), Version: "v" + v.Version, SHA256: program.SHA256}
	var diff engine.Diff
	registered, err := v.registered(ctx, p)
	if err != nil {
		return nil, err
	}
	if !registered {
		diff = append(diff, engine.Change{What: "plugin " + p.Name, To: p.Version + ", sha256 " + p.SHA256[:12],
			Apply: v.settled(func(ctx context.Context) error { return v.c.RegisterPlugin(ctx, p) })})
	}
	mounts, err := v.keys(ctx, "sys/mounts")
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		at, kind, what string
		mount          func(context.Context) error
	}{
		{mountKeys, p.Name, "engine for API keys", func(ctx context.Context) error { return v.c.MountPlugin(ctx, mountKeys, p) }},
		{mountKV, "kv", "KV version 2", func(ctx context.Context) error { return v.c.EnableKV2(ctx, mountKV) }},
	} {
		t, ok := mounts[m.at]
		switch {
		case !ok:
			diff = append(diff, engine.Change{What: "mount " + m.at + "/", To: m.what, Apply: v.settled(m.mount)})
		case t["type"] != m.kind:
			return nil, operator("move that mount, then run the same command again", "something of type %q is mounted at %s/, where %q belongs", t["type"], m.at, m.kind)
		}
	}
	return diff, nil
}

// registered says whether the catalog has exactly p.
func (v look) registered(ctx context.Context, p vaultapi.Plugin) (bool, error) {
	s, err := v.c.API().Logical().ReadWithDataWithContext(ctx, "sys/plugins/catalog/secret/"+p.Name, map[string][]string{"version": {p.Version}})
	var re *api.ResponseError
	if errors.As(err, &re) && re.StatusCode == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the plugin catalog: %w", err)
	}
	return s != nil && s.Data["sha256"] == p.SHA256 && s.Data["command"] == p.Command, nil
}

func (v look) authMethods(ctx context.Context) (engine.Diff, error) {
	there, err := v.keys(ctx, "sys/auth")
	if err != nil {
		return nil, err
	}
	var diff engine.Diff
	for _, m := range []string{"approle", "userpass"} {
		if _, ok := there[m]; ok {
			continue
		}
		diff = append(diff, engine.Change{What: "auth method " + m, To: "enabled", Apply: v.settled(func(ctx context.Context) error {
			return v.write(ctx, "sys/auth/"+m, map[string]any{"type": m})
		})})
	}
	return diff, nil
}

func (v look) policies(ctx context.Context) (engine.Diff, error) {
	wanted := config.Policies()
	var diff engine.Diff
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		got, err := v.c.API().Sys().GetPolicyWithContext(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("read policy %q: %w", name, err)
		}
		if got == wanted[name] {
			continue
		}
		from := ""
		if got != "" {
			from = "another text"
		}
		diff = append(diff, engine.Change{What: "policy " + name, From: from, To: "as of this version", Apply: func(ctx context.Context) error {
			if err := v.c.API().Sys().PutPolicyWithContext(ctx, name, wanted[name]); err != nil {
				return fmt.Errorf("write policy %q: %w", name, err)
			}
			return nil
		}})
	}
	return diff, nil
}

// reader is the AppRole by which later runs look at Vault.
func (v look) reader(ctx context.Context) (engine.Diff, error) {
	there, err := v.exists(readerCred)
	if err != nil || there {
		return nil, err
	}
	const role = "auth/approle/role/" + config.PolicyDoctor
	return engine.Diff{{What: "AppRole " + config.PolicyDoctor, To: "reads settings; sealed in " + readerCred, Apply: func(ctx context.Context) error {
		if err := v.write(ctx, role, map[string]any{
			"token_policies": config.PolicyDoctor, "token_ttl": "10m", "token_max_ttl": "30m", "token_no_default_policy": true,
			// Only from this machine, which the unix socket shows as no
			// address at all, so it is bound by the secret id alone.
			"secret_id_num_uses": 0,
		}); err != nil {
			return err
		}
		id, err := v.c.API().Logical().ReadWithContext(ctx, role+"/role-id")
		if err != nil {
			return fmt.Errorf("read role id: %w", err)
		}
		secret, err := v.c.API().Logical().WriteWithContext(ctx, role+"/secret-id", nil)
		if err != nil {
			return fmt.Errorf("make secret id: %w", err)
		}
		var r reader
		if id != nil && secret != nil {
			r.RoleID, _ = id.Data["role_id"].(string)
			r.SecretID, _ = secret.Data["secret_id"].(string)
		}
		if r.RoleID == "" || r.SecretID == "" {
			return fmt.Errorf("AppRole %q: Vault's answer holds no ids", config.PolicyDoctor)
		}
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		defer clear(b)
		return v.sealCredential(ctx, readerName, readerCred, b)
	}}}, nil
}

// admin is the first person. The password reaches the escrow before Vault.
func (v look) admin(ctx context.Context) (engine.Diff, error) {
	escrowed, err := v.exists(adminEscrow)
	if err != nil {
		return nil, err
	}
	var names []any
	s, err := v.c.API().Logical().ListWithContext(ctx, "auth/userpass/users")
	if err != nil && !notFound(err) {
		return nil, fmt.Errorf("list users: %w", err)
	}
	if s != nil {
		names, _ = s.Data["keys"].([]any)
	}
	// Once there is an escrow and any user, people are the operator's affair.
	if escrowed && len(names) > 0 {
		return nil, nil
	}
	return engine.Diff{{What: "user " + adminUser, To: "administrator, password in " + adminEscrow, Apply: func(ctx context.Context) error {
		password, err := v.password()
		if err != nil {
			return err
		}
		note := fmt.Sprintf("vault login -method=userpass username=%s\n%s\n", adminUser, password)
		if err := v.escrow(adminEscrow, []byte(note)); err != nil {
			return err
		}
		return v.write(ctx, "auth/userpass/users/"+adminUser, map[string]any{
			"password": password, "token_policies": config.PolicyAdmin, "token_ttl": "1h", "token_max_ttl": "8h",
		})
	}}}, nil
}

// rootToken ends the root token, then its file.
func (s vaultSetup) rootToken(c *vaultapi.Client, isRoot bool) (engine.Diff, error) {
	there, err := s.exists(rootTokenCred)
	if err != nil || !there {
		return nil, err
	}
	return engine.Diff{{What: "root token", From: "alive for the installation", To: "revoked", Apply: func(ctx context.Context) error {
		if isRoot {
			if err := c.RevokeSelf(ctx); err != nil {
				return err
			}
		}
		return s.Host.Remove(rootTokenCred)
	}}}, nil
}

// settled makes a change that Vault may have made by half: when a caller dies in
// the middle, Vault ends the request where it is, and can be left with a device
// or mount in memory that its storage, and so Check, knows nothing of. It then
// refuses the second attempt with a 400, until it is started anew.
func (v look) settled(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := do(ctx)
		var re *api.ResponseError
		if !errors.As(err, &re) || re.StatusCode != http.StatusBadRequest {
			return err
		}
		if restartErr := v.Host.Restart(ctx, systemd.Vault); restartErr != nil {
			return errors.Join(err, restartErr)
		}
		wait, cancel := context.WithTimeout(ctx, vaultPatience)
		defer cancel()
		if waitErr := v.c.WaitActive(wait); waitErr != nil {
			return errors.Join(err, waitErr)
		}
		return do(ctx)
	}
}

func (v look) write(ctx context.Context, p string, data map[string]any) error {
	if _, err := v.c.API().Logical().WriteWithContext(ctx, p, data); err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	return nil
}

func notFound(err error) bool {
	var re *api.ResponseError
	return errors.As(err, &re) && re.StatusCode == http.StatusNotFound
}
