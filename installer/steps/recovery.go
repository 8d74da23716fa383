package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

const masterKeyFile = "master-key.age"

// Before puts more steps before the one with that id.
func Before(all []engine.Step, id string, more ...engine.Step) ([]engine.Step, error) {
	at := slices.IndexFunc(all, func(s engine.Step) bool { return s.ID() == id })
	if at < 0 {
		return nil, fmt.Errorf("there is no step %q", id)
	}
	return slices.Insert(slices.Clone(all), at, more...), nil
}

// HasVault says whether this machine has the data or the master key of a Vault.
func (e *Env) HasVault() (bool, error) {
	data, err := e.vaultHasData()
	if err != nil || data {
		return data, err
	}
	return e.exists(machine.MasterKeyFile)
}

// VaultInUse says whether this machine's Vault was set up for use. The doctor's
// login, which no backup brings here, is made in such a one alone.
func (e *Env) VaultInUse() (bool, error) { return e.exists(machine.DoctorSecretFile) }

// HasMasterKey says whether the master key is sealed for the KMS.
func (e *Env) HasMasterKey() (bool, error) { return e.exists(machine.MasterKeyFile) }

// PutMasterKey seals a master key that comes from an escrow.
func (e *Env) PutMasterKey(ctx context.Context, k *kms.Keyset) error {
	plain, err := k.Marshal()
	if err != nil {
		return err
	}
	defer clear(plain)
	return e.sealCredential(ctx, machine.CredMasterKey, machine.MasterKeyFile, plain)
}

// HasEscrow says whether the escrow file of that base name is there.
func (e *Env) HasEscrow(name string) (bool, error) {
	return e.exists(path.Join(machine.EscrowDir, name))
}

// PutEscrow puts an escrow file that comes from the operator's copy back, with
// challenges for it. plain is nil for one that did not open here; then checks are
// the old machine's, or nil.
func (e *Env) PutEscrow(name string, sealed, plain, checks []byte) error {
	if plain != nil {
		key := ""
		if name == masterKeyFile {
			k, err := kms.ParseKeyset(plain)
			if err != nil {
				return err
			}
			key = k.Fingerprint()
		}
		made, err := escrow.NewChecks(name, sealed, plain, key, e.Rand, e.Host.Now())
		if err != nil {
			return err
		}
		if checks, err = made.Encode(); err != nil {
			return err
		}
	}
	if checks != nil {
		if err := e.Host.Write(path.Join(machine.EscrowDir, escrow.ChecksName(name, sealed)), bytes.NewReader(checks), root(0o600)); err != nil {
			return err
		}
	}
	return e.Host.Write(path.Join(machine.EscrowDir, name), bytes.NewReader(sealed), root(0o600))
}

// PutRootToken keeps the token that the following steps work with. The step
// that ends the installation revokes it.
func (e *Env) PutRootToken(ctx context.Context, token string) error {
	b := []byte(token)
	defer clear(b)
	return e.sealCredential(ctx, machine.CredRootToken, machine.RootTokenFile, b)
}

// RootClient is nil where no root token is kept, or none that Vault knows.
func (e *Env) RootClient(ctx context.Context) (*vaultapi.Client, error) { return e.rootClient(ctx) }

// SetVaultAside has Vault begin anew, on an empty storage; the one of before is kept.
func (e *Env) SetVaultAside(ctx context.Context) error { return e.setAside(ctx) }

// RestartVault restarts Vault and waits until it is active.
func (e *Env) RestartVault(ctx context.Context) error {
	if err := e.Host.Restart(ctx, machine.UnitVault); err != nil {
		return err
	}
	c, err := e.Vault("")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, vaultPatience, fmt.Errorf("not done within %v", vaultPatience))
	defer cancel()
	return c.WaitActive(ctx)
}

// EnginePlugin is the secrets engine of this version, as Vault's catalog wants
// it.
func (e *Env) EnginePlugin() (vaultapi.Plugin, error) {
	program, err := e.Payload.Program(machine.PluginName)
	if err != nil {
		return vaultapi.Plugin{}, err
	}
	return vaultapi.Plugin{Name: machine.PluginName, Command: machine.PluginFile(e.Version), Version: "v" + e.Version, SHA256: program.SHA256}, nil
}

// UnpackedOwner gives who owns what a recovery unpacks: the front its storage,
// root all else.
func (e *Env) UnpackedOwner() (func(name string) (uid, gid int), error) {
	u, err := e.Host.User(machine.UserFront)
	if err != nil {
		return nil, err
	}
	return func(name string) (int, int) {
		if at := "/" + name; at == machine.FrontData || strings.HasPrefix(at, machine.FrontData+"/") {
			return u.UID, u.GID
		}
		return 0, 0
	}, nil
}

// MissingCredentials are the secrets that the configuration names and that are
// neither given nor sealed here.
func (e *Env) MissingCredentials() ([]string, error) {
	var out []string
	for _, name := range e.backupCredentials() {
		if _, given := e.Given[name]; given {
			continue
		}
		there, err := e.exists(machine.CredentialFile(name))
		if err != nil {
			return nil, err
		}
		if !there {
			out = append(out, name)
		}
	}
	return out, nil
}

// Operator is an error that a person must act on, with exit code 4.
func Operator(hint string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	return &fault.Error{Code: fault.Operator, Err: err, Hint: hint}
}

// ForgetAlert leaves a credential out of a configuration, where it only serves
// to tell of failures; false where it is for something else.
func ForgetAlert(c *config.Appliance, credential string) bool {
	for _, to := range c.Backup.To {
		if to.Credentials == credential {
			return false
		}
	}
	if c.Backup.WebhookFile == credential {
		c.Backup.WebhookFile = ""
	}
	if c.Alert.WebhookFile == credential {
		c.Alert.WebhookFile = ""
	}
	if c.Alert.Mail.Credentials == credential {
		// Without its login the server would refuse every mail.
		c.Alert.Mail = config.DefaultAlert().Mail
	}
	return true
}
