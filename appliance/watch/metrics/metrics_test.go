package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/evidence"
)

var now = time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)

const token = "hvs.CANARYCANARYCANARY"

// fakeVault answers what the daemon asks. The token it gives ends when asked to.
type fakeVault struct {
	logins  atomic.Int64
	refuses atomic.Bool // every token
	down    atomic.Bool
	ended   atomic.Int64
	text    string // of the engine's metrics
}

func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	say := func(code int, body string) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch {
	case v.down.Load():
		say(500, `{"errors":["down"]}`)
	case path == "sys/health":
		say(200, `{"initialized":true,"sealed":false,"standby":false,"version":"1.21.1","cluster_id":"c"}`)
	case path == "sys/metrics" && r.URL.Query().Get("format") == "prometheus":
		say(200, "vault_core_active 1\n")
	case path == "auth/token/revoke-self":
		if r.Header.Get("X-Vault-Token") == token {
			v.ended.Add(1)
		}
		say(204, "")
	case r.Header.Get("X-Vault-Token") != token || v.refuses.Load():
		say(403, `{"errors":["permission denied"]}`)
	case path == "sys/locked-users":
		say(200, `{"data":{"by_namespace":[{"namespace_id":"root","counts":2,"mount_accessors":[{"mount_accessor":"auth_userpass_1","counts":2,"alias_identifiers":["admin","ann"]}]}],"total":2}}`)
	case path == "apikeys/metrics":
		w.Header().Set("Content-Type", "text/plain")
		say(200, v.text)
	case path == "apikeys/status":
		say(200, `{"data":{"version":"v1","active":true,"fence":{"closed":true,"reason":"restored"},"clock":{"state":"ok"},
			"key_count":3,"due_rotations":1,"open_intents":2,"webhooks":{"a":{"last_error":"x"}},
			"by_provider":{"gen":{"conditions":{"ok":1,"failing":1},"oldest_rotation_time":"2026-10-01T00:00:00Z","next_rotation_time":"2026-12-30T00:00:00Z"},
			"cf":{"conditions":{"ok":1},"oldest_rotation_time":"2026-11-02T00:00:00Z","next_rotation_time":null}}}}`)
	default:
		say(404, `{"errors":[]}`)
	}
}

func (v *fakeVault) start(t *testing.T) *Vault {
	t.Helper()
	srv := httptest.NewServer(v)
	t.Cleanup(srv.Close)
	client, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	client = client.Once(0)
	return NewVault(client, "apikeys", func(_ context.Context, c *vaultapi.Client) (func(context.Context) error, error) {
		v.logins.Add(1)
		c.SetToken(token)
		return c.RevokeSelf, nil
	})
}

// states writes what the jobs leave.
func states(t *testing.T) (evidence.Places, string) {
	t.Helper()
	dir := t.TempDir()
	p := evidence.Below(dir)
	put := func(path string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o700)
		}
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(p.Snapshot+"/taken.json", snapshot.TakeState{Format: 1,
		Last:          map[string]snapshot.TakenRecord{"dir:/b": {ID: "x", TakenAt: now.Add(-10 * time.Minute)}},
		CanaryFailure: &snapshot.Failure{At: now, Error: "x"}})
	put(p.Verify+"/verified.json", snapshot.VerifyState{Format: 1,
		LastGood: map[string]snapshot.VerifiedRecord{"dir:/b": {ID: "x", TakenAt: now.Add(-40 * time.Minute), VerifiedAt: now.Add(-30 * time.Minute), Size: 1000}},
		Failure:  &snapshot.Failure{At: now, Error: "x"}})
	put(p.Doctor+"/last.json", map[string]any{"format": 1, "at": now, "items": []map[string]string{
		{"id": "escrow", "verdict": "pass"}, {"id": "swap", "verdict": "fail"}, {"id": "clock", "verdict": "warn"}}})
	p.Firewall = dir + "/firewall-watch"
	put(p.Audit+"/ledger.json", audit.Ledger{Format: 1, At: now, Losses: make([]audit.Loss, 3), Faults: make([]alert.Fault, 1)})
	if err := os.MkdirAll(p.Firewall, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := evidence.SaveFirewall(p, evidence.Firewall{At: now, Faults: make([]alert.Fault, 2)}); err != nil {
		t.Fatal(err)
	}
	put(dir+"/audit/last.json", audit.Report{Format: 1, At: now, Kept: 7, KeptBytes: 700, DeletedEarlyTotal: 2,
		Logs: []audit.Log{{Name: "audit-1.log", Size: 42}}})
	return p, dir + "/audit"
}

// frontAt serves a text at a unix socket as the front does.
func frontAt(t *testing.T, text string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			_, _ = io.WriteString(w, text)
		}
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
	return socket
}

const (
	frontText  = "# HELP strongroom_front_refused_total Refused.\n# TYPE strongroom_front_refused_total counter\nstrongroom_front_refused_total 3\n"
	engineText = "# HELP vault_apikeys_keys Keys.\n# TYPE vault_apikeys_keys gauge\nvault_apikeys_keys{mount=\"m\"} 3\n"
)

func certificate(context.Context) (evidence.Certificate, error) {
	return evidence.Certificate{NotBefore: now.Add(-60 * 24 * time.Hour), NotAfter: now.Add(30 * 24 * time.Hour), Covers: true}, nil
}

func whole(t *testing.T) (Options, *fakeVault) {
	t.Helper()
	places, auditState := states(t)
	v := &fakeVault{text: engineText}
	return Options{Version: "1.0", Places: places, AuditState: auditState, AuditLogs: t.TempDir(), Certificate: certificate,
		FrontSocket: frontAt(t, frontText), Vault: v.start(t), Now: func() time.Time { return now }}, v
}

// scrape gives every sample as name{labels} → value, and the text.
func scrape(t *testing.T, h http.Handler) (map[string]float64, []byte) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	text := w.Body.Bytes()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	out := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			out[name+labels(m)] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return out, text
}

func labels(m *dto.Metric) string {
	var parts []string
	for _, l := range m.Label {
		parts = append(parts, l.GetName()+"="+l.GetValue())
	}
	if len(parts) == 0 {
		return ""
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestScrape(t *testing.T) {
	o, _ := whole(t)
	h, err := Handler(New(o))
	if err != nil {
		t.Fatal(err)
	}
	got, text := scrape(t, h)
	for sample, want := range map[string]float64{
		"strongroom_build_info{version=1.0}":                                  float64(1),
		"strongroom_certificate_not_after_seconds":                            float64(now.Add(30 * 24 * time.Hour).Unix()),
		"strongroom_certificate_covers_name":                                  1,
		"strongroom_snapshot_taken_time_seconds":                              float64(now.Add(-10 * time.Minute).Unix()),
		"strongroom_snapshot_verified_taken_time_seconds":                     float64(now.Add(-40 * time.Minute).Unix()),
		"strongroom_snapshot_verified_time_seconds":                           float64(now.Add(-30 * time.Minute).Unix()),
		"strongroom_snapshot_place_failed{place=dir:/b}":                      0,
		"strongroom_snapshot_place_verified_taken_time_seconds{place=dir:/b}": float64(now.Add(-40 * time.Minute).Unix()),
		"strongroom_snapshot_verified_size_bytes":                             1000,
		"strongroom_snapshot_take_failed":                                     0,
		"strongroom_snapshot_verify_failed":                                   1,
		"strongroom_snapshot_canary_failed":                                   1,
		"strongroom_snapshot_clock_in_doubt":                                  0,
		"strongroom_snapshot_standby":                                         0,
		"strongroom_vault_locked_users":                                       2,
		"strongroom_audit_losses":                                             3,
		"strongroom_audit_faults":                                             1,
		"strongroom_audit_watch_time_seconds":                                 float64(now.Unix()),
		"strongroom_firewall_faults":                                          2,
		"strongroom_firewall_watch_time_seconds":                              float64(now.Unix()),
		"strongroom_drill_time_seconds":                                       0,
		"strongroom_doctor_time_seconds":                                      float64(now.Unix()),
		"strongroom_doctor_items{verdict=fail}":                               1,
		"strongroom_doctor_item_failed{item=swap}":                            1,
		"strongroom_doctor_item_failed{item=clock}":                           0,
		"strongroom_escrow_confirmed":                                         1,
		"strongroom_audit_kept_logs":                                          7,
		"strongroom_audit_deleted_early_total":                                2,
		"strongroom_audit_log_size_bytes{log=audit-1.log}":                    42,
		"strongroom_vault_up":                                                 1,
		"strongroom_vault_sealed":                                             0,
		"strongroom_vault_info{tested=yes,version=1.21.1}":                    1,
		"strongroom_keys{condition=failing,provider=gen}":                     1,
		"strongroom_keys{condition=ok,provider=gen}":                          1,
		"strongroom_keys{condition=ok,provider=cf}":                           1,
		"strongroom_keys{condition=in_use,provider=cf}":                       0,
		"strongroom_keys_due_rotations":                                       1,
		"strongroom_keys_open_intents":                                        2,
		"strongroom_keys_fenced":                                              1,
		"strongroom_keys_clock_believed":                                      1,
		"strongroom_keys_next_rotation_seconds{provider=gen}":                 float64(time.Date(2026, 12, 30, 0, 0, 0, 0, time.UTC).Unix()),
		"strongroom_keys_oldest_rotation_seconds{provider=gen}":               float64(time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).Unix()),
		"strongroom_front_refused_total":                                      3,
		"vault_apikeys_keys{mount=m}":                                         3,
	} {
		if v, ok := got[sample]; !ok || v != want {
			t.Errorf("%s = %v (there: %t), want %v", sample, v, ok, want)
		}
	}
	if _, ok := got["strongroom_keys_next_rotation_seconds{provider=cf}"]; ok {
		t.Error("a next rotation where nothing rotates")
	}
	for _, part := range []string{"snapshot", "drill", "doctor", "audit", "watched", "certificate", "vault", "keys", "locked", "front", "engine"} {
		if got["strongroom_collector_success{part="+part+"}"] != 1 {
			t.Errorf("part %q failed", part)
		}
	}
	if r := got["strongroom_audit_disk_used_ratio"]; r <= 0 || r > 1 {
		t.Errorf("disk used %v", r)
	}
	if bytes.Contains(text, []byte(token)) {
		t.Error("the token is in it")
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestNothingThereYet(t *testing.T) {
	h, err := Handler(New(Options{Version: "1.0", Places: evidence.Below(t.TempDir()), AuditState: t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	got, _ := scrape(t, h)
	for _, name := range []string{"snapshot_taken_time_seconds", "snapshot_verified_taken_time_seconds", "drill_time_seconds", "doctor_time_seconds", "audit_time_seconds"} {
		if v, ok := got["strongroom_"+name]; !ok || v != 0 {
			t.Errorf("%s = %v (there: %t), want 0: never", name, v, ok)
		}
	}
	for _, part := range []string{"snapshot", "drill", "doctor", "audit"} {
		if got["strongroom_collector_success{part="+part+"}"] != 1 {
			t.Errorf("part %q failed, though nothing is wrong", part)
		}
	}
}

// TestDrillNotFetched: a drill that got no snapshot has failed, whatever the last
// report says.
func TestDrillNotFetched(t *testing.T) {
	for name, report := range map[string]string{
		"never drilled":       "",
		"passed a while back": `{"report":{"format":1,"kind":"drill","finished_at":"2020-01-01T00:00:00Z","passed":true}}`,
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := whole(t)
			put := func(file, text string) {
				t.Helper()
				if err := errors.Join(os.MkdirAll(o.Places.Drill, 0o700), os.WriteFile(filepath.Join(o.Places.Drill, file), []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if report != "" {
				put("last.json", report)
			}
			h, err := Handler(New(o))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := scrape(t, h); report != "" && got["strongroom_drill_passed"] != 1 {
				t.Errorf("before: passed = %v", got["strongroom_drill_passed"])
			}
			put("fetch-failure.json", `{"at":"2020-04-01T00:00:00Z","error":"no route"}`)
			if h, err = Handler(New(o)); err != nil {
				t.Fatal(err)
			}
			got, _ := scrape(t, h)
			if v, ok := got["strongroom_drill_passed"]; !ok || v != 0 || got["strongroom_collector_success{part=drill}"] != 1 {
				t.Errorf("passed = %v (there: %t)", v, ok)
			}
		})
	}
}

// TestOnePartFails: a part that can't be read takes nothing else along.
func TestOnePartFails(t *testing.T) {
	spoil := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		harm func(*testing.T, *Options, *fakeVault)
		fail []string
	}{
		"spoilt take state":   {func(t *testing.T, o *Options, _ *fakeVault) { spoil(t, o.Places.Snapshot+"/taken.json") }, []string{"snapshot"}},
		"spoilt doctor":       {func(t *testing.T, o *Options, _ *fakeVault) { spoil(t, o.Places.Doctor+"/last.json") }, []string{"doctor"}},
		"spoilt audit state":  {func(t *testing.T, o *Options, _ *fakeVault) { spoil(t, o.AuditState+"/last.json") }, []string{"audit"}},
		"no front":            {func(t *testing.T, o *Options, _ *fakeVault) { o.FrontSocket = t.TempDir() + "/none" }, []string{"front"}},
		"front tells rubbish": {func(t *testing.T, o *Options, _ *fakeVault) { o.FrontSocket = frontAt(t, "<html>{") }, []string{"front"}},
		"front lies about us": {func(t *testing.T, o *Options, _ *fakeVault) {
			o.FrontSocket = frontAt(t, "# TYPE strongroom_vault_sealed gauge\nstrongroom_vault_sealed 1\n")
		}, nil},
		"no certificate": {func(_ *testing.T, o *Options, _ *fakeVault) {
			o.Certificate = func(context.Context) (evidence.Certificate, error) {
				return evidence.Certificate{}, errors.New("refused")
			}
		}, []string{"certificate"}},
		"Vault is down":        {func(_ *testing.T, _ *Options, v *fakeVault) { v.down.Store(true) }, []string{"vault", "keys", "locked", "engine"}},
		"Vault refuses tokens": {func(_ *testing.T, _ *Options, v *fakeVault) { v.refuses.Store(true) }, []string{"keys", "locked", "engine"}},
		"no login": {func(_ *testing.T, o *Options, _ *fakeVault) {
			o.Vault.login = func(context.Context, *vaultapi.Client) (func(context.Context) error, error) { return nil, ErrNoLogin }
		}, []string{"keys", "locked", "engine"}},
	} {
		t.Run(name, func(t *testing.T) {
			o, v := whole(t)
			tc.harm(t, &o, v)
			h, err := Handler(New(o))
			if err != nil {
				t.Fatal(err)
			}
			got, _ := scrape(t, h)
			for _, part := range []string{"snapshot", "drill", "doctor", "audit", "watched", "certificate", "vault", "keys", "locked", "front", "engine"} {
				want := 1.0
				for _, f := range tc.fail {
					if f == part {
						want = 0
					}
				}
				if s, ok := got["strongroom_collector_success{part="+part+"}"]; !ok || s != want {
					t.Errorf("part %q: %v (there: %t), want %v", part, s, ok, want)
				}
			}
			if sealed, ok := got["strongroom_vault_sealed"]; ok && sealed != 0 {
				t.Error("somebody else's word for ours")
			}
			if up := got["strongroom_vault_up"]; (up == 0) != v.down.Load() {
				t.Errorf("vault_up = %v", up)
			}
		})
	}
}

func TestTokenThatEnded(t *testing.T) {
	v := &fakeVault{text: engineText}
	vault := v.start(t)
	ask := func() error { _, err := vault.engine(t.Context()); return err }
	if err := ask(); err != nil || v.logins.Load() != 1 {
		t.Fatalf("%v, %d logins", err, v.logins.Load())
	}
	if err := ask(); err != nil || v.logins.Load() != 1 {
		t.Errorf("%v, %d logins: the token is good", err, v.logins.Load())
	}
	at := time.Now().Add(loginPause)
	vault.now = func() time.Time { return at }
	vault.client.SetToken("ended")
	if err := ask(); err != nil || v.logins.Load() != 2 {
		t.Errorf("%v, %d logins", err, v.logins.Load())
	}
	if err := vault.End(t.Context()); err != nil {
		t.Error(err)
	}
	if err := vault.End(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a policy refuses, a new token may not do either: it must not cost a login
// at every question, nor leave tokens behind.
func TestTokenThatAPolicyRefuses(t *testing.T) {
	v := &fakeVault{text: engineText}
	v.refuses.Store(true)
	vault := v.start(t)
	at := now
	vault.now = func() time.Time { return at }
	for range 5 {
		if _, err := vault.engine(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	if v.logins.Load() != 1 || v.ended.Load() != 0 {
		t.Errorf("%d logins in a moment, %d tokens ended", v.logins.Load(), v.ended.Load())
	}
	at = at.Add(loginPause)
	for range 5 {
		if _, err := vault.engine(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	if v.logins.Load() != 2 || v.ended.Load() != 1 {
		t.Errorf("later: %d logins, %d tokens ended: want 2 and 1", v.logins.Load(), v.ended.Load())
	}
}

func TestRefusedLoginIsNotRepeatedAtOnce(t *testing.T) {
	v := &fakeVault{}
	vault := v.start(t)
	at := now
	vault.now = func() time.Time { return at }
	tries := 0
	vault.login = func(context.Context, *vaultapi.Client) (func(context.Context) error, error) {
		tries++
		return nil, errors.New("invalid secret id")
	}
	for range 5 {
		if _, err := vault.engine(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	if tries != 1 {
		t.Errorf("%d logins in a moment", tries)
	}
	at = at.Add(loginPause)
	if _, err := vault.engine(t.Context()); err == nil || tries != 2 {
		t.Errorf("%v, %d logins", err, tries)
	}
}

func TestKept(t *testing.T) {
	at, asked := now, 0
	f := kept(time.Minute, func() time.Time { return at }, func(context.Context) (int, error) { asked++; return asked, nil })
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {59 * time.Second, 1}, {time.Minute, 2}, {-time.Hour, 3}} {
		at = now.Add(tc.after)
		if n, err := f(t.Context()); n != tc.want || err != nil {
			t.Errorf("after %v: %d, %v", tc.after, n, err)
		}
	}
}

func TestTelemetry(t *testing.T) {
	o, v := whole(t)
	h, err := Handler(New(o))
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, text := get("/vault"); code != 200 || text != "vault_core_active 1\n" || v.logins.Load() != 0 {
		t.Errorf("%d %q, %d logins", code, text, v.logins.Load())
	}
	v.down.Store(true)
	if code, text := get("/vault"); code != http.StatusBadGateway || strings.Contains(text, token) {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, _ := get("/other"); code != 404 {
		t.Errorf("other: %d", code)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, http.NotFoundHandler()) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestListen(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost:0", ":0", "127.0.0.1", ""} {
		if ln, err := Listen(address); !errors.Is(err, ErrNotLoopback) || !strings.Contains(err.Error(), strconv.Quote(address)) {
			t.Errorf("%q: %v, %v", address, ln, err)
		}
	}
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Listen(ln.Addr().String()); err == nil || errors.Is(err, ErrNotLoopback) {
		t.Errorf("taken: %v", err)
	}
}

// The watchdog's question goes to the daemon itself, and every answer but a good
// one is a fault.
func TestAnswers(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	t.Setenv("http_proxy", "http://192.0.2.1:1")
	code := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			t.Error(r.URL)
		}
		w.WriteHeader(code)
	}))
	address := srv.Listener.Addr().String()
	if err := Answers(t.Context(), address); err != nil {
		t.Error(err)
	}
	code = http.StatusServiceUnavailable
	if err := Answers(t.Context(), address); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
	srv.Close()
	if err := Answers(t.Context(), address); err == nil {
		t.Error("nobody answers")
	}
	if err := Answers(t.Context(), "no address"); err == nil {
		t.Error("no address")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(frontText))
	f.Add([]byte("strongroom_vault_sealed 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		families, err := parse(t.Context(), frontPrefix, func(context.Context) ([]byte, error) { return text, nil })
		if err != nil && families != nil {
			t.Error("families with an error")
		}
		for _, fam := range families {
			if !strings.HasPrefix(fam.GetName(), frontPrefix) {
				t.Errorf("passed on %q", fam.GetName())
			}
		}
	})
}
