package cli

import (
	"errors"

	"github.com/spf13/pflag"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// vaultAccess is package access with this program's flags, exit codes and hints.
type vaultAccess struct{ access.Options }

// add defines the flags of a command that logs in.
func (v *vaultAccess) add(f *pflag.FlagSet) {
	v.addPlace(f)
	if v.Machine == (access.Role{}) {
		f.StringVar(&v.TokenFile, "token-file", "", "file with a Vault token (default: $VAULT_TOKEN, else ~/.vault-token as vault login leaves it)")
		return
	}
	f.StringVar(&v.TokenFile, "token-file", "", "file with a Vault token (default: this machine's own login, $VAULT_TOKEN, ~/.vault-token as vault login leaves it)")
	f.StringVar(&v.RoleIDFile, "role-id-file", "", "file with an AppRole's role id (default: the credential "+v.Machine.ID+")")
	f.StringVar(&v.SecretIDFile, "secret-id-file", "", "file with an AppRole's secret id (default: the credential "+v.Machine.Secret+")")
}

// addPlace defines the flags that say where Vault is.
func (v *vaultAccess) addPlace(f *pflag.FlagSet) {
	f.StringVar(&v.Address, "address", "", "Vault's address, https://… or unix:///… (default: $VAULT_ADDR, else "+machine.VaultAddress+")")
	f.StringVar(&v.CACert, "ca-cert", "", "PEM file of Vault's authority (default: $VAULT_CACERT, else the system's)")
}

// client connects as the person who asks. It makes no request yet.
func (v *vaultAccess) client() (*vaultapi.Client, error) {
	c, err := v.Client()
	if err != nil {
		return nil, err
	}
	token, err := v.Token()
	if err != nil {
		return nil, err
	}
	c.SetToken(token)
	return c, nil
}

// vaultError says what to do about a failed request to Vault. Other errors
// pass unchanged.
func vaultError(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	switch {
	case vaultapi.IsDenied(err) && (vaultapi.Says(err, config.RefusedSystem) || vaultapi.Says(err, config.RefusedLocal)):
		return &Error{Code: ExitOperator, Err: err, Hint: "run it on the Vault machine, with --address unix:///run/vault/vault.sock"}
	case vaultapi.IsDenied(err):
		return &Error{Code: ExitOperator, Err: err, Hint: "the token is no longer valid or its policies do not allow this: log in with vault login as somebody who may"}
	case vaultapi.IsUnavailable(err):
		return &Error{Code: ExitOperator, Err: err, Hint: "Vault is sealed or not active yet: see docs/unseal.md"}
	case vaultapi.IsNoAnswer(err):
		return &Error{Code: ExitFailed, Err: err, Hint: "check --address or VAULT_ADDR, --ca-cert or VAULT_CACERT, and that Vault runs; the command can be run again"}
	}
	return err
}
