package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// Names of the systemd credentials of status and doctor.
const (
	credDoctorRole   = "doctor-role-id"
	credDoctorSecret = "doctor-secret-id"
)

// sealedCredentials is where the installer keeps credentials, encrypted.
const sealedCredentials = "/etc/strongroom/credentials"

// lookVault is for status and doctor, which look at Vault as somebody: the
// token that a person has given; else the credentials that systemd passes; else,
// for root, those on the disk, which it opens; else the token that vault login
// has left.
type lookVault struct {
	operatorVault
	sealed string // folder of encrypted credentials
	// how says who looks, for the evidence.
	how string
	own bool // the token was made here, and is ended here
}

// client connects without a token, so that health can be read in any case.
func (v *lookVault) client() (*vaultapi.Client, error) {
	o := vaultapi.Options{Address: v.address, CACert: v.caCert, Timeout: 20 * time.Second}
	if o.Address == "" {
		o.Address = os.Getenv("VAULT_ADDR")
	}
	if o.Address == "" {
		o.Address = defaultVault
	}
	if o.CACert == "" {
		o.CACert = os.Getenv("VAULT_CACERT")
	}
	var c *vaultapi.Client
	scheme, _, _ := strings.Cut(o.Address, "://")
	err := fmt.Errorf("vault's address %q", o.Address)
	if slices.Contains([]string{"unix", "https", "http"}, scheme) {
		c, err = vaultapi.New(o)
	}
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "give --address https://HOST:PORT or unix:///PATH, and --ca-cert FILE where its authority is your own"}
	}
	// Somebody is waiting, or a timer comes again.
	c.API().SetMaxRetries(0)
	return c, nil
}

// login makes c somebody. An error says why it is nobody; it is not fatal.
func (v *lookVault) login(ctx context.Context, c *vaultapi.Client) error {
	if v.tokenFile != "" || os.Getenv("VAULT_TOKEN") != "" {
		v.how = "the token of VAULT_TOKEN"
		if v.tokenFile != "" {
			v.how = "the token in " + v.tokenFile
		}
		return v.useToken(c)
	}
	role, secret, err := v.appRole(ctx)
	if err != nil {
		return err
	}
	if role == "" {
		v.how = "the token that vault login has left"
		return v.useToken(c)
	}
	v.how, v.own = "AppRole strongroom-doctor", true
	return c.LoginAppRole(ctx, role, secret)
}

// logout ends a token that login has made.
func (v *lookVault) logout(ctx context.Context, c *vaultapi.Client) error {
	if !v.own {
		return nil
	}
	v.own = false
	// A cancelled run leaves no token behind either.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.RevokeSelf(ctx)
}

func (v *lookVault) useToken(c *vaultapi.Client) error {
	token, err := v.token()
	if err != nil {
		return err
	}
	c.SetToken(token)
	return nil
}

// appRole gives the ids, or nothing where there are none for this user.
func (v *lookVault) appRole(ctx context.Context) (role, secret string, err error) {
	if os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		r, err := readCredential(credDoctorRole)
		if err != nil {
			return "", "", err
		}
		s, err := readCredential(credDoctorSecret)
		if err != nil {
			return "", "", err
		}
		// The units pass an empty one where the installer has made none.
		role, secret = string(bytes.TrimSpace(r)), string(bytes.TrimSpace(s))
		if role == "" || secret == "" {
			return "", "", errors.New("the credentials " + credDoctorRole + " and " + credDoctorSecret + " are empty: run strongroom-installer install")
		}
		return role, secret, nil
	}
	if os.Geteuid() != 0 {
		return "", "", nil
	}
	if _, err := os.Stat(filepath.Join(v.sealed, credDoctorRole)); errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if role, err = v.open(ctx, credDoctorRole); err != nil {
		return "", "", err
	}
	secret, err = v.open(ctx, credDoctorSecret)
	return role, secret, err
}

// open decrypts a credential as systemd does for a unit. It goes through a pipe.
func (v *lookVault) open(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // a TPM takes its time
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-creds", "decrypt", "--name="+name, filepath.Join(v.sealed, name), "-")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("open credential %q: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	defer clear(out)
	return string(bytes.TrimSpace(out)), nil
}
