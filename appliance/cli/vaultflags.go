package cli

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/vaultapi"
)

// operatorVault says where Vault is and who asks, for the verbs that a person
// or a CI job runs by hand: flags first, then the variables and the token file
// of Vault's own command line. A token is never a flag, as the process list
// shows those.
type operatorVault struct {
	address, caCert string
	tokenFile       string
}

// add defines the flags for c and everything below it.
func (v *operatorVault) add(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&v.address, "address", "", "Vault's address, https://… or unix:///… (default: $VAULT_ADDR, else "+defaultVault+")")
	f.StringVar(&v.caCert, "ca-cert", "", "PEM file of Vault's authority (default: $VAULT_CACERT, else the system's)")
	f.StringVar(&v.tokenFile, "token-file", "", "file with a Vault token (default: $VAULT_TOKEN, else ~/.vault-token as vault login leaves it)")
}

// client connects as the person who asks. It makes no request yet.
func (v *operatorVault) client() (*vaultapi.Client, error) {
	o := vaultapi.Options{Address: v.address, CACert: v.caCert}
	if o.Address == "" {
		o.Address = os.Getenv("VAULT_ADDR")
	}
	if o.Address == "" {
		o.Address = defaultVault
	}
	if o.CACert == "" {
		o.CACert = os.Getenv("VAULT_CACERT")
	}
	var err error
	if o.Token, err = v.token(); err != nil {
		return nil, err
	}
	c, err := vaultapi.New(o)
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "give --address https://HOST:PORT or unix:///PATH, and --ca-cert FILE where its authority is your own"}
	}
	return c, nil
}

// token finds the token as Vault's own command line does. Errors never quote
// what they have read.
func (v *operatorVault) token() (string, error) {
	if v.tokenFile == "" {
		if token := strings.TrimSpace(os.Getenv("VAULT_TOKEN")); token != "" {
			return token, nil
		}
	}
	file := v.tokenFile
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", noToken()
		}
		file = filepath.Join(home, ".vault-token")
	}
	data, err := readCredential(pathOf(file))
	switch {
	case errors.Is(err, os.ErrNotExist) && v.tokenFile == "":
		return "", noToken()
	case err != nil:
		return "", &Error{Code: ExitUsage, Err: fmt.Errorf("vault token: %w", err)}
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", &Error{Code: ExitOperator, Err: fmt.Errorf("vault token: file %q is empty", file), Hint: "log in with vault login"}
	}
	if strings.ContainsAny(token, " \t\r\n") {
		return "", &Error{Code: ExitUsage, Err: fmt.Errorf("vault token: file %q holds more than one token", file)}
	}
	return token, nil
}

func noToken() error {
	return &Error{Code: ExitOperator, Err: errors.New("not logged in to Vault"),
		Hint: "log in with vault login, or set VAULT_TOKEN, or give --token-file"}
}

// frontRefusal is what package front answers to the calls that it keeps from
// the outside, whoever asks.
const frontRefusal = "answered on the machine itself only"

// vaultError says what to do about a failed request to Vault. Other errors
// pass unchanged.
func vaultError(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusForbidden:
			if strings.Contains(err.Error(), frontRefusal) {
				return &Error{Code: ExitOperator, Err: err, Hint: "run it on the Vault machine, with --address unix:///run/vault/vault.sock"}
			}
			return &Error{Code: ExitOperator, Err: err, Hint: "the token is no longer valid or its policies do not allow this: log in with vault login as somebody who may"}
		case http.StatusServiceUnavailable:
			return &Error{Code: ExitOperator, Err: err, Hint: "Vault is sealed or not active yet: see docs/unseal.md"}
		}
		return err
	}
	var dial *net.OpError
	var request *url.Error
	if errors.As(err, &dial) || errors.As(err, &request) {
		return &Error{Code: ExitFailed, Err: err, Hint: "check --address or VAULT_ADDR, --ca-cert or VAULT_CACERT, and that Vault runs; the command can be run again"}
	}
	return err
}
