package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// monitorRole makes the AppRole of the installed metrics daemon, and files with
// its ids.
func monitorRole(t *testing.T, s *vaulttest.Server, dir string) (roleID, secretID string) {
	t.Helper()
	ctx, v := t.Context(), vaulttest.API(s.Root)
	if err := v.Sys().PutPolicyWithContext(ctx, config.PolicyMonitor, config.Policies()[config.PolicyMonitor]); err != nil {
		t.Fatal(err)
	}
	role := "auth/approle/role/strongroom-monitor"
	if _, err := v.Logical().WriteWithContext(ctx, role, map[string]any{
		"token_policies": config.PolicyMonitor, "token_ttl": "10m", "token_no_default_policy": true,
	}); err != nil {
		t.Fatal(err)
	}
	r, err := v.Logical().ReadWithContext(ctx, role+"/role-id")
	if err != nil {
		t.Fatal(err)
	}
	sid, err := v.Logical().WriteWithContext(ctx, role+"/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	roleID, secretID = filepath.Join(dir, "monitor-role-id"), filepath.Join(dir, "monitor-secret-id")
	for file, text := range map[string]any{roleID: r.Data["role_id"], secretID: sid.Data["secret_id"]} {
		if err := os.WriteFile(file, []byte(text.(string)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return roleID, secretID
}

// scrape reads one path of the daemon.
func scrape(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", url, resp.Status, err, text)
	}
	return string(text)
}

// scrapeUntil reads until the answer is whole: on a loaded machine a part may not
// be there in time, which is for the next scrape; and Vault counts its leases by
// and by.
func scrapeUntil(t *testing.T, url string, whole func(text string) bool) string {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	end := time.After(vaulttest.Patience)
	for {
		text := scrape(t, url)
		if whole(text) {
			return text
		}
		select {
		case <-tick.C:
		case <-end:
			return text
		}
	}
}

var unreadable = regexp.MustCompile(`(?m)^strongroom_collector_success.* 0$`)

// samples are the names in a scrape: of families, and of the series that make up
// a histogram or a summary.
func samples(t *testing.T, text string) map[string]bool {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	if _, err := p.TextToMetricFamilies(strings.NewReader(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			name, _, _ = strings.Cut(name, "{")
			out[name] = true
		}
	}
	return out
}

// monitored is a Vault with its front, its engine and the jobs' states, and the
// daemon that tells Prometheus of it.
type monitored struct {
	s                *vaulttest.Server
	child            *proc.Child
	url, log         string
	roleID, secretID string   // files
	secrets          []string // which nothing may tell
	metrics, vault   string   // the first scrapes
	at               time.Time
}

func monitoredVault(t *testing.T) *monitored {
	t.Helper()
	s, front := frontedVault(t)
	ctx := t.Context()
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	s.MountAPIKeys(t)
	for _, w := range []struct {
		path string
		data map[string]any
	}{
		{"apikeys/providers/generated", map[string]any{"type": "generated"}},
		{"apikeys/keys/shop/production/canary-key-name", map[string]any{"provider": "generated"}},
	} {
		if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(ctx, w.path, w.data); err != nil {
			t.Fatal(err)
		}
	}
	value := func() string {
		c, err := vaulttest.API(s.Root).Logical().ReadWithContext(ctx, "apikeys/creds/shop/production/canary-key-name")
		if err != nil || c == nil {
			t.Fatalf("%v, %v", c, err)
		}
		return c.Data["key"].(string)
	}
	secrets := []string{s.RootToken, value(), "canary-key-name"}
	if err := s.EnableAudit(ctx, s.Root); err != nil {
		t.Fatal(err)
	}

	// The jobs leave their states.
	b := newSite(t, s, "")
	states := filepath.Join(b.dir, "states")
	for _, d := range []string{"snapshot", "verify", "drill", "doctor", "audit", "audit-watch"} {
		if err := os.MkdirAll(filepath.Join(states, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.takeState, b.verifyState = filepath.Join(states, "snapshot"), filepath.Join(states, "verify")
	b.take(t, s, 0)
	b.verify(t, 0)
	// The tests' own disk may be as full as it likes.
	if code, out := strongroom(ctx, "audit", "rotate", "--config", b.config, "--audit-logs", filepath.Dir(s.Layout.Audit("x")),
		"--state", filepath.Join(states, "audit"), "--pid-file", filepath.Join(b.dir, "no-pid")); code != 0 && code != 3 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rehearsed, err := report.Encode(&report.Report{Format: 1, Kind: "drill", FinishedAt: time.Now(), Passed: true, RPOSeconds: 60, RTOSeconds: 5}, key)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		report.LastPath(filepath.Join(states, "drill")):     string(rehearsed),
		filepath.Join(states, "audit-watch", "ledger.json"): `{"format":1,"begun":"2026-11-24T12:00:00Z","at":"` + time.Now().UTC().Format(time.RFC3339) + `"}`,
		filepath.Join(states, "doctor", "last.json"):        `{"format":1,"at":"` + time.Now().UTC().Format(time.RFC3339) + `","items":[{"id":"escrow","verdict":"pass"},{"id":"swap","verdict":"warn"}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	roleID, secretID := monitorRole(t, s, b.dir)
	addr, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(b.dir, "metrics.log")
	child, err := s.Set.Start(proc.Spec{
		Name: "metrics", Path: vaulttest.Bin(t, "strongroom"), LogFile: log,
		Args: []string{"metrics", "--listen", addr, "--domain", "127.0.0.1", "--states", states, "--audit-logs", filepath.Dir(s.Layout.Audit("x")),
			"--address", vaultAddr(s), "--role-id-file", roleID, "--secret-id-file", secretID,
			"--front", strings.TrimPrefix(front, "https://"), "--front-socket", s.Layout.FrontMetrics()},
	})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + addr
	up, cancel := context.WithTimeout(ctx, vaulttest.Patience)
	defer cancel()
	if err := child.WaitUp(up, func(ctx context.Context) error {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			resp, err := http.Get(url + "/healthz")
			if err == nil {
				return resp.Body.Close()
			}
			select {
			case <-ctx.Done():
				return err
			case <-tick.C:
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	text := scrapeUntil(t, url+"/metrics", func(text string) bool { return !unreadable.MatchString(text) })
	vault := scrapeUntil(t, url+"/vault", func(text string) bool { return strings.Contains(text, "\nvault_expire_num_leases ") })
	return &monitored{s, child, url, log, roleID, secretID, secrets, text, vault, time.Now()}
}

// Every metric that the alert rules and the dashboard name is in a real scrape;
// nothing secret is; and the daemon goes on when Vault has been killed.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m := monitoredVault(t)
	ctx, s, child, url, log := t.Context(), m.s, m.child, m.url, m.log
	roleID, secretID, secrets, text, vault := m.roleID, m.secretID, m.secrets, m.metrics, m.vault
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// The engine's are not named here.
		if !strings.HasPrefix(p.Metric, "vault_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	there := samples(t, text)
	for name := range samples(t, vault) {
		there[name] = true
	}
	named := regexp.MustCompile(`\b(?:strongroom|vault)_[a-z0-9_]+\b`)
	exprs := regexp.MustCompile(`(?m)^\s*(?:expr: |"expr": )(.*)$`)
	checked := 0
	for file, content := range map[string][]byte{"alert rules": config.AlertRules(), "dashboard": config.GrafanaDashboard()} {
		for _, m := range exprs.FindAllSubmatch(content, -1) {
			for _, name := range named.FindAllString(string(m[1]), -1) {
				checked++
				// The firewall is looked at on an installed machine; TestScrape has its series.
				if !strings.HasPrefix(name, "strongroom_firewall_") && !there[name] {
					t.Errorf("%s: %q is not in a real scrape", file, name)
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d metrics found in rules and dashboard", checked)
	}
	for _, want := range []string{
		"strongroom_vault_sealed 0", "strongroom_certificate_covers_name 1", "strongroom_snapshot_verify_failed 0",
		`strongroom_keys{condition="ok",provider="generated"} 1`, "strongroom_drill_passed 1", "strongroom_escrow_confirmed 1",
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no sample %q", want)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "strongroom_collector_success") && strings.HasSuffix(line, " 0") {
			t.Error(line)
		}
	}

	// What the AppRole may: nothing else.
	secret, err := os.ReadFile(secretID)
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, strings.TrimSpace(string(secret)))
	role, err := os.ReadFile(roleID)
	if err != nil {
		t.Fatal(err)
	}
	monitor := s.Client(t, "")
	if err := monitor.LoginAppRole(ctx, strings.TrimSpace(string(role)), strings.TrimSpace(string(secret))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"apikeys/creds/shop/production/canary-key-name", "secret/data/x", "apikeys/keys/shop/production/canary-key-name", "sys/policies/acl", "sys/audit"} {
		if _, err := vaulttest.API(monitor).Logical().ReadWithContext(ctx, path); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("the monitor's token reads %s: %v", path, err)
		}
	}

	// Vault is killed, and its token with the next one: the daemon goes on.
	s.KillAndWait(t)
	goesOn := func(text string) bool {
		return strings.Contains(text, "\nstrongroom_vault_up 1\n") && strings.Contains(text, "\nvault_apikeys_keys{")
	}
	if text := scrapeUntil(t, url+"/metrics", goesOn); !goesOn(text) {
		t.Errorf("after a restart:\n%s", text)
	}
	if err := child.Stop(); err != nil {
		t.Error(err)
	}
	written, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if slices.ContainsFunc([]string{text, vault, string(written)}, func(out string) bool { return strings.Contains(out, s) }) {
			t.Errorf("a secret or a key's name is told: %.6s…", s)
		}
	}
}
