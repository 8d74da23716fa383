package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"slices"
	"time"

	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// vaultSetup is everything inside Vault: audit devices, engines, policies, the
// first administrator. What differs later is changed with the token of an
// administrator, or shown.
type vaultSetup struct{ *Env }

func (vaultSetup) ID() string    { return "vault-setup" }
func (vaultSetup) Title() string { return "audit, engines, policies, admin" }

const adminUser = "admin"

func (s vaultSetup) Check(ctx context.Context) (engine.Diff, error) {
	if why := s.notReady(ctx); why != "" {
		return engine.Diff{{What: "Vault", To: "two audit devices, engines at apikeys/ and secret/, policies, first administrator, keyring",
			Apply: func(context.Context) error { return fmt.Errorf("vault %s", why) }}}, nil
	}
	c, mayWrite, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	v := look{s, c}
	var all collect
	all.add(v.audit(ctx))
	all.add(v.engines(ctx))
	all.add(v.authMethods(ctx))
	all.add(v.policies(ctx))
	all.add(v.admin(ctx, mayWrite))
	for i := range all.diff {
		if !mayWrite {
			all.diff[i].Apply = s.needsAdmin
		}
	}
	all.add(v.keyring(ctx, mayWrite))
	return all.done()
}

// look compares Vault with what is wanted, through one client.
type look struct {
	vaultSetup
	c *vaultapi.Client
}

func (v look) audit(ctx context.Context) (engine.Diff, error) {
	there, err := v.c.AuditDevices(ctx)
	if err != nil {
		return nil, fmt.Errorf("list audit devices: %w", err)
	}
	var diff engine.Diff
	files := auditFiles()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, ok := there[name+"/"]; ok {
			continue
		}
		if v.Config.Vault.Product == config.ProductOpenBao {
			return nil, operator("systemctl restart "+machine.UnitVault+", then run the same command again; journalctl -u "+machine.UnitVault+" says why it is not there",
				"OpenBao has no audit device %q, though %q declares it", name, machine.VaultHCL)
		}
		diff = append(diff, engine.Change{What: "audit device " + name, To: files[name],
			Apply: v.settled("audit device "+name, v.audit, func(ctx context.Context) error { return v.c.EnableFileAudit(ctx, name, files[name]) })})
	}
	return diff, nil
}

// auditFiles are the audit devices by name. Two: Vault refuses requests when no
// device can write.
func auditFiles() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"audit-1", "audit-2"} {
		out[name] = path.Join(machine.AuditDir, name+".log")
	}
	return out
}

func (v look) engines(ctx context.Context) (engine.Diff, error) {
	program, err := v.Payload.Program(machine.PluginName)
	if err != nil {
		return nil, err
	}
	p := vaultapi.Plugin{Name: machine.PluginName, Command: machine.PluginFile(v.Version), Version: "v" + v.Version, SHA256: program.SHA256}
	var diff engine.Diff
	registered, err := v.registered(ctx, p)
	if err != nil {
		return nil, err
	}
	if !registered {
		diff = append(diff, engine.Change{What: "plugin " + p.Name, To: p.Version + ", sha256 " + p.SHA256[:12],
			Apply: v.settled("plugin "+p.Name, v.engines, func(ctx context.Context) error { return v.c.RegisterPlugin(ctx, p) })})
	}
	mounts, err := v.c.Mounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	for _, m := range []struct {
		at, kind, what string
		mount          func(context.Context) error
	}{
		{machine.MountKeys, p.Name, "engine for API keys", func(ctx context.Context) error { return v.c.MountPlugin(ctx, machine.MountKeys, p) }},
		{machine.MountKV, "kv", "KV version 2", func(ctx context.Context) error { return v.c.EnableKV2(ctx, machine.MountKV) }},
	} {
		there, ok := mounts[m.at+"/"]
		switch {
		case !ok:
			diff = append(diff, engine.Change{What: "mount " + m.at + "/", To: m.what, Apply: v.settled("mount "+m.at+"/", v.engines, m.mount)})
		case there.Type != m.kind:
			return nil, operator("move that mount, then run the same command again", "something of type %q is mounted at %s/, where %q belongs", there.Type, m.at, m.kind)
		}
	}
	return diff, nil
}

// registered says whether the catalog has exactly p.
func (v look) registered(ctx context.Context, p vaultapi.Plugin) (bool, error) {
	there, err := v.c.ReadWith(ctx, "sys/plugins/catalog/secret/"+p.Name, url.Values{"version": {p.Version}})
	if vaultapi.IsNotFound(err) {
		return false, nil
	}
	var sum, command string
	if err == nil {
		sum, err = there.Text("sha256")
	}
	if err == nil {
		command, err = there.Text("command")
	}
	if err != nil {
		return false, fmt.Errorf("read the plugin catalog: %w", err)
	}
	return sum == p.SHA256 && command == p.Command, nil
}

func (v look) authMethods(ctx context.Context) (engine.Diff, error) {
	there, err := v.c.AuthMethods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list auth methods: %w", err)
	}
	var diff engine.Diff
	for _, m := range []struct{ at, kind string }{
		{machine.AuthAppRole, machine.AuthAppRole}, {machine.AuthUserpass, machine.AuthUserpass}, {machine.AuthLocal, machine.AuthUserpass},
	} {
		switch is, ok := there[m.at+"/"]; {
		case !ok:
			diff = append(diff, engine.Change{What: "auth method " + m.at, To: "enabled", Apply: v.settled("auth method "+m.at, v.authMethods, func(ctx context.Context) error {
				return v.write(ctx, "sys/auth/"+m.at, map[string]any{"type": m.kind})
			})})
		case is.Type != m.kind:
			return nil, operator("move that auth method, then run the same command again", "an auth method of type %q is at auth/%s/, where %q belongs", is.Type, m.at, m.kind)
		}
	}
	tune := engine.Change{What: "user lockout of auth/" + machine.AuthLocal + "/", To: "off: nobody outside gets there", Apply: func(ctx context.Context) error {
		return v.write(ctx, "sys/auth/"+machine.AuthLocal+"/tune", map[string]any{"user_lockout_config": map[string]any{"lockout_disable": true}})
	}}
	if _, ok := there[machine.AuthLocal+"/"]; !ok {
		return append(diff, tune), nil
	}
	is, err := v.c.Read(ctx, "sys/auth/"+machine.AuthLocal+"/tune")
	if err != nil {
		return nil, fmt.Errorf("read the tuning of auth/%s/: %w", machine.AuthLocal, err)
	}
	if is["user_lockout_disable"] != true {
		tune.From = "on"
		diff = append(diff, tune)
	}
	return diff, nil
}

func (v look) policies(ctx context.Context) (engine.Diff, error) {
	wanted := config.Policies()
	var diff engine.Diff
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		got, err := v.c.Policy(ctx, name)
		from := "another text"
		switch {
		case vaultapi.IsNotFound(err):
			from = ""
		case err != nil:
			return nil, err
		case got == wanted[name]:
			continue
		}
		diff = append(diff, engine.Change{What: "policy " + name, From: from, To: "as of this version", Apply: func(ctx context.Context) error {
			return v.c.PutPolicy(ctx, name, wanted[name])
		}})
	}
	return diff, nil
}

// admin is the first person, at each of the two ways in: the one for people, and the
// one that nobody outside can lock. The password reaches the escrow before Vault. Once
// there is any user, people are the operator's affair: a file that is missing
// has been taken off the machine (docs/escrow.md), and nobody's password changes.
func (v look) admin(ctx context.Context, mayWrite bool) (engine.Diff, error) {
	// Nobody answers for the users of a method that has yet to be enabled.
	methods, err := v.c.AuthMethods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list auth methods: %w", err)
	}
	var diff engine.Diff
	for _, way := range []struct {
		mount, option, escrow string
		bits                  int
	}{
		{machine.AuthUserpass, "", machine.AdminEscrow, 130},
		// Its password is all that keeps others out: no lockout, no delay.
		{machine.AuthLocal, "-path=" + machine.AuthLocal + " ", machine.LocalEscrow, 256},
	} {
		if _, ok := methods[way.mount+"/"]; ok {
			users, err := v.c.List(ctx, "auth/"+way.mount+"/users")
			if vaultapi.IsDenied(err) && !mayWrite {
				err = nil // the doctor's policy is an older one
			}
			if err != nil {
				return nil, fmt.Errorf("list users: %w", err)
			}
			if len(users) > 0 {
				continue
			}
		}
		what := "user " + adminUser
		if way.mount != machine.AuthUserpass {
			what += " of auth/" + way.mount + "/"
		}
		diff = append(diff, engine.Change{What: what, To: "administrator, password in " + way.escrow, Apply: func(ctx context.Context) error {
			password, err := v.password(way.bits)
			if err != nil {
				return err
			}
			note := fmt.Sprintf("vault login -method=userpass %susername=%s\n%s\n", way.option, adminUser, password)
			if err := v.escrow(way.escrow, []byte(note)); err != nil {
				return err
			}
			return v.write(ctx, "auth/"+way.mount+"/users/"+adminUser, map[string]any{
				"password": password, "token_policies": config.PolicyAdmin, "token_ttl": "1h", "token_max_ttl": "8h",
			})
		}})
	}
	return diff, nil
}

// keyringField holds the text of keyring.json.
const keyringField = "keyring.json"

// keyring wants the public keys of the jobs that sign in Vault, which goes through a
// restore with them, and in the files what other nodes have put there. Whoever may write
// to Vault at that path, and nobody else, can so add one: an administrator.
func (v look) keyring(ctx context.Context, mayWrite bool) (engine.Diff, error) {
	text, err := v.Host.ReadFile(machine.KeyringFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a plan's, of a machine whose jobs have no keys yet
	}
	if err != nil {
		return nil, err
	}
	ring, err := signing.ParseKeyring(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", machine.KeyringFile, err)
	}
	at := machine.MountKV + "/" + machine.KVKeyring
	put := engine.Change{What: at, To: "public keys of the jobs that sign", Apply: v.needsAdmin}
	store, there := kv.New(v.c), kv.Stored{}
	mounts, err := v.c.Mounts(ctx)
	if _, mounted := mounts[machine.MountKV+"/"]; err == nil && mounted { // else by this run
		there, err = store.Read(ctx, machine.MountKV, machine.KVKeyring)
	}
	if vaultapi.IsDenied(err) && !mayWrite {
		return engine.Diff{put}, nil // the doctor's policy is an older one
	}
	if err != nil {
		return nil, err
	}
	var shared *signing.Keyring
	was, found := there.Data[keyringField].(string)
	if found {
		if shared, err = signing.ParseKeyring([]byte(was)); err != nil {
			return nil, operator("bring an earlier version back: vault kv rollback -mount="+machine.MountKV+" -version=N "+machine.KVKeyring, "%s: %w", at, err)
		}
		ring.Merge(shared, v.Config.Domain, v.Host.Now().UTC().Truncate(time.Second))
	}
	if text, err = ring.Encode(); err != nil {
		return nil, err
	}
	diff, err := v.file(machine.KeyringFile, bytesSource(text), root(0o644))
	if err != nil {
		return nil, err
	}
	if len(diff) > 0 { // the escrow's first: after a kill behind it the file still differs
		diff = append(engine.Diff{{What: machine.KeyringEscrow, To: "public keys that Vault knows, too", Apply: func(context.Context) error {
			return v.Host.Write(machine.KeyringEscrow, bytes.NewReader(text), root(0o600))
		}}}, diff...)
	}
	if found && was == string(text) {
		return diff, nil
	}
	if mayWrite {
		put.Apply = func(ctx context.Context) error {
			_, err := store.Write(ctx, machine.MountKV, machine.KVKeyring, map[string]any{keyringField: string(text)}, there.Version)
			return err
		}
	}
	return append(diff, put), nil
}

// settled makes a change that Vault may have made by half: when a caller dies in
// the middle, Vault ends the request where it is, and can be left with a device
// or mount in memory that its storage, and so Check, knows nothing of. It then
// refuses the second attempt with a 400, until it is started anew.
//
// Or a request whose caller was killed was still under way, and has made the
// change meanwhile: then look doesn't find what any more.
func (v look) settled(what string, look func(context.Context) (engine.Diff, error), do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := do(ctx)
		if !vaultapi.IsBadRequest(err) {
			return err
		}
		if restartErr := v.Host.Restart(ctx, machine.UnitVault); restartErr != nil {
			return errors.Join(err, restartErr)
		}
		wait, cancel := context.WithTimeout(ctx, vaultPatience)
		defer cancel()
		if waitErr := v.c.WaitActive(wait); waitErr != nil {
			return errors.Join(err, waitErr)
		}
		left, lookErr := look(ctx)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if !slices.ContainsFunc(left, func(c engine.Change) bool { return c.What == what }) {
			return nil
		}
		return do(ctx)
	}
}

func (v look) write(ctx context.Context, p string, data map[string]any) error {
	_, err := v.c.Write(ctx, p, data)
	return err
}
