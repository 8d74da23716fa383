package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
	"strongroom.example/plugin/provider/presettest"
	"strongroom.example/test/vaulttest"
)

// shownPreset is what `strongroom provider show NAME --json` prints.
func shownPreset(t *testing.T, name string) map[string]any {
	t.Helper()
	out, err := exec.Command(vaulttest.Bin(t, "strongroom"), "provider", "show", name, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// presetJSON is a preset as the program prints it, with the credential, and
// pointed at a server of the test.
func presetJSON(t *testing.T, name, url, ca string, credential map[string]any) string {
	t.Helper()
	doc := shownPreset(t, name)
	settings := doc["settings"].(map[string]any)
	variables := settings["variables"].(map[string]any)
	variables["url"] = url
	if _, own := variables["token_url"]; own {
		variables["token_url"] = url + "/oauth/token"
	}
	settings["allow_addresses"] = []string{"127.0.0.1"}
	settings["ca_certificate"] = ca
	if credential != nil {
		doc["credential"] = credential
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each preset, written to a real Vault with the stock CLI, makes keys, rotates
// them with the overlap it promises, and ends them.
func TestPresetsInVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	env := []string{"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken, "HOME=" + vaulttest.Dir(t)}
	cases := map[string]struct {
		credential map[string]any
		parameters string
	}{
		"cloudflare": {map[string]any{"key": "canary-cf-credential"},
			`{"policies":[{"effect":"allow","resources":{"com.cloudflare.api.account.zone.1":"*"},"permission_groups":[{"id":"g"}]}]}`},
		"databricks": {map[string]any{"client_id": "canary-client", "key": "canary-client-secret"},
			`{"application_id":"12345678-90ab-cdef-1234-567890abcdef"}`},
		"snowflake-pat": {map[string]any{"client_id": "canary-client", "key": "canary-client-secret"},
			`{"user":"DAGSTER","role":"LOADER"}`},
		"dbt-cloud":           {map[string]any{"key": "dbtc_canary-credential"}, `{"account_id":42,"permissions":[{"permission_set":"job_admin"}]}`},
		"sendgrid":            {map[string]any{"key": "SG.canary-sendgrid"}, `{"scopes":["mail.send"]}`},
		"datadog":             {map[string]any{"key": "canary-dd-api", "application_key": "canary-dd-app"}, `{}`},
		"grafana":             {map[string]any{"key": "glsa_canary-grafana"}, `{"service_account_id":2}`},
		"openai":              {map[string]any{"key": "sk-admin-canary"}, `{}`},
		"mailgun":             {map[string]any{"key": "canary-mailgun-0815"}, `{"role":"developer"}`},
		"digitalocean-spaces": {map[string]any{"key": "dop_v1_canary"}, `{"grants":[{"bucket":"b","permission":"read"}]}`},
	}
	for name := range presettest.Services() {
		// GitLab's first token comes from a person: TestGitLabInVault.
		makes := shownPreset(t, name)["settings"].(map[string]any)["create"] != nil
		if _, ok := cases[name]; !ok && makes && name != "gitlab" {
			t.Errorf("nothing here makes keys by the preset %s", name)
		}
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			service := presettest.Services()[name]()
			url, ca := service.Start(t)
			vault(t, env, presetJSON(t, name, url, ca, tc.credential), "write", "apikeys/providers/"+name, "-")
			trial := vault(t, env, `{"live":true,"parameters":`+tc.parameters+`}`, "write", "-format=json", "apikeys/providers/"+name+"/trial", "-")
			if !strings.Contains(trial, `"state": "passed"`) || len(service.Alive()) != 0 {
				t.Fatalf("the trial leaves %d keys alive: %s", len(service.Alive()), trial)
			}
			vault(t, env, `{"provider":"`+name+`","parameters":`+tc.parameters+`}`, "write", "apikeys/keys/app/"+name, "-")
			first := readKey(t, env, "app/"+name)
			if !service.Works(first) {
				t.Fatal("the service does not accept the key that Vault gives out")
			}
			vault(t, env, "", "write", "-f", "apikeys/rotate/app/"+name)
			second := readKey(t, env, "app/"+name)
			if second.Values["key"] == first.Values["key"] || !service.Works(second) || !service.Works(first) {
				t.Fatalf("after the rotation: another key %v, it works %v, the old one works %v",
					second.Values["key"] != first.Values["key"], service.Works(second), service.Works(first))
			}
			vault(t, env, "", "write", "apikeys/rotate/app/"+name, "compromised=true")
			if service.Works(first) || service.Works(second) || !service.Works(readKey(t, env, "app/"+name)) {
				t.Fatal("after a compromise one of the old keys still works, or the new one does not")
			}
			if n := len(service.Alive()); n != 1 {
				t.Fatalf("%d keys are alive at the service, Vault knows of 1", n)
			}
			if got := strings.TrimSpace(vault(t, env, "", "write", "-field=result", "-f", "apikeys/check/app/"+name)); got != "works" {
				t.Errorf("looked at, the current key is %q", got)
			}
			shown := vault(t, env, "", "read", "-format=json", "apikeys/providers/"+name)
			for _, secret := range tc.credential {
				if strings.Contains(shown, secret.(string)) {
					t.Error("the credential can be read back")
				}
			}
		})
	}
}

// Each preset that the program names is taken by a real Vault as it is printed, with
// the credential that its comment asks for, and an address where it leaves that to
// the installation.
func TestShownPresets(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	env := []string{"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken, "HOME=" + vaulttest.Dir(t)}
	out, err := exec.Command(vaulttest.Bin(t, "strongroom"), "provider", "list", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var presets []struct{ Name, Type string }
	if err := json.Unmarshal(out, &presets); err != nil || len(presets) < 10 {
		t.Fatalf("%d presets, %v", len(presets), err)
	}
	for _, p := range presets {
		doc := shownPreset(t, p.Name)
		credential := map[string]any{}
		for _, m := range regexp.MustCompile(`\{\{credential\.(\w+)\}\}`).FindAllStringSubmatch(fmt.Sprint(doc), -1) {
			credential[m[1]] = "canary-" + m[1]
		}
		if p.Type == "aws_iam" {
			credential = map[string]any{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "key": "canary"}
		}
		if len(credential) > 0 {
			doc["credential"] = credential
		}
		if v, ok := doc["settings"].(map[string]any)["variables"].(map[string]any); ok {
			for _, name := range []string{"url", "token_url"} {
				if v[name] == "" {
					v[name] = "https://own.example.com"
				}
			}
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		vault(t, env, string(text), "write", "apikeys/providers/"+p.Name, "-")
		if got := strings.TrimSpace(vault(t, env, "", "read", "-field=type", "apikeys/providers/"+p.Name)); got != p.Type {
			t.Errorf("%s: type %q, want %q", p.Name, got, p.Type)
		}
	}
}

// GitLab's token, brought in by hand, rotates itself.
func TestGitLabInVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	env := []string{"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken, "HOME=" + vaulttest.Dir(t)}
	service := presettest.Services()["gitlab"]()
	url, ca := service.Start(t)
	vault(t, env, presetJSON(t, "gitlab", url, ca, nil), "write", "apikeys/providers/gitlab", "-")
	vault(t, env, "", "write", "apikeys/keys/ci", "provider=gitlab")
	first := service.Seed("ci")
	vault(t, env, first.Values["key"], "write", "apikeys/import/ci", "key=-")
	// Without overlap a rotation keeps the promise that readers were given:
	// it waits, unless it is forced.
	vault(t, env, "", "write", "-f", "apikeys/rotate/ci")
	if !service.Works(first) {
		t.Fatal("the rotation did not wait")
	}
	vault(t, env, "", "write", "apikeys/rotate/ci", "force=true")
	second := readKey(t, env, "ci")
	if service.Works(first) || !service.Works(second) {
		t.Fatalf("the old token works: %v, the new one: %v", service.Works(first), service.Works(second))
	}
	// The answer is lost: nothing is sent a second time, and Vault says so.
	service.Faults().Next("create", conformance.Drop(true))
	before := service.Faults().Count("create")
	if _, err := vaultTry(env, "", "write", "apikeys/rotate/ci", "force=true"); err == nil {
		t.Fatal("a lost rotation is reported as done")
	}
	if n := service.Faults().Count("create") - before; n != 1 {
		t.Fatalf("%d requests were sent, want 1", n)
	}
	if status := vault(t, env, "", "read", "-format=json", "apikeys/status"); !strings.Contains(status, "uncertain") {
		t.Errorf("status does not say that the rotation is uncertain:\n%s", status)
	}
}

// The commands of docs/providers.md, as they stand there.
func TestProvidersPage(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing", tool)
		}
	}
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	root := vaulttest.Root(t)
	page, err := os.ReadFile(filepath.Join(root, "docs", "providers.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 6 {
		t.Fatalf("%d blocks of commands, want 6", len(blocks))
	}
	dir := vaulttest.Dir(t)
	for _, link := range []struct{ from, to string }{{vaulttest.Bin(t, "strongroom"), "strongroom"}, {vaulttest.Bin(t, "vault"), "vault"}} {
		if err := os.Symlink(link.from, filepath.Join(dir, link.to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "token.txt"), []byte("canary-page-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken, "HOME=" + dir}
	run := func(script string) string {
		t.Helper()
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.Env = append([]string{"PATH=" + dir + ":" + os.Getenv("PATH")}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v:\n%s\n%s", err, script, out)
		}
		return string(out)
	}
	out := run(blocks[0][1])
	if strings.Contains(out, "canary-page-token") || !strings.Contains(out, provider.Masked) || !strings.Contains(out, "https://api.cloudflare.com/client/v4/user/tokens/ID") {
		t.Errorf("the dry run shows:\n%s", out)
	}

	tried := presettest.Services()["cloudflare"]()
	triedURL, triedCA := tried.Start(t)
	vault(t, env, presetJSON(t, "cloudflare", triedURL, triedCA, map[string]any{"key": "canary-cf-credential"}), "write", "apikeys/providers/cloudflare", "-")
	if out := run(blocks[1][1]); strings.Count(out, `"state": "passed"`) != 2 || strings.Count(out, `"state": "read_only"`) != 1 || len(tried.Alive()) != 0 {
		t.Errorf("the trials, which leave %d keys alive:\n%s", len(tried.Alive()), out)
	}

	run(blocks[2][1])
	if got := vault(t, env, "", "read", "-field=type", "apikeys/providers/github"); got != "manual" {
		t.Errorf("the type of github is %q", got)
	}

	service := presettest.Services()["openai"]()
	url, ca := service.Start(t)
	vault(t, env, presetJSON(t, "openai", url, ca, map[string]any{"key": "sk-admin-canary"}), "write", "apikeys/providers/openai", "-")
	run(blocks[3][1])
	if fields := vault(t, env, "", "read", "-field=credential_key", "apikeys/providers/openai"); fields != "ops/openai-admin" {
		t.Errorf("credential_key is %q", fields)
	}

	run(blocks[4][1])
	if got := vault(t, env, "", "read", "-format=json", "apikeys/providers/cloudflare"); !strings.Contains(got, "https://api.cloudflare.com") {
		t.Errorf("the provider has not moved back: %s", got)
	}

	vault(t, env, `{"type":"manual"}`, "write", "apikeys/providers/console", "-")
	vault(t, env, "", "write", "apikeys/keys/ops/github", "provider=console")
	run(blocks[5][1])
	if got := readKey(t, env, "ops/github").Values["key"]; strings.TrimSpace(got) != "canary-page-token" {
		t.Error("the imported key is not what is read")
	}
}

// readKey reads a key's current values with the stock CLI.
func readKey(t *testing.T, env []string, name string) provider.Key {
	t.Helper()
	var out struct {
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(vault(t, env, "", "read", "-format=json", "apikeys/creds/"+name)), &out); err != nil {
		t.Fatal(err)
	}
	key := provider.Key{Values: map[string]string{}}
	for field, v := range out.Data {
		if s, ok := v.(string); ok && (field == "key" || field == "access_key") {
			key.Values[field] = s
		}
	}
	return key
}
