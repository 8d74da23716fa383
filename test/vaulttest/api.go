package vaulttest

import (
	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
)

// API is HashiCorp's client in c's place, for what only tests ask of a Vault. It
// is for a socket or a loopback address, and has the token that c has now. Each
// has connections of its own: a loop takes one before it begins.
func API(c *vaultapi.Client) *api.Client {
	a, err := api.NewClient(&api.Config{Address: c.Address()})
	if err != nil {
		panic(err) // an address that c was made with
	}
	a.SetToken(c.Token())
	return a
}
