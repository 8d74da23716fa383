package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/keyservice"
	"strongroom.example/test/vaulttest"
)

const clientKey = "app/production/billing"

// keyedVault has the engine mounted and one generated key whose readers may
// keep it for grace.
func keyedVault(t *testing.T, grace string) *vaulttest.Server {
	t.Helper()
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	l := vaulttest.API(s.Root).Logical()
	for path, data := range map[string]map[string]any{
		"apikeys/providers/internal": {"type": "generated"},
	} {
		if _, err := l.WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.WriteWithContext(t.Context(), "apikeys/keys/"+clientKey, map[string]any{
		"provider": "internal", "grace_period": grace,
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func rotate(t *testing.T, s *vaulttest.Server) {
	t.Helper()
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "apikeys/rotate/"+clientKey, nil); err != nil {
		t.Fatal(err)
	}
}

// current reads the key as the tests' own client does.
func current(t *testing.T, s *vaulttest.Server) string {
	t.Helper()
	sec, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "apikeys/creds/"+clientKey)
	if err != nil || sec == nil {
		t.Fatalf("read: %v", err)
	}
	if sec.LeaseID != "" || sec.Renewable {
		t.Errorf("a read made a lease: %q", sec.LeaseID)
	}
	return sec.Data["key"].(string)
}

// The stock CLI reads a key, and after a rotation the next one.
func TestVaultCLIReadsKeys(t *testing.T) {
	s := keyedVault(t, "1h")
	env := []string{"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken, "HOME=" + vaulttest.Dir(t)}
	read := func(args ...string) string {
		return vault(t, env, "", append([]string{"read", "-field=key"}, append(args, "apikeys/creds/"+clientKey)...)...)
	}
	first := read()
	if first != current(t, s) {
		t.Error("the CLI reads another key than the API")
	}
	rotate(t, s)
	if second := read(); second == first || second != current(t, s) {
		t.Error("the CLI did not pick up the rotation")
	}
	help := vault(t, env, "", "path-help", "apikeys/creds/"+clientKey)
	for _, want := range []string{"cache_ttl", "If-None-Match", "DESCRIPTION"} {
		if !strings.Contains(help, want) {
			t.Errorf("vault path-help does not explain %q:\n%s", want, help)
		}
	}
}

// A template of the stock Vault Agent holds the key, and by itself the next
// one no later than the answer's ttl after a rotation.
func TestVaultAgentPicksUpRotation(t *testing.T) {
	s := keyedVault(t, "5s")
	dir := vaulttest.Dir(t)
	tokenFile, out := filepath.Join(dir, "token"), filepath.Join(dir, "billing.env")
	if err := os.WriteFile(tokenFile, []byte(s.RootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`
vault { address = "unix://%s" }
auto_auth { method "token_file" { config = { token_file_path = %q } } }
template {
  contents    = "{{ with secret \"apikeys/creds/%s\" }}KEY={{ .Data.key }}{{ end }}"
  destination = %q
  perms       = "0600"
}
`, s.Layout.VaultSocket(), tokenFile, clientKey, out)
	confFile := filepath.Join(dir, "agent.hcl")
	if err := os.WriteFile(confFile, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	set := proc.NewSet()
	defer set.Close()
	agent, err := set.Start(proc.Spec{
		Name: "vault agent", Path: vaulttest.Bin(t, "vault"), Args: []string{"agent", "-config=" + confFile},
		Env: []string{"HOME=" + dir}, LogFile: filepath.Join(dir, "agent.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	await := func(want string, within time.Duration) time.Duration {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		err := agent.WaitUp(ctx, func(ctx context.Context) error {
			for {
				if data, err := os.ReadFile(out); err == nil && string(data) == "KEY="+want {
					return nil
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
		if err != nil {
			t.Fatalf("the agent has not rendered the current key within %v: %v", within, err)
		}
		return time.Since(began)
	}
	await(current(t, s), vaulttest.Patience)
	for range 2 {
		rotate(t, s)
		took := await(current(t, s), vaulttest.Patience)
		t.Logf("the agent had the new key %v after the rotation; the old one was promised for 5 s", took.Round(10*time.Millisecond))
	}
}

// Plain curl reads conditionally, and a long poll tells of a rotation at once.
func TestCurlReadsConditionally(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	s := keyedVault(t, "1h")
	// The token is in a file: arguments are for everyone to see.
	header := filepath.Join(vaulttest.Dir(t), "header")
	if err := os.WriteFile(header, []byte("X-Vault-Token: "+s.RootToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	get := func(query string, args ...string) (status, headers, body string) {
		bodyFile := filepath.Join(t.TempDir(), "body")
		args = append([]string{
			"--silent", "--show-error", "--max-time", "300", "--unix-socket", s.Layout.VaultSocket(), "--header", "@" + header,
			"--dump-header", "-", "--output", bodyFile, "--write-out", "STATUS %{http_code}",
		}, append(args, "http://localhost/v1/apikeys/creds/"+clientKey+query)...)
		out, err := exec.Command(curl, args...).Output()
		if err != nil {
			t.Fatalf("curl: %v", err)
		}
		headers, status, _ = strings.Cut(string(out), "STATUS ")
		data, err := os.ReadFile(bodyFile)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return status, headers, string(data)
	}
	parse := func(body string) (key string, version int, etag string) {
		var answer struct {
			Data struct {
				Key     string
				Version int
				ETag    string
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%v in the body", err)
		}
		return answer.Data.Key, answer.Data.Version, answer.Data.ETag
	}
	status, headers, body := get("")
	first, version, etag := parse(body)
	if status != "200" || first != current(t, s) || !strings.Contains(strings.ToLower(headers), "etag: "+etag) {
		t.Fatalf("status %s, ETag %s in %s", status, etag, headers)
	}
	if status, _, body := get("", "--header", "If-None-Match: "+etag); status != "304" || body != "" {
		t.Errorf("If-None-Match answers %s with %d bytes", status, len(body))
	}
	if status, _, body := get(fmt.Sprintf("?if_version=%d", version)); status != "304" || body != "" {
		t.Errorf("if_version answers %s with %d bytes", status, len(body))
	}

	type result struct {
		body string
		at   time.Time
	}
	polled := make(chan result, 1)
	go func() {
		_, _, body := get(fmt.Sprintf("?if_version=%d&wait=60", version))
		polled <- result{body, time.Now()}
	}()
	// The engine counts who waits.
	for deadline := time.Now().Add(50 * time.Second); ; {
		st, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "apikeys/status")
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(st.Data["waiting_reads"]) == "1" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the long poll does not wait")
		}
		<-time.After(10 * time.Millisecond)
	}
	rotated := time.Now()
	rotate(t, s)
	r := <-polled
	second, newVersion, _ := parse(r.body)
	if second != current(t, s) || newVersion != version+1 {
		t.Errorf("the long poll answers with version %d, want %d", newVersion, version+1)
	}
	// Left alone, it would end a minute after it began.
	took := r.at.Sub(rotated)
	t.Logf("the long poll told of the rotation after %v", took.Round(time.Millisecond))
	if took > stallLimit {
		t.Errorf("the long poll told of the rotation after %v", took)
	}
}

// Two providers of one account share its limit, a person finds a key at the service by
// its name_prefix, and whoever asks for a version that is over is told which and why,
// by an answer that no stock client repeats or takes for a login that has ended.
func TestProvidersOfOneAccount(t *testing.T) {
	s, service := vaulttest.New(t), keyservice.New(t)
	s.MountAPIKeys(t)
	l := vaulttest.API(s.Root).Logical()
	write := func(path string, data map[string]any) error {
		_, err := l.WriteWithContext(t.Context(), "apikeys/"+path, data)
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	settings := service.Settings()
	settings["max_keys"] = 3
	for _, name := range []string{"one", "two"} {
		must(write("providers/"+name, map[string]any{"type": "http", "settings": settings, "credential": map[string]any{"token": keyservice.Credential}, "account": "billing"}))
		must(write("keys/app/"+name, map[string]any{"provider": name, "grace_period": "1d"}))
	}
	must(write("rotate/app/one", nil))
	for name, account := range map[string]string{"two": "billing", "three": "other"} {
		if name == "three" {
			must(write("providers/three", map[string]any{"type": "http", "settings": settings, "credential": map[string]any{"token": keyservice.Credential}, "account": account}))
			must(write("keys/app/three", map[string]any{"provider": name}))
		}
		err := write("rotate/app/"+name, nil)
		if full := err != nil && strings.Contains(err.Error(), "takes 3 keys, and 3 versions of 2 keys are alive"); full != (account == "billing") {
			t.Errorf("account %s: %v", account, err)
		}
	}
	key, err := l.ReadWithContext(t.Context(), "apikeys/keys/app/one")
	must(err)
	found := 0
	for _, k := range service.Alive() {
		if strings.HasPrefix(k.Name, key.Data["name_prefix"].(string)) {
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d keys are found by %q", found, key.Data["name_prefix"])
	}
	_, err = l.DeleteWithDataWithContext(t.Context(), "apikeys/versions/app/one", map[string][]string{"version": {"1"}, "force": {"true"}})
	must(err)
	for version, why := range map[string]string{"1": `version 1 of key "app/one" is revoked`, "7": `key "app/one" has no version 7`} {
		_, err := l.ReadWithDataWithContext(t.Context(), "apikeys/creds/app/one", map[string][]string{"version": {version}})
		var refused *api.ResponseError
		if !errors.As(err, &refused) || refused.StatusCode != 400 || !strings.Contains(err.Error(), why) {
			t.Errorf("version %s: %v", version, err)
		}
	}
}
