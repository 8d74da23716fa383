// Package access says where Vault is and who asks, for every command that asks
// it, in one order: what flags say, then this machine's own login where the
// command has one, then the variables of Vault's own command line, then the token
// that vault login has left.
//
// A token is never a flag, as the process list shows those; errors never quote
// what was read. It grants nothing: what somebody may do is Vault's to say.
package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// ErrNoLogin is returned where no login is at hand.
var ErrNoLogin = errors.New("not logged in to Vault")

// Role names the credentials of an AppRole of this machine's own.
type Role struct {
	ID, Secret string // names of systemd credentials
	Hint       string // what to do where they are no login; empty for the appliance's own
}

func (r Role) hint() string {
	return first(r.Hint, "strongroom-installer install makes what is missing")
}

// Options are what the flags say. Empty is what was not given.
type Options struct {
	Address   string // https://HOST:PORT or unix:///PATH
	CACert    string // PEM file
	TokenFile string
	// RoleIDFile and SecretIDFile are an AppRole's: both or neither.
	RoleIDFile, SecretIDFile string
	// Machine is the login that this machine has for the command; the zero Role
	// where it has none.
	Machine Role
	// Sealed is the folder of encrypted credentials; empty for credential.Dir.
	Sealed string
}

// Place is where Vault is: the flags, the variables, this machine's socket.
func (o *Options) Place() (address, caCert string) {
	return first(o.Address, os.Getenv("VAULT_ADDR"), machine.VaultAddress), first(o.CACert, os.Getenv("VAULT_CACERT"))
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// Client connects, as nobody yet. It makes no request.
func (o *Options) Client() (*vaultapi.Client, error) {
	address, ca := o.Place()
	err := checkAddress(address)
	if err == nil {
		var c *vaultapi.Client
		if c, err = vaultapi.New(vaultapi.Options{Address: address, CACert: ca}); err == nil {
			return c, nil
		}
	}
	return nil, &fault.Error{Code: fault.Usage, Err: err, Hint: "give --address https://HOST:PORT or unix:///PATH, and --ca-cert FILE where its authority is your own"}
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil, u.User != nil:
		// It may hold a password, and the parser would quote it.
		return errors.New("vault's address is not a URL without a login in it")
	case u.Scheme == "unix" && u.Path != "", (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		return nil
	}
	return fmt.Errorf("vault's address %q is neither https://HOST:PORT nor unix:///PATH", address)
}

// Login makes c somebody.
func (o *Options) Login(ctx context.Context, c *vaultapi.Client) (Session, error) {
	s, err := o.LoginAppRole(ctx, c)
	if err == nil || !errors.Is(err, ErrNoLogin) {
		return s, err
	}
	token, terr := o.Token()
	if terr != nil {
		if f := new(fault.Error); errors.As(err, &f) && errors.Is(terr, ErrNoLogin) {
			return Session{}, err // says more
		}
		return Session{}, terr
	}
	c.SetToken(token)
	return Session{}, nil
}

// LoginAppRole makes c the AppRole that the flags name, or this machine's own.
// The error is ErrNoLogin where there is neither.
func (o *Options) LoginAppRole(ctx context.Context, c *vaultapi.Client) (Session, error) {
	role, secret, err := o.appRole()
	if err != nil {
		return Session{}, err
	}
	if err := c.LoginAppRole(ctx, role, secret); err != nil {
		return Session{}, err
	}
	return Session{made: c}, nil
}

// Session is a login. The zero value is nobody's.
type Session struct {
	made *vaultapi.Client // nil for a token that was there before
}

// Own says whether the token was made by Login, and so is ended by End.
func (s *Session) Own() bool { return s.made != nil }

// End ends a token that Login has made, also of a run that was cancelled. A
// second call does nothing.
func (s *Session) End(ctx context.Context) error {
	if s.made == nil {
		return nil
	}
	c := s.made
	s.made = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.RevokeSelf(ctx)
}

// appRole gives the ids. Its error is ErrNoLogin where there are none.
func (o *Options) appRole() (role, secret string, err error) {
	switch {
	case (o.RoleIDFile == "") != (o.SecretIDFile == ""):
		return "", "", &fault.Error{Code: fault.Usage, Err: errors.New("--role-id-file and --secret-id-file: both or neither"), Hint: "give both"}
	case o.RoleIDFile != "" && o.TokenFile != "":
		return "", "", &fault.Error{Code: fault.Usage, Err: errors.New("--token-file, and --role-id-file with --secret-id-file"), Hint: "one or the other"}
	case o.RoleIDFile != "":
		return pair(credential.Read, credential.Path(o.RoleIDFile), credential.Path(o.SecretIDFile), "name files that hold a role id and a secret id, and that you may read")
	case o.TokenFile != "" || o.Machine == Role{}:
		return "", "", ErrNoLogin
	case credential.InUnit():
		role, secret, err = pair(credential.Read, o.Machine.ID, o.Machine.Secret, o.Machine.hint())
		if errors.Is(err, os.ErrNotExist) {
			return "", "", ErrNoLogin // somebody else's unit
		}
		if errors.Is(err, errEmpty) {
			// The unit gives an empty one in place of one that is not there.
			err = &fault.Error{Code: fault.Operator, Err: fmt.Errorf("%w: the credentials %s and %s are empty", ErrNoLogin, o.Machine.ID, o.Machine.Secret), Hint: o.Machine.hint()}
		}
		return role, secret, err
	case !o.thisMachine():
		return "", "", ErrNoLogin
	}
	open := func(name string) ([]byte, error) {
		return credential.Open(first(o.Sealed, machine.CredentialDir), name)
	}
	role, secret, err = pair(open, o.Machine.ID, o.Machine.Secret, o.Machine.hint())
	if errors.Is(err, credential.ErrNone) {
		return "", "", ErrNoLogin
	}
	return role, secret, err
}

// thisMachine keeps what is on the disk from going to another machine's Vault.
func (o *Options) thisMachine() bool {
	address, _ := o.Place()
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "unix" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func pair(read func(string) ([]byte, error), roleName, secretName, hint string) (role, secret string, err error) {
	var ids [2]string
	for i, name := range []string{roleName, secretName} {
		data, err := read(name)
		if err == nil && len(bytes.TrimSpace(data)) == 0 {
			err = fmt.Errorf("credential %q %w", name, errEmpty)
		}
		if err != nil {
			return "", "", &fault.Error{Code: fault.Operator, Err: err, Hint: hint}
		}
		ids[i] = string(bytes.TrimSpace(data))
		clear(data)
	}
	return ids[0], ids[1], nil
}

var errEmpty = errors.New("is empty")

// Token finds a person's token as Vault's own command line does: the file that
// the flag names, VAULT_TOKEN, what vault login has left.
func (o *Options) Token() (string, error) {
	if o.TokenFile != "" {
		return readToken(credential.Path(o.TokenFile))
	}
	if token := strings.TrimSpace(os.Getenv("VAULT_TOKEN")); token != "" {
		return oneToken("VAULT_TOKEN", token)
	}
	return leftToken()
}

// Given says whether a token was given on purpose: by the flag or the variable,
// and not by what vault login has left.
func (o *Options) Given() bool { return o.TokenFile != "" || os.Getenv("VAULT_TOKEN") != "" }

// leftToken is what vault login has left in the home directory.
func leftToken() (string, error) {
	none := &fault.Error{Code: fault.Operator, Err: ErrNoLogin, Hint: "log in with vault login, or set VAULT_TOKEN, or give --token-file"}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", none
	}
	token, err := readToken(filepath.Join(home, ".vault-token"))
	if errors.Is(err, os.ErrNotExist) {
		return "", none
	}
	return token, err
}

func readToken(file string) (string, error) {
	data, err := credential.Read(file)
	if err != nil {
		return "", &fault.Error{Code: fault.Usage, Err: fmt.Errorf("vault token: %w", err), Hint: "name a file that holds a token and that you may read, or log in with vault login"}
	}
	defer clear(data)
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", &fault.Error{Code: fault.Operator, Err: fmt.Errorf("vault token: file %q is empty", file), Hint: "log in with vault login"}
	}
	return oneToken(fmt.Sprintf("file %q", file), token)
}

func oneToken(from, token string) (string, error) {
	if strings.ContainsAny(token, " \t\r\n") {
		return "", &fault.Error{Code: fault.Usage, Err: fmt.Errorf("vault token: %s holds more than one token", from), Hint: "leave one there"}
	}
	return token, nil
}
