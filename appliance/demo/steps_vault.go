package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// The research's split of the recovery key: any three of five.
const (
	recoveryShares    = 5
	recoveryThreshold = 3
)

func (r *run) startVault(ctx context.Context) (string, error) {
	var err error
	r.vault, err = scratch.Start(ctx, r.set, scratch.Options{
		Dir: r.o.Dir, Programs: r.o.Programs, Keyset: r.keyset, FrontAddress: r.o.Listen,
	})
	if err != nil {
		return "", err
	}
	return "master key " + r.keyset.Fingerprint() + ", in the KMS's memory only", nil
}

// keep writes a secret to the escrow and proves that it opens.
func (r *run) keep(name string, secret []byte) error {
	to := []age.Recipient{r.identity.Recipient()}
	for _, rc := range r.o.Recipients {
		to = append(to, rc)
	}
	sealed, err := escrow.Seal(secret, to...)
	if err != nil {
		return err
	}
	path := r.vault.Layout.Escrow(name)
	if err := atomicfile.Write(path, sealed, 0o600); err != nil {
		return err
	}
	written, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	opened, err := escrow.Open(written, r.identity)
	defer clear(opened)
	if err != nil {
		return err
	}
	if string(opened) != string(secret) {
		return fmt.Errorf("escrow %q does not hold what was put in", path)
	}
	return nil
}

func (r *run) initialise(ctx context.Context) (string, error) {
	// The master key first, before Vault encrypts anything with it.
	master, err := r.keyset.Marshal()
	if err != nil {
		return "", err
	}
	defer clear(master)
	if err := r.keep("master-key", master); err != nil {
		return "", err
	}
	if r.root, err = r.vault.Local(); err != nil {
		return "", err
	}
	init, err := r.root.Init(ctx, vaultapi.InitRequest{
		RecoveryShares: recoveryShares, RecoveryThreshold: recoveryThreshold,
	})
	if err != nil {
		return "", err
	}
	r.root.SetToken(init.RootToken)
	if err := r.keep("recovery-keys", []byte(strings.Join(init.RecoveryKeys, "\n")+"\n")); err != nil {
		return "", err
	}
	if err := r.vault.WaitActive(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("auto-unsealed through the KMS; %d recovery keys (any %d) and the master key\nage-encrypted in escrow/", recoveryShares, recoveryThreshold), nil
}

func (r *run) enableAudit(ctx context.Context) (string, error) {
	return "", r.vault.EnableAudit(ctx, r.root)
}

func (r *run) mountPlugin(ctx context.Context) (string, error) {
	sum, err := vaultapi.SHA256File(filepath.Join(r.vault.Layout.Plugins(), machine.PluginName))
	if err != nil {
		return "", err
	}
	p := vaultapi.Plugin{Name: machine.PluginName, Command: machine.PluginName, Version: r.pluginVersion, SHA256: sum}
	if err := r.root.RegisterPlugin(ctx, p); err != nil {
		return "", err
	}
	if err := r.root.MountPlugin(ctx, machine.MountKeys, p); err != nil {
		return "", err
	}
	return fmt.Sprintf("at apikeys/, version %s, SHA-256 %s…", p.Version, sum[:12]), nil
}

func (r *run) mountKV(ctx context.Context) (string, error) {
	return "", r.root.EnableKV2(ctx, machine.MountKV)
}

// appRole is how a job logs in.
type appRole struct{ roleID, secretID string }

const (
	userName   = "demo"
	userPolicy = `# What the demo's user may do: use the two engines, and look around.
path "apikeys/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "secret/*"  { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "sys/mounts" { capabilities = ["read"] }
`
)

// replaceRoot makes the identities that are used from here on, and then ends
// the root token: nothing long-lived can do everything.
func (r *run) replaceRoot(ctx context.Context) (string, error) {
	for name, policy := range map[string]string{"demo-user": userPolicy, config.PolicySnapshot: config.Policies()[config.PolicySnapshot]} {
		if err := r.root.PutPolicy(ctx, name, policy); err != nil {
			return "", err
		}
	}
	for _, method := range []string{machine.AuthUserpass, machine.AuthAppRole} {
		if _, err := r.root.Write(ctx, "sys/auth/"+method, map[string]any{"type": method}); err != nil {
			return "", fmt.Errorf("enable auth method %q: %w", method, err)
		}
	}
	r.userPassword = rand.Text()
	if _, err := r.root.Write(ctx, "auth/userpass/users/"+userName, map[string]any{
		"password": r.userPassword, "token_policies": "demo-user", "token_ttl": "1h", "token_max_ttl": "4h",
	}); err != nil {
		return "", fmt.Errorf("make user %q: %w", userName, err)
	}
	role, err := r.makeAppRole(ctx, config.PolicySnapshot)
	if err != nil {
		return "", err
	}
	r.snapshotRole = role
	if err := r.login(ctx); err != nil {
		return "", err
	}
	if err := r.root.RevokeSelf(ctx); err != nil {
		return "", err
	}
	r.root = nil
	return "logged in through the front as " + userName + " (userpass)", nil
}

func (r *run) makeAppRole(ctx context.Context, name string) (appRole, error) {
	path := "auth/approle/role/" + name
	if _, err := r.root.Write(ctx, path, map[string]any{
		"token_policies": name, "token_ttl": "15m", "token_max_ttl": "1h",
	}); err != nil {
		return appRole{}, fmt.Errorf("make AppRole %q: %w", name, err)
	}
	id, err := r.root.Read(ctx, path+"/role-id")
	if err != nil {
		return appRole{}, fmt.Errorf("read role id of %q: %w", name, err)
	}
	secret, err := r.root.Write(ctx, path+"/secret-id", nil)
	if err != nil {
		return appRole{}, fmt.Errorf("make secret id of %q: %w", name, err)
	}
	roleID, err := id.Text("role_id")
	if err != nil {
		return appRole{}, err
	}
	secretID, err := secret.Text("secret_id")
	if err != nil {
		return appRole{}, err
	}
	return appRole{roleID, secretID}, nil
}

// login makes r.user a client through the front with a fresh token.
func (r *run) login(ctx context.Context) error {
	c, err := vaultapi.New(vaultapi.Options{
		Address: "https://" + r.o.Listen, CACert: r.vault.Layout.FrontRoot(),
	})
	if err != nil {
		return err
	}
	if err := c.LoginUserpass(ctx, userName, r.userPassword); err != nil {
		return fmt.Errorf("through the front: %w", err)
	}
	r.user = c
	return nil
}

func (r *run) startFront(ctx context.Context) (string, error) {
	var err error
	if r.front, err = r.vault.StartFront(ctx); err != nil {
		return "", err
	}
	return "https://" + r.o.Listen + ", internal CA; Vault behind it takes no other client", nil
}

// killVault is what a crash or a reboot does.
func (r *run) killVault(ctx context.Context) (string, error) {
	before := r.vault.Process.PID()
	r.vault.Process.Kill()
	killed := time.Now()
	if err := r.vault.WaitActive(ctx); err != nil {
		return "", err
	}
	took := time.Since(killed)
	after := r.vault.Process.PID()
	if before == after {
		return "", fmt.Errorf("process %d was killed and is still there", before)
	}
	// The storage and the engine are there, seen from outside.
	k, err := r.readKey(ctx, 0)
	if err != nil {
		return "", fmt.Errorf("after the kill: %w", err)
	}
	return fmt.Sprintf("SIGKILL to process %d; process %d unsealed %.2f s later; key version %d reads", before, after, took.Seconds(), k.version), nil
}
