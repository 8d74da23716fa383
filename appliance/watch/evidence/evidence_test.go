package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config"
)

func TestReadCertificate(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	address := srv.Listener.Addr().String()
	leaf := srv.Certificate()
	for name, covers := range map[string]bool{"example.com": true, "vault.example.org": false} {
		c, err := ReadCertificate(t.Context(), address, name)
		if err != nil {
			t.Fatal(err)
		}
		if c.Covers != covers || !c.NotAfter.Equal(leaf.NotAfter) || c.Version != "TLS 1.3" || len(c.SHA256) != 64 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	srv.Close()
	if _, err := ReadCertificate(t.Context(), address, "example.com"); err == nil {
		t.Error("no error from a server that is gone")
	}
}

// A server that takes the connection and never says hello doesn't hold anybody
// up for longer than the context.
func TestSilentServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	defer srv.Close()
	go func() {
		c, err := srv.Listener.Accept()
		if err == nil {
			defer c.Close()
			cancel()
			<-t.Context().Done()
		}
	}()
	if _, err := ReadCertificate(ctx, srv.Listener.Addr().String(), "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestDaysLeft(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]int{
		90 * 24 * time.Hour: 90, 24*time.Hour - time.Second: 0, 24 * time.Hour: 1, -time.Second: -1, -25 * time.Hour: -2,
	} {
		if got := (Certificate{NotAfter: now.Add(left)}).DaysLeft(now); got != want {
			t.Errorf("%v left: %d days, want %d", left, got, want)
		}
	}
}

func place(t *testing.T) Places {
	t.Helper()
	p := Below(t.TempDir())
	for _, d := range []string{p.Snapshot, p.Verify, p.Drill, p.Doctor, p.Escrow} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNoneYet(t *testing.T) {
	for name, p := range map[string]Places{"empty folders": place(t), "no folders": Below(filepath.Join(t.TempDir(), "none"))} {
		t.Run(name, func(t *testing.T) {
			_, backup := ReadBackup(p)
			_, drilled := ReadDrill(p)
			_, doctor := ReadDoctor(p)
			_, sealed := ReadEscrow(p)
			for what, err := range map[string]error{"backup": backup, "drill": drilled, "doctor": doctor, "escrow": sealed, "signature": DrillSignature(p, "/none")} {
				if !errors.Is(err, ErrNone) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

func TestDamagedStates(t *testing.T) {
	p := place(t)
	for dir, name := range map[string]string{p.Verify: "verified.json", p.Drill: "last.json", p.Doctor: "last.json", p.Escrow: "confirmed.json"} {
		put(t, dir, name, `{"format":`)
	}
	_, backup := ReadBackup(p)
	_, drilled := ReadDrill(p)
	_, doctor := ReadDoctor(p)
	_, sealed := ReadEscrow(p)
	for what, err := range map[string]error{"backup": backup, "drill": drilled, "doctor": doctor, "escrow": sealed} {
		if err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	put(t, p.Doctor, "last.json", `{"format":1,"items":[{"id":"swap","verdict":"perhaps"}]}`)
	if _, err := ReadDoctor(p); err == nil || !strings.Contains(err.Error(), "perhaps") {
		t.Errorf("a verdict of another kind: %v", err)
	}
	put(t, p.Doctor, "last.json", strings.Repeat(" ", statefile.MaxSize+1))
	if _, err := ReadDoctor(p); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file without end: %v", err)
	}
}

func TestReadBackup(t *testing.T) {
	p := place(t)
	put(t, p.Snapshot, "taken.json", `{"format":1,"last":{"dir:/a":{"id":"c/3","taken_at":"2026-11-24T12:00:00Z"}},"failure":{"at":"2026-11-24T12:30:00Z","error":"full"},"canary_failure":{"at":"2026-11-24T12:30:00Z","error":"denied"}}`)
	put(t, p.Verify, "verified.json", `{"format":1,"last_good":{
		"dir:/a":{"id":"c/2","taken_at":"2026-11-24T11:00:00Z","verified_at":"2026-11-24T11:05:00Z","size":7},
		"dir:/b":{"id":"c/1","taken_at":"2026-11-24T10:00:00Z","verified_at":"2026-11-24T11:06:00Z","size":5}}}`)
	b, err := ReadBackup(p)
	if err != nil {
		t.Fatal(err)
	}
	if b.ID != "c/2" || b.Size != 7 || len(b.Places) != 2 || b.LastTaken.Hour() != 12 || b.TakeFailure == nil || b.VerifyFailure != nil || b.CanaryFailure == nil || b.CanaryFailure.Error != "denied" {
		t.Errorf("backup %+v", b)
	}
}

// A node that stands aside has told something, and what it says is the newest
// word until its job fails.
func TestReadBackupOfAStandby(t *testing.T) {
	p := place(t)
	put(t, p.Snapshot, "taken.json", `{"format":1,"standby":"2026-11-24T12:00:00Z"}`)
	b, err := ReadBackup(p)
	if err != nil || !b.StandsBy() || b.Standby.Hour() != 12 {
		t.Errorf("backup %+v, %v", b, err)
	}
	put(t, p.Snapshot, "taken.json", `{"format":1,"standby":"2026-11-24T12:00:00Z","failure":{"at":"2026-11-24T13:00:00Z","error":"no login"}}`)
	if b, err := ReadBackup(p); err != nil || b.StandsBy() {
		t.Errorf("backup %+v, %v", b, err)
	}
}

// A fetch that failed is a failed drill until one comes to its report.
func TestReadFetchFailure(t *testing.T) {
	p := place(t)
	if _, err := ReadFetchFailure(p); !errors.Is(err, ErrNone) {
		t.Errorf("none: %v", err)
	}
	put(t, p.Drill, "fetch-failure.json", `{"at":"2026-11-24T12:00:00Z","error":"no route"}`)
	for name, c := range map[string]struct {
		report string
		none   bool
	}{
		"no report":     {"", false},
		"an older one":  {`{"report":{"format":1,"kind":"drill","finished_at":"2026-08-24T12:00:00Z","passed":true}}`, false},
		"a newer one":   {`{"report":{"format":1,"kind":"drill","finished_at":"2026-11-24T13:00:00Z","passed":true}}`, true},
		"a damaged one": {`{`, false},
	} {
		if c.report != "" {
			put(t, p.Drill, "last.json", c.report)
		}
		f, err := ReadFetchFailure(p)
		if c.none != errors.Is(err, ErrNone) || !c.none && (err != nil || f.Error != "no route") {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		_ = os.Remove(filepath.Join(p.Drill, "last.json"))
	}
	put(t, p.Drill, "fetch-failure.json", `{`)
	if _, err := ReadFetchFailure(p); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("damaged: %v", err)
	}
}

func TestReadEscrow(t *testing.T) {
	p := place(t)
	put(t, p.Escrow, "admin.age", "a")
	put(t, p.Escrow, "master-key.age", "b")
	if err := escrow.Record(p.Escrow, "admin.age", escrow.ByChallenge, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	e, err := ReadEscrow(p)
	if err != nil {
		t.Fatal(err)
	}
	if e.Confirmed() || strings.Join(e.Unconfirmed(), " ") != "master-key.age" {
		t.Errorf("unconfirmed %q", e.Unconfirmed())
	}
	if err := escrow.Record(p.Escrow, "master-key.age", escrow.ByRestore, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	if e, err = ReadEscrow(p); err != nil || !e.Confirmed() {
		t.Errorf("%+v, %v", e, err)
	}
}

// fakeVault answers with the JSON at each path, page by page for status.
func fakeVault(t *testing.T, answers func(r *http.Request) (int, any)) *vaultapi.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, body := answers(r)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	c, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return c.Once(0)
}

func TestReadKeys(t *testing.T) {
	at := func(i int) time.Time { return time.Date(2026, 12, 1, 0, 0, i, 0, time.UTC) }
	asked := 0
	c := fakeVault(t, func(r *http.Request) (int, any) {
		asked++
		if r.URL.Query().Get("all") != "" {
			t.Error("every key is asked for")
		}
		// 1,200 keys are failing, in two pages.
		keys, after, last := map[string]any{}, r.URL.Query().Get("after"), ""
		for i := range 1200 {
			name := fmt.Sprintf("k%04d", i)
			if name <= after || len(keys) == statusPage {
				continue
			}
			keys[name], last = map[string]any{"condition": "failing", "next_rotation_time": nil, "rotation_failure": map[string]any{"message": "no", "retry_time": "2026-11-24T13:00:00Z"}}, name
		}
		soon := []any{}
		for i := range 50 {
			soon = append(soon, map[string]any{"name": fmt.Sprintf("soon%02d", i), "provider": "p", "condition": "ok", "next_rotation_time": at(i)})
		}
		data := map[string]any{
			"version": "0.1.0", "active": true, "fence": map[string]any{"closed": true, "reason": "restored"}, "clock": map[string]any{"state": "ok"},
			"key_count": 100_000, "rotations": 9, "keys": keys, "webhooks": map[string]any{"ops": map[string]any{"last_error": "refused"}},
			"by_provider":      map[string]any{"p": map[string]any{"conditions": map[string]any{"ok": 98_800, "failing": 1200}, "next_rotation_time": at(0), "oldest_rotation_time": at(0).AddDate(0, -3, 0)}},
			"rotations_by_day": map[string]any{"2026-12-01": 400}, "next_rotations": soon,
		}
		if len(keys) == statusPage {
			data["next"] = last
		}
		return 200, map[string]any{"data": data}
	})
	k, err := ReadKeys(t.Context(), c, "apikeys")
	if err != nil || asked != 2 {
		t.Fatalf("%v, %d requests", err, asked)
	}
	if len(k.Keys) != 1250 || k.Count != 100_000 || k.Fence != "restored" || k.Counters.Rotations != 9 || k.Webhooks["ops"] != "refused" || k.Clock != "ok" {
		t.Errorf("%d keys, %+v", len(k.Keys), k.Counters)
	}
	if p := k.Providers["p"]; p.Conditions["ok"] != 98_800 || !p.Next.Equal(at(0)) || p.Oldest.IsZero() || k.Days["2026-12-01"] != 400 {
		t.Errorf("%+v %v", k.Providers, k.Days)
	}
	if f := k.NeedSomebody(); len(f) != 1200 || f[1].Name != "k0001" || f[0].Failure != "no" || f[0].Retry.IsZero() || !f[0].NextRotation.IsZero() {
		t.Errorf("%d failing, %+v", len(f), f[:min(2, len(f))])
	}
	if next := k.NextRotations(at(9)); len(next) != 10 || next[0].Name != "soon00" || next[0].Provider != "p" {
		t.Errorf("next %+v", next)
	}
}

// An engine that names the same page again and again is asked no third time, and what it
// has not told is not taken for none.
func TestReadKeysThatGoRound(t *testing.T) {
	asked := 0
	c := fakeVault(t, func(*http.Request) (int, any) {
		asked++
		return 200, map[string]any{"data": map[string]any{"keys": map[string]any{}, "next": "a"}}
	})
	if _, err := ReadKeys(t.Context(), c, "apikeys"); err == nil || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestReadRaftAndHealth(t *testing.T) {
	c := fakeVault(t, func(r *http.Request) (int, any) {
		switch r.URL.Path {
		case "/v1/sys/health":
			return 200, map[string]any{"initialized": true, "version": config.ProductVault.Tested()[0], "cluster_id": "c"}
		case "/v1/sys/storage/raft/configuration":
			return 200, map[string]any{"data": map[string]any{"config": map[string]any{"index": 12, "servers": []any{
				map[string]any{"node_id": "node-1", "address": "127.0.0.1:8201", "leader": true, "voter": true}}}}}
		}
		return 403, map[string]any{"errors": []string{"permission denied"}}
	})
	h, err := ReadHealth(t.Context(), c)
	if err != nil || !h.Tested || h.Sealed || !h.Initialized {
		t.Errorf("health %+v, %v", h, err)
	}
	r, err := c.Raft(t.Context())
	if err != nil || r.Index != 12 || len(r.Nodes) != 1 || !r.Nodes[0].Leader {
		t.Errorf("raft %+v, %v", r, err)
	}
	if _, err := ReadKeys(t.Context(), c, "apikeys"); err == nil {
		t.Error("no error where Vault refuses")
	}
}

func FuzzStatus(f *testing.F) {
	f.Add(`{"keys":{"a":{"condition":"failing","rotation_failure":{"message":"x"}}},"next":""}`)
	f.Fuzz(func(t *testing.T, text string) {
		var s status
		if json.Unmarshal([]byte(text), &s) != nil {
			return
		}
		for name, k := range s.Keys {
			if got := k.key(name); got.Name != name {
				t.Errorf("%q became %q", name, got.Name)
			}
		}
	})
}
