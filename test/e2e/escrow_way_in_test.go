package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/wayin"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// What an escrow holds lets its owner into a real Vault: the recovery keys make
// a root token, and the first administrator logs in.
func TestEscrowLetsIn(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	ctx := t.Context()
	c, err := vaultapi.New(vaultapi.Options{Address: vaultAddr(s)})
	if err != nil {
		t.Fatal(err)
	}
	root := func(name, token string) {
		t.Helper()
		c.SetToken(token)
		self, err := vaulttest.API(c).Auth().Token().LookupSelfWithContext(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p, err := self.TokenPolicies(); err != nil || len(p) != 1 || p[0] != "root" {
			t.Errorf("%s: policies %q, %v", name, p, err)
		}
		c.SetToken("")
	}
	door := doorOf(t, s, c)
	file := s.Layout.VaultConfig()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := door.GenerateRoot(ctx, nil); !errors.Is(err, vaultapi.ErrFewShares) {
		t.Errorf("no recovery keys: %v", err)
	}
	wrong := strings.Repeat("A", len(s.Recovery[0])-1) + "="
	if token, err := door.GenerateRoot(ctx, []string{wrong}); err == nil || token != "" {
		t.Errorf("a wrong recovery key: %v", err)
	}
	token, err := door.GenerateRoot(ctx, s.Recovery)
	if err != nil {
		t.Fatal(err)
	}
	root("recovery keys", token)
	if s.Server.Product == config.ProductVault {
		// One that somebody began and never ended is in nobody's way. OpenBao's ends with
		// its process, and nobody without the gate begins one.
		if _, err := vaulttest.API(s.Root).Sys().GenerateRootInitWithContext(ctx, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	// More keys than are asked for.
	if token, err = door.GenerateRoot(ctx, append(s.Recovery, wrong)); err != nil {
		t.Fatal(err)
	}
	root("after an attempt that was given up", token)
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("%v, and the configuration is\n%s", err, after)
	}
	if s.Server.Product == config.ProductVault {
		if status, err := vaulttest.API(s.Root).Sys().GenerateRootStatusWithContext(ctx); err != nil || status.Started {
			t.Errorf("an attempt is left open: %+v, %v", status, err)
		}
	} else {
		if _, err := c.GenerateRoot(ctx, s.Recovery); !vaultapi.IsUnsupported(err) {
			t.Errorf("afterwards the door is open: %v", err)
		}
		if _, err := os.Stat(filepath.Dir(door.Gate.Socket)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the gate's folder: %v", err)
		}
	}

	sys := vaulttest.API(s.Root).Sys()
	if err := sys.EnableAuthWithOptionsWithContext(ctx, "userpass", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		t.Fatal(err)
	}
	if err := sys.PutPolicyWithContext(ctx, config.PolicyAdmin, config.Policies()[config.PolicyAdmin]); err != nil {
		t.Fatal(err)
	}
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(ctx, "auth/userpass/users/admin", map[string]any{"password": "canary-pw", "token_policies": config.PolicyAdmin}); err != nil {
		t.Fatal(err)
	}
	if err := c.LoginUserpass(ctx, "admin", "canary-no"); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong password: %v", err)
	}
	if err := c.LoginUserpass(ctx, "admin", "canary-pw"); err != nil {
		t.Fatal(err)
	}
	// It is enough to make the jobs' logins.
	if err := vaulttest.API(c).Sys().PutPolicyWithContext(ctx, "x", `path "a" { capabilities = ["read"] }`); err != nil {
		t.Errorf("the administrator: %v", err)
	}
}

// doorOf is the way in of a server of the test's own: Vault 1.21's is open, OpenBao's
// is made and closed by a restart each.
func doorOf(t *testing.T, s *vaulttest.Server, c *vaultapi.Client) wayin.Door {
	t.Helper()
	file := s.Layout.VaultConfig()
	door := wayin.Door{
		Vault: c, Patience: vaulttest.Patience,
		Read:   func() ([]byte, error) { return os.ReadFile(file) },
		Write:  func(b []byte) error { return os.WriteFile(file, b, 0o600) },
		Reload: func(ctx context.Context) error { return s.SwapVault(ctx, vaulttest.Bin(t, "vault")) },
	}
	if s.Server.Product != config.ProductOpenBao {
		return door
	}
	dir := filepath.Join(vaulttest.Dir(t), "door")
	socket := filepath.Join(dir, "vault.sock")
	gate, err := vaultapi.New(vaultapi.Options{Address: "unix://" + socket})
	if err != nil {
		t.Fatal(err)
	}
	door.Gate = &wayin.Gate{
		Vault: gate, Socket: socket, User: strconv.Itoa(os.Getuid()), Group: strconv.Itoa(os.Getgid()),
		Make: func() (func() error, error) { return func() error { return os.RemoveAll(dir) }, os.Mkdir(dir, 0o700) },
	}
	return door
}

// A killed run leaves the gate; the next one uses it, closes it, and the one after
// finds no trace.
func TestEscrowLetsInAfterAKilledRun(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	if s.Server.Product != config.ProductOpenBao {
		t.Skip("Vault's line is tried in TestEscrowLetsInWhereVaultWantsAToken")
	}
	c := s.Client(t, "")
	door := doorOf(t, s, c)
	file := s.Layout.VaultConfig()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// As far as the door is open, and no further.
	killed := door
	killed.Write = func(b []byte) error {
		if len(b) < len(before)+20 {
			return errors.New("killed")
		}
		return os.WriteFile(file, b, 0o600)
	}
	gate := *door.Gate
	gate.Make = func() (func() error, error) {
		_, err := door.Gate.Make()
		return func() error { return nil }, err
	}
	killed.Gate = &gate
	if _, err := killed.GenerateRoot(t.Context(), s.Recovery); !errors.Is(err, wayin.ErrLeftOpen) {
		t.Fatalf("error = %v", err)
	}
	if left, err := os.ReadFile(file); err != nil || string(left) == string(before) {
		t.Fatalf("nothing is left in the configuration: %v", err)
	}
	if open, err := door.Gate.Vault.RecoveryKeysSuffice(t.Context()); err != nil || !open {
		t.Errorf("the gate is not open: %v", err)
	}
	door.Gate.Make = func() (func() error, error) {
		dir := filepath.Dir(gate.Socket)
		return func() error { return os.RemoveAll(dir) }, errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
	}
	token, err := door.GenerateRoot(t.Context(), s.Recovery)
	if err != nil || token == "" {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("%v, and the configuration is\n%s", err, after)
	}
	if _, err := c.GenerateRoot(t.Context(), s.Recovery); !vaultapi.IsUnsupported(err) {
		t.Errorf("afterwards the door is open: %v", err)
	}
}

// Vault 2.x makes a root token for nobody without a token, unless the configuration
// that it has read last says so. None can be had here, so its rule stands before a real
// 1.21, which reads the line, and goes on, at each reload.
func TestEscrowLetsInWhereVaultWantsAToken(t *testing.T) {
	s := vaulttest.New(t)
	file := s.Layout.VaultConfig()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.Layout.VaultSocket())
	}}
	var open atomic.Bool
	refused := 0
	rule := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/generate-root/") && r.Header.Get("X-Vault-Token") == "" && !open.Load() {
			refused++
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":["permission denied"]}`)
			return
		}
		p := &httputil.ReverseProxy{Transport: socket, Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "vault" }}
		p.ServeHTTP(w, r)
	}))
	defer rule.Close()
	c, err := vaultapi.New(vaultapi.Options{Address: rule.URL})
	if err != nil {
		t.Fatal(err)
	}
	door := wayin.Door{
		Vault: c, Patience: vaulttest.Patience,
		Read:  func() ([]byte, error) { return os.ReadFile(file) },
		Write: func(b []byte) error { return os.WriteFile(file, b, 0o600) },
		Reload: func(context.Context) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := syscall.Kill(s.Process.PID(), syscall.SIGHUP); err != nil {
				return err
			}
			open.Store(strings.Contains(string(b), "enable_unauthenticated_access"))
			return nil
		},
	}
	if _, err := c.GenerateRoot(t.Context(), s.Recovery); !vaultapi.WantsToken(err) {
		t.Fatalf("the rule is not in force: %v", err)
	}
	for range 2 {
		token, err := door.GenerateRoot(t.Context(), s.Recovery)
		if err != nil {
			t.Fatal(err)
		}
		self, err := vaulttest.API(s.Client(t, token)).Auth().Token().LookupSelfWithContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := self.TokenPolicies(); err != nil || len(p) != 1 || p[0] != "root" {
			t.Errorf("policies %q, %v", p, err)
		}
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) || open.Load() || refused == 0 {
		t.Errorf("open %v, refused %d times, %v, and the file is\n%s", open.Load(), refused, err, after)
	}
	if _, err := c.GenerateRoot(t.Context(), s.Recovery); !vaultapi.WantsToken(err) {
		t.Errorf("afterwards the door is open: %v", err)
	}
}
