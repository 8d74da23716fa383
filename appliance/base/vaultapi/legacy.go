package vaultapi

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"
)

var legacyLock sync.Mutex

// API is HashiCorp's client, until nobody uses it any more.
func (c *Client) API() *api.Client {
	legacyLock.Lock()
	defer legacyLock.Unlock()
	if c.legacy == nil {
		for _, kv := range os.Environ() {
			if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "VAULT_") {
				os.Unsetenv(name)
				defer os.Setenv(name, value)
			}
		}
		a, err := api.NewClient(&api.Config{Address: c.address, HttpClient: &http.Client{Transport: c.http.Transport, CheckRedirect: c.http.CheckRedirect}, Timeout: c.timeout, MaxRetries: c.repeats})
		if err != nil {
			panic(errors.New("vault client"))
		}
		a.SetWrappingLookupFunc(func(string, string) string { return "" })
		c.legacy = a
	}
	c.legacy.SetToken(c.Token())
	return c.legacy
}
