package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// well is a report in which nothing is wrong.
func well() Report {
	r := Report{
		At: now, Host: "vps", Domain: "vault.example.com",
		Vault:       &evidence.Health{Initialized: true, Version: "1.21.1", Tested: true},
		Raft:        &vaultapi.Raft{Index: 9, Nodes: []vaultapi.RaftNode{{ID: "node-1", Leader: true}}},
		Certificate: &evidence.Certificate{Issuer: "CN=R11,O=Let's Encrypt,C=US", NotBefore: now.AddDate(0, -1, 0), NotAfter: now.AddDate(0, 2, 0), Covers: true},
		Backup:      &evidence.Backup{ID: "c/1", TakenAt: now.Add(-20 * time.Minute), Size: 3 << 20, Places: map[string]time.Time{"dir:/mnt": now}},
		Drill:       &report.Report{Kind: report.KindDrill, Passed: true, FinishedAt: now.AddDate(0, 0, -12), RPOSeconds: 1900, RTOSeconds: 8.2},
		Escrow:      &evidence.Escrow{Files: []escrow.FileStatus{{File: "admin.age", ConfirmedAt: now.AddDate(0, -1, 0)}}},
		Doctor:      &evidence.Doctor{At: now.Add(-5 * time.Hour), Pass: 31},
		Audit:       &audit.Ledger{At: now.Add(-time.Minute), Files: make([]audit.Kept, 5), Logs: []string{"audit-1.log", "audit-2.log"}, Written: []string{"audit-1.log", "audit-2.log"}},
		Firewall:    &evidence.Firewall{At: now.Add(-time.Minute)},
		Keys: &evidence.Keys{Clock: "ok", Count: 3, Keys: []evidence.Key{
			{Name: "app/production/billing", Condition: "ok", NextRotation: now.AddDate(0, 0, 3)},
			{Name: "app/production/mail", Condition: "ok", NextRotation: now.AddDate(0, 0, 3).Add(time.Hour)},
			{Name: "app/staging/far", Condition: "ok", NextRotation: now.AddDate(0, 0, 91)},
		}},
	}
	count(r.Keys)
	r.Lines = r.lines()
	return r
}

// count fills in what the engine counts.
func count(k *evidence.Keys) {
	k.Days = map[string]int{}
	for _, key := range k.Keys {
		if !key.NextRotation.IsZero() {
			k.Days[key.NextRotation.UTC().Format(time.DateOnly)]++
		}
	}
}

func line(t *testing.T, r Report, name string) Line {
	t.Helper()
	for _, l := range r.lines() {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no line %q", name)
	return Line{}
}

func TestAllIsWell(t *testing.T) {
	r := well()
	for _, l := range r.Lines {
		if l.State != Well || l.Hint != "" {
			t.Errorf("%+v", l)
		}
	}
	if r.Worst() != Well {
		t.Errorf("worst = %s", r.Worst())
	}
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, line string
		change     func(*Report)
		state      State
		says       string
	}{
		{"vault down", "Vault", func(r *Report) {
			r.Vault, r.Raft = nil, nil
			r.missing("Vault", errors.New("connection refused"))
		}, Bad, "does not answer: connection refused"},
		{"the TPM in lockout, no answer", "Vault", func(r *Report) { r.Vault, r.Locked = nil, "the TPM is in lockout; it ends within 16m40s" }, Bad, "SEALED: the TPM is in lockout; it ends within 16m40s"},
		{"the TPM refuses, sealed", "Vault", func(r *Report) { r.Vault.Sealed, r.Locked = true, "the TPM refuses" }, Bad, "SEALED: the TPM refuses"},
		{"sealed", "Vault", func(r *Report) { r.Vault.Sealed = true }, Bad, "SEALED"},
		{"new", "Vault", func(r *Report) { r.Vault.Initialized = false }, Bad, "not initialised"},
		{"standby", "Vault", func(r *Report) { r.Vault.Standby = true }, Well, "standby"},
		{"as installed", "Vault", func(r *Report) { r.Vault.Version, r.Vault.Tested = config.VaultVersion, false }, Well, config.VaultVersion + " (untested version)"},
		{"untested and new", "Vault", func(r *Report) { r.Vault.Version, r.Vault.Tested = "2.9.0", false }, Well, "2.9.0 (untested version)"},
		{"untested and old", "Vault", func(r *Report) { r.Vault.Version, r.Vault.Tested = "1.20.0", false }, Attention, "1.20.0 (untested version)"},
		{"untested and odd", "Vault", func(r *Report) { r.Vault.Version, r.Vault.Tested = "main", false }, Attention, "main (untested version)"},
		{"OpenBao", "Vault", func(r *Report) { r.Vault.Product, r.Vault.Version = config.ProductOpenBao, "2.7.2" }, Well, "active · OpenBao 2.7.2"},
		{"OpenBao, old as Vault is not", "Vault", func(r *Report) {
			r.Vault.Product, r.Vault.Version, r.Vault.Tested = config.ProductOpenBao, "2.5.0", false
		}, Attention, "OpenBao 2.5.0 (untested version)"},
		{"audit", "Audit", func(*Report) {}, Well, "2 logs written · 3 rotated ones kept"},
		{"history lost", "Audit", func(r *Report) {
			r.Audit.Losses = []audit.Loss{{}, {Name: "audit-1.log.x.gz", From: now.AddDate(0, 0, -3), Until: now.AddDate(0, 0, -2), Cause: audit.Gone}}
		}, Bad, "HISTORY LOST: audit-1.log.x.gz is gone, and audit rotate has not deleted it; lost is 21 Nov 2026 12:00 UTC to 22 Nov 2026 12:00 UTC · and 1 more"},
		{"a log is not written", "Audit", func(r *Report) { r.Audit.Faults = []alert.Fault{{Text: "Vault does not write", Hint: "reload"}} }, Bad, "Vault does not write"},
		{"no log was seen to grow", "Audit", func(r *Report) { r.Audit.Begun, r.Audit.Written = now.Add(-time.Hour), nil }, Attention, "no log was seen to grow"},
		{"no log was seen to grow so far", "Audit", func(r *Report) { r.Audit.Begun, r.Audit.Written = now.Add(-time.Minute), nil }, Well, "0 logs written"},
		{"nobody watches", "Audit", func(r *Report) { r.Audit.At = now.Add(-time.Hour) }, Attention, "last looked at 60 min ago"},
		{"no firewall", "Firewall", func(r *Report) { r.Firewall.Faults = []alert.Fault{{Text: "not in force", Hint: "restart"}} }, Bad, "not in force"},
		{"nobody looks", "Firewall", func(r *Report) { r.Firewall.At = now.Add(-time.Hour) }, Attention, "last looked at"},
		{"no leader", "Vault", func(r *Report) { r.Raft.Nodes[0].Leader = false }, Bad, "no leader"},
		{"expired", "Certificate", func(r *Report) { r.Certificate.NotAfter = now.Add(-3 * time.Hour) }, Bad, "EXPIRED 3 h ago"},
		{"nearly", "Certificate", func(r *Report) { r.Certificate.NotAfter = now.AddDate(0, 0, 6) }, Bad, "6 days left"},
		{"soon", "Certificate", func(r *Report) { r.Certificate.NotAfter = now.AddDate(0, 0, 20) }, Attention, "20 days left"},
		{"another name", "Certificate", func(r *Report) { r.Certificate.Covers, r.Certificate.Names = false, []string{"old.example.com"} }, Bad, "but for old.example.com"},
		{"internal", "Certificate", func(r *Report) {
			r.Certificate.NotBefore, r.Certificate.NotAfter = now.Add(-2*time.Hour), now.Add(10*time.Hour)
		}, Well, "10 h left"},
		{"internal, not renewed", "Certificate", func(r *Report) {
			r.Certificate.NotBefore, r.Certificate.NotAfter = now.Add(-11*time.Hour), now.Add(time.Hour)
		}, Attention, "60 min left"},
		{"front down", "Certificate", func(r *Report) { r.Certificate = nil; r.missing("certificate", errors.New("refused")) }, Bad, "refused"},
		{"no domain", "Certificate", func(r *Report) { r.Certificate, r.Domain = nil, ""; r.missing("certificate", errors.New("no file")) }, Unknown, "no file"},
		{"never", "Backup", func(r *Report) { r.Backup = nil }, Bad, "never taken"},
		{"never verified", "Backup", func(r *Report) { *r.Backup = evidence.Backup{LastTaken: now} }, Bad, "none was ever verified"},
		{"late", "Backup", func(r *Report) { r.Backup.TakenAt = now.Add(-3 * time.Hour) }, Attention, "3 h old"},
		{"stale", "Backup", func(r *Report) { r.Backup.TakenAt = now.AddDate(0, 0, -4) }, Bad, "4 days old"},
		{"failed", "Backup", func(r *Report) { r.Backup.TakeFailure = &snapshot.Failure{Error: "bucket\nis full"} }, Bad, "taking failed: bucket is full"},
		{"not verified", "Backup", func(r *Report) { r.Backup.VerifyFailure = &snapshot.Failure{Error: "sums differ"} }, Bad, "verifying failed: sums differ"},
		{"no canary", "Backup", func(r *Report) { r.Backup.CanaryFailure = &snapshot.Failure{Error: "permission\ndenied"} }, Attention, "no canary, a drill will fail: permission denied"},
		{"no canary, and stale", "Backup", func(r *Report) {
			r.Backup.TakenAt, r.Backup.CanaryFailure = now.AddDate(0, 0, -4), &snapshot.Failure{Error: "denied"}
		}, Bad, "no canary"},
		{"standby", "Backup", func(r *Report) {
			at := now.Add(-50 * time.Minute)
			*r.Backup = evidence.Backup{Standby: &at}
		}, Well, "the leader takes them; this node stood aside 50 min ago"},
		{"standby that led", "Backup", func(r *Report) {
			at := now.Add(-50 * time.Minute)
			r.Backup.Standby, r.Backup.TakenAt, r.Backup.VerifyFailure = &at, now.AddDate(0, 0, -4), &snapshot.Failure{Error: "sums differ"}
		}, Well, "the leader takes them"},
		{"standby, timer late", "Backup", func(r *Report) {
			at := now.Add(-3 * time.Hour)
			*r.Backup = evidence.Backup{Standby: &at}
		}, Attention, "3 h ago"},
		{"standby, timer dead", "Backup", func(r *Report) {
			at := now.AddDate(0, 0, -4)
			*r.Backup = evidence.Backup{Standby: &at}
		}, Bad, "4 days ago"},
		{"standby, failed since", "Backup", func(r *Report) {
			r.Backup.Standby, r.Backup.TakeFailure = &now, &snapshot.Failure{Error: "no login"}
		}, Bad, "taking failed: no login"},
		{"unreadable", "Backup", func(r *Report) { r.Backup = nil; r.missing("backups", errors.New("denied")) }, Unknown, "denied"},
		{"never", "Drill", func(r *Report) { r.Drill = nil }, Attention, "never done"},
		{"failed", "Drill", func(r *Report) {
			r.Drill.Passed, r.Drill.Checks = false, []report.Check{{Name: "canary", Verdict: report.Fail}}
		}, Bad, "FAILED 12 days ago: canary"},
		{"not fetched", "Drill", func(r *Report) {
			r.DrillFetch = &report.FetchFailure{At: now.AddDate(0, 0, -3), Error: "no\nroute"}
		}, Bad, "FAILED 3 days ago, it could not begin: no route"},
		{"never fetched", "Drill", func(r *Report) {
			r.Drill, r.DrillFetch = nil, &report.FetchFailure{At: now.Add(-time.Hour), Error: "no route"}
		}, Bad, "no route"},
		{"old", "Drill", func(r *Report) { r.Drill.FinishedAt = now.AddDate(0, -4, 0) }, Attention, "passed"},
		{"unconfirmed", "Escrow", func(r *Report) { r.Escrow.Files[0].ConfirmedAt = time.Time{} }, Bad, "may be the only one: admin.age"},
		{"none", "Escrow", func(r *Report) { r.Escrow = nil }, Bad, "none"},
		{"never", "Doctor", func(r *Report) { r.Doctor = nil }, Attention, "never ran"},
		{"sees too little", "Doctor", func(r *Report) { r.Doctor.Skip = 2 }, Attention, "2 could not be looked at"},
		{"fails", "Doctor", func(r *Report) { r.Doctor.Fail, r.Doctor.Failing = 2, []string{"swap", "ssh"} }, Bad, "swap, ssh"},
		{"warns", "Doctor", func(r *Report) { r.Doctor.Warn = 1 }, Attention, "1 warning"},
		{"old", "Doctor", func(r *Report) { r.Doctor.At = now.AddDate(0, 0, -3) }, Attention, "3 days ago"},
		{"two of them", "Log-ins", func(r *Report) { r.LockedOut = &evidence.LockedOut{Total: 2, Names: []string{"admin", "a\nb"}} }, Attention, "2 names locked after wrong passwords: admin, a b"},
		{"failing", "API keys", func(r *Report) { r.Keys.Keys[1].Condition = "failing" }, Bad, "1 need somebody"},
		{"in use", "API keys", func(r *Report) { r.Keys.Keys[1].Condition = "in_use" }, Attention, "1 need somebody"},
		{"awaiting", "API keys", func(r *Report) { r.Keys.Keys[1].Condition = "awaiting_import" }, Attention, "1 need somebody"},
		{"awaiting and failing", "API keys", func(r *Report) { r.Keys.Keys[0].Condition, r.Keys.Keys[1].Condition = "failing", "in_use" }, Bad, "2 need somebody"},
		{"of a newer engine", "API keys", func(r *Report) { r.Keys.Keys[1].Condition = "a word of tomorrow" }, Bad, "1 need somebody"},
		{"being made", "API keys", func(r *Report) { r.Keys.Keys[1].Condition = "pending" }, Well, "none failing"},
		{"fenced", "API keys", func(r *Report) { r.Keys.Fence = "restored from a snapshot" }, Bad, "nothing rotates: restored"},
		{"clock", "API keys", func(r *Report) { r.Keys.Clock = "ahead" }, Bad, "the clock is ahead"},
	} {
		t.Run(c.line+"/"+c.name, func(t *testing.T) {
			r := well()
			c.change(&r)
			l := line(t, r, c.line)
			if l.State != c.state || !strings.Contains(l.Text, c.says) {
				t.Errorf("%+v, want %s with %q", l, c.state, c.says)
			}
			if (l.State == Bad || l.State == Attention) && l.Hint == "" {
				t.Error("nothing says what to do")
			}
		})
	}
}

func render(t *testing.T, r Report, s Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Render(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestScreen(t *testing.T) {
	r := well()
	out := render(t, r, Style{Width: 100})
	for _, want := range []string{
		"Strongroom · vault.example.com", "Tue 24 Nov 2026 12:00 UTC",
		"✓ Vault        unsealed, active · 1.21.1 · 1 raft node",
		"61 days left, until 24 Jan 2027 · Let's Encrypt R11",
		"✓ Backup       verified, 20 min old · 3.0 MiB · in dir:/mnt",
		"passed 12 days ago · RPO 31 min, RTO 8.2 s",
		"Mo  Tu  We  Th  Fr  Sa  Su    27 Nov 12:00  app/production/billing\n",
		"    23 Nov         ○   ·   ·   2   ·   ·     27 Nov 13:00  app/production/mail\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "app/staging/far") || strings.Contains(out, "Not shown") {
		t.Errorf("colours, a key beyond 90 days, or something missing in\n%s", out)
	}
	coloured := render(t, r, Style{Width: 100, Colour: true})
	if !strings.Contains(coloured, words.Green+"✓"+words.Reset) || strip(coloured) != out {
		t.Errorf("without its colours it differs:\n%s", strip(coloured))
	}
}

func strip(s string) string {
	for _, c := range []string{words.Reset, words.Bold, words.Dim, words.Red, words.Green, words.Yellow} {
		s = strings.ReplaceAll(s, c, "")
	}
	return s
}

// No line is wider than the terminal, whatever is on it, and nothing from
// elsewhere moves the cursor.
func TestScreenIsBounded(t *testing.T) {
	r := well()
	r.Keys.Keys = nil
	for i := range 300 {
		r.Keys.Keys = append(r.Keys.Keys, evidence.Key{
			Name: fmt.Sprintf("a-very-long-name/of-an-application/in-production/%03d", i), Condition: "failing",
			Failure:      strings.Repeat("the provider says no and no again; ", 30) + "\x1b[2J",
			NextRotation: now.Add(time.Duration(i-5) * 6 * time.Hour), Retry: now.Add(time.Hour),
		})
	}
	count(r.Keys)
	r.Backup.TakeFailure = &snapshot.Failure{Error: "\x1b]0;title\x07 " + strings.Repeat("word ", 500)}
	r.Missing = []Missing{{"raft", strings.Repeat("why ", 100)}}
	r.Lines = r.lines()
	for _, width := range []int{60, 80, 120} {
		out := render(t, r, Style{Width: width})
		if strings.Contains(out, "\x1b") || strings.Contains(out, "\x07") {
			t.Error("a control character gets through")
		}
		n := 0
		for l := range strings.Lines(out) {
			n++
			if got := utf8.RuneCountInString(strings.TrimRight(l, "\n")); got > width {
				t.Errorf("width %d: a line of %d: %q", width, got, l)
			}
		}
		if n > 120 {
			t.Errorf("%d lines", n)
		}
		if !strings.Contains(out, "and 288 more") {
			t.Errorf("the list of failing keys has no end:\n%s", out)
		}
	}
}

func TestCalendar(t *testing.T) {
	for day := range 7 {
		today := midnight(now).AddDate(0, 0, day)
		end := today.AddDate(0, 0, calendarDays)
		rows := weeks(today, end)
		if rows[0].After(today) || rows[0].Weekday() != time.Monday || rows[len(rows)-1].AddDate(0, 0, 6).Before(end) {
			t.Errorf("%s: rows from %s to %s", today, rows[0], rows[len(rows)-1])
		}
		// Every one of the days is in exactly one row.
		s := &screen{Style: Style{Width: 100}}
		cells := 0
		for _, monday := range rows {
			cells += strings.Count(s.week(monday, today, end, nil), "·") + strings.Count(s.week(monday, today, end, nil), "○")
		}
		if cells != calendarDays+1 {
			t.Errorf("%s: %d days are drawn, want %d", today, cells, calendarDays+1)
		}
	}
}

// The calendar counts every rotation in its 90 days, overdue ones today.
func TestCalendarCounts(t *testing.T) {
	r := well()
	r.Keys.Keys = []evidence.Key{
		{Name: "late", Condition: "overdue", NextRotation: now.AddDate(0, 0, -2)},
		{Name: "today", Condition: "ok", NextRotation: now.Add(time.Hour)},
		{Name: "last", Condition: "ok", NextRotation: now.AddDate(0, 0, 90)},
	}
	count(r.Keys)
	out := render(t, r, Style{Width: 100})
	for _, want := range []string{"    23 Nov         2", "due  late", "24 Nov 13:00  today", "22 Feb 12:00  last", "    22 Feb     1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestGather(t *testing.T) {
	// A Vault that is well, but lets nobody read.
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sys/health" {
			_, _ = w.Write([]byte(`{"initialized":true,"version":"1.21.1"}`))
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"errors":["permission denied"]}`))
	}))
	defer srv.Close()
	c, err := vaultapi.New(vaultapi.Options{Address: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	c = c.Once(0)
	s := Sources{Vault: c, Mount: "apikeys", Front: "127.0.0.1:1", Domain: "vault.example.com", Places: evidence.Below(filepath.Join(t.TempDir(), "none")), Now: func() time.Time { return now }}
	t.Run("no rights", func(t *testing.T) {
		r := Gather(t.Context(), s)
		if r.Vault == nil || r.Raft != nil || r.Keys != nil || r.Certificate != nil {
			t.Errorf("%+v", r)
		}
		for _, want := range []Missing{{"raft", "the login may not read this"}, {"API keys and next rotations", "the login may not read this"}} {
			if !slices.Contains(r.Missing, want) {
				t.Errorf("missing %+v, want %+v", r.Missing, want)
			}
		}
	})
	t.Run("no login", func(t *testing.T) {
		one := s
		one.NoLogin = errors.New("not logged in to Vault")
		r := Gather(t.Context(), one)
		if !slices.Contains(r.Missing, Missing{"raft, API keys and next rotations", "not logged in to Vault"}) {
			t.Errorf("missing %+v", r.Missing)
		}
		out := render(t, r, Style{})
		if !strings.Contains(out, "✓ Vault        unsealed, active") || !strings.Contains(out, "Not shown") || strings.Contains(out, "Next rotations") {
			t.Errorf("screen:\n%s", out)
		}
	})
	t.Run("sealed by", func(t *testing.T) {
		for flags, want := range map[string]string{
			"--with-key=host": "by the host's key", "--with-key=host+tpm2 --tpm2-pcrs=23": "by the host's key and the TPM (PCR 23)",
			"--with-key=tpm2 --tpm2-pcrs=7": "by the TPM (PCR 7)", "": "",
		} {
			one := s
			one.MasterKey = func() ([]byte, error) {
				if flags == "" {
					return nil, os.ErrPermission
				}
				m := &credtest.Machine{TPM: &credtest.TPM{}}
				return m.Run(t.Context(), []byte("x"), append(append([]string{"encrypt"}, strings.Fields(flags)...), "--name=x", "-", "-")...)
			}
			r := Gather(t.Context(), one)
			if tpm := strings.Contains(r.Lines[0].Text, "sealed by the TPM"); r.SealedBy != want || tpm != strings.Contains(want, "PCR 23") {
				t.Errorf("%s: %q, %q", flags, r.SealedBy, r.Lines[0].Text)
			}
		}
	})
	t.Run("the master key cannot be opened", func(t *testing.T) {
		one := s
		asked := 0
		one.Sealing = func(context.Context) error { asked++; return credential.ErrLockout }
		if r := Gather(t.Context(), one); r.Locked != "" || asked != 0 {
			t.Errorf("asked while Vault is well: %q", r.Locked)
		}
		if one.Vault, err = vaultapi.New(vaultapi.Options{Address: "http://127.0.0.1:1"}); err != nil {
			t.Fatal(err)
		}
		one.Vault = one.Vault.Once(0)
		r := Gather(t.Context(), one)
		out := render(t, r, Style{})
		if !strings.Contains(out, "✗ Vault        SEALED: the TPM is in dictionary-attack lockout") || !strings.Contains(out, "leave the machine on") {
			t.Errorf("screen:\n%s", out)
		}
	})
	t.Run("no audit device can write", func(t *testing.T) {
		one := s
		one.NoLogin = &vaultapi.Error{Status: http.StatusInternalServerError, Errors: []string{"internal error"}}
		r := Gather(t.Context(), one)
		out := render(t, r, Style{})
		if !strings.Contains(out, "✗ Vault        unsealed, and answers 500 to everybody") || !strings.Contains(out, "df -h /var/log/vault") {
			t.Errorf("screen:\n%s", out)
		}
	})
	t.Run("JSON", func(t *testing.T) {
		b, err := json.Marshal(Gather(t.Context(), s))
		if err != nil {
			t.Fatal(err)
		}
		var back struct {
			Lines []Line
			Vault struct{ Sealed *bool }
		}
		if err := json.Unmarshal(b, &back); err != nil || len(back.Lines) != 6 || back.Vault.Sealed == nil {
			t.Errorf("%s: %v", b, err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r := Gather(ctx, s); r.Vault != nil || r.Worst() != Bad {
			t.Errorf("%+v", r)
		}
	})
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 1500 * time.Millisecond: "1.5 s", 90 * time.Second: "90 s", 10 * time.Minute: "10 min",
		26 * time.Hour: "26 h", 72 * time.Hour: "3 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestIssuer(t *testing.T) {
	for dn, want := range map[string]string{
		"CN=R11,O=Let's Encrypt,C=US": "Let's Encrypt R11", "CN=Strongroom - ECC Intermediate": "Strongroom - ECC Intermediate", "": "",
	} {
		if got := issuer(dn); got != want {
			t.Errorf("%q: %q, want %q", dn, got, want)
		}
	}
}
