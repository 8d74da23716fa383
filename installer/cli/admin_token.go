package cli

import (
	"context"
	"errors"
	"slices"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

const tokenFileHelp = "file with a Vault token of an administrator, for changes in a Vault that is there (default: $VAULT_TOKEN, else ~/.vault-token as vault login leaves it)"

// newClient asks this machine's Vault.
func newClient(token string) (*vaultapi.Client, error) {
	return vaultapi.New(vaultapi.Options{Address: "unix://" + machine.VaultSocket, Token: token})
}

// adminToken is the token that the operator gives for changes in Vault; "" for
// none. What vault login has left may be somebody else's, or of another time: it
// is taken only where Vault says that it is an administrator's.
func (o *options) adminToken(ctx context.Context, client func(token string) (*vaultapi.Client, error)) (string, error) {
	given := access.Options{TokenFile: o.tokenFile}
	token, err := given.Token()
	switch {
	case errors.Is(err, access.ErrNoLogin):
		return "", nil
	case err != nil && given.Given():
		return "", err
	case err != nil:
		return "", nil
	case given.Given():
		return token, nil
	}
	c, err := client(token)
	if err != nil {
		return "", err
	}
	// Whatever keeps Vault from saying so, nobody has logged in.
	self, err := c.Once(0).LookupSelf(ctx)
	if err != nil {
		return "", nil
	}
	policies, err := self.Strings("policies")
	if more, merr := self.Strings("identity_policies"); merr == nil {
		policies = append(policies, more...) // by a group
	}
	if err != nil || !slices.Contains(policies, config.PolicyAdmin) && !slices.Contains(policies, "root") {
		return "", nil
	}
	return token, nil
}
