package cli

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func TestOperatorVaultToken(t *testing.T) {
	tests := []struct {
		name     string
		env      string
		home     string // content of ~/.vault-token; "-" for no file
		file     string // content of --token-file; "-" for no flag
		want     string
		wantCode int
	}{
		{"nothing", "", "-", "-", "", ExitOperator},
		{"environment", "env-token\n", "home-token", "-", "env-token", 0},
		{"home", "", "home-token\n", "-", "home-token", 0},
		{"flag wins", "env-token", "home-token", "file-token\n", "file-token", 0},
		{"empty file", "", "\n", "-", "", ExitOperator},
		{"two tokens", "", "a b", "-", "", ExitUsage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("VAULT_TOKEN", tt.env)
			if tt.home != "-" {
				if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(tt.home), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var v operatorVault
			if tt.file != "-" {
				v.tokenFile = filepath.Join(home, "token")
				if err := os.WriteFile(v.tokenFile, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := v.token()
			if got != tt.want {
				t.Errorf("token %q, want %q", got, tt.want)
			}
			var e *Error
			if tt.wantCode == 0 && err != nil || tt.wantCode != 0 && (!errors.As(err, &e) || e.Code != tt.wantCode) {
				t.Errorf("error %v, want code %d", err, tt.wantCode)
			}
		})
	}
}

func TestOperatorVaultAddress(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "t")
	t.Setenv("VAULT_ADDR", "https://env.example:8200")
	t.Setenv("VAULT_CACERT", "")
	var v operatorVault
	c := &cobra.Command{Use: "x"}
	v.add(c)
	client, err := v.client()
	if err != nil || client.API().Address() != "https://env.example:8200" {
		t.Fatalf("address from the environment: %v", err)
	}
	if err := c.PersistentFlags().Set("address", "https://flag.example"); err != nil {
		t.Fatal(err)
	}
	if client, err = v.client(); err != nil || client.API().Address() != "https://flag.example" {
		t.Fatalf("address from the flag: %v", err)
	}
	v.caCert = filepath.Join(t.TempDir(), "none.pem")
	var e *Error
	if _, err := v.client(); !errors.As(err, &e) || e.Code != ExitUsage || !strings.Contains(err.Error(), "none.pem") {
		t.Fatalf("missing authority: %v", err)
	}
}

func TestVaultError(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"forbidden", fmt.Errorf("read: %w", &api.ResponseError{StatusCode: 403}), ExitOperator},
		{"sealed", &api.ResponseError{StatusCode: 503}, ExitOperator},
		{"bad request", &api.ResponseError{StatusCode: 400}, 0},
		{"refused", &url.Error{Op: "Get", URL: "x", Err: refused}, ExitFailed},
		{"known", &Error{Code: ExitDrift, Err: errors.New("x")}, ExitDrift},
		{"other", errors.New("x"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := 0
			var e *Error
			if errors.As(vaultError(tt.err), &e) {
				got = e.Code
			}
			if got != tt.want {
				t.Errorf("code %d, want %d", got, tt.want)
			}
		})
	}
	front := &api.ResponseError{StatusCode: 403, Errors: []string{"this sys/ path is answered on the machine itself only"}}
	var e *Error
	if !errors.As(vaultError(fmt.Errorf("mount: %w", front)), &e) || e.Code != ExitOperator || !strings.Contains(e.Hint, "on the Vault machine") {
		t.Errorf("what the front keeps from the outside: %v", e)
	}
	if vaultError(nil) != nil {
		t.Error("nil must stay nil")
	}
}
