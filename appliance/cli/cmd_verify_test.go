package cli

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config/machine"
)

// What jobs sign is checked by a keyring alone, and each way to be wrong has its answer.
func TestVerifySigned(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 12, 0, 0, 0, time.UTC) }
	ring := &signing.Keyring{}
	public := func(seed byte) ed25519.PublicKey { return seeded(seed).Public().(ed25519.PublicKey) }
	ring.Use(snapshot.RoleTaker, "vault.example.com", public(1), day(1))
	ring.Use(snapshot.RoleTaker, "vault.example.com", public(2), day(10)) // 1 is retired
	ring.Use(machine.JobDrill, "vault.example.com", public(3), day(1))
	keyring := keyringFile(t, ring)

	sum := strings.Repeat("ab", 32)
	manifest := func(d int, change func(*snapshot.Manifest)) snapshot.Manifest {
		id := "one/" + day(d).Format("20060102T150405Z") + "-1a2b3c4d"
		m := snapshot.Manifest{
			Format: 1, ID: id, TakenAt: day(d), ClusterID: "one", VaultVersion: "1.21.1", ToolVersion: "test", RaftIndex: 42, RaftTerm: 2,
			Recipients: []string{"SHA256:x"}, Snapshot: snapshot.Object{Name: id + ".snap.age", Size: 9, SHA256: sum, PlainSize: 8, PlainSHA256: sum},
		}
		if change != nil {
			change(&m)
		}
		return m
	}
	signed := func(kind signing.Kind, content any, seed byte) []byte {
		var key ed25519.PrivateKey
		if seed > 0 {
			key = seeded(seed)
		}
		b, err := kind.Encode(content, key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bare := func(m snapshot.Manifest) []byte {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	passed := report.Report{Format: report.Format, Kind: report.KindDrill, Host: "box", StartedAt: day(5), FinishedAt: day(5), Passed: true, Snapshot: report.Snapshot{ID: "one/x"}}
	undecided := passed
	undecided.Passed, undecided.FinishedAt = false, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	undecided.Checks = []report.Check{{Name: "age", Verdict: report.Undecided, Detail: "the clock is in doubt"}}
	m := signed(snapshot.SignedManifest, manifest(5, nil), 1)
	replaced := func(data []byte, old, now string) []byte {
		if !bytes.Contains(data, []byte(old)) {
			t.Fatalf("no %q in %s", old, data)
		}
		return bytes.Replace(data, []byte(old), []byte(now), 1)
	}
	doubted := func(m *snapshot.Manifest) { m.ClockInDoubt = true }
	future := manifest(5, nil)
	future.Format = 9

	for name, c := range map[string]struct {
		data []byte
		code int
		says []string
	}{
		"a manifest by a key that was retired since": {m, ExitOK, []string{
			"snapshot one/20261105T120000Z-1a2b3c4d of Vault 1.21.1, taken at 2026-11-05T12:00:00Z", "raft index 42", sum + "  one/20261105T120000Z-1a2b3c4d.snap.age",
			"good: the snapshot manifest is as signed by snapshot of vault.example.com", "in use from 2026-11-01T12:00:00Z, retired at 2026-11-10T12:00:00Z"}},
		"by the key of today": {signed(snapshot.SignedManifest, manifest(12, nil), 2), ExitOK, []string{"in use from 2026-11-10T12:00:00Z\n"}},
		"a report":            {signed(report.SignedReport, passed, 3), ExitOK, []string{"drill of 2026-11-05T12:00:00Z on box: PASSED", "good: the drill report is as signed by drill of vault.example.com"}},
		"a report that is undecided, by a clock that was wrong": {signed(report.SignedReport, undecided, 3), ExitOK, []string{"UNDECIDED", "note: its date is of a clock that was in doubt"}},

		"nobody's manifest":           {signed(snapshot.SignedManifest, manifest(5, nil), 0), ExitDrift, []string{"snapshot manifest: it is not signed", "→ anybody may have written it"}},
		"one from before the keys":    {bare(manifest(5, nil)), ExitDrift, []string{"snapshot manifest: it is not signed", "→ anybody may have written it"}},
		"nobody's report":             {signed(report.SignedReport, passed, 0), ExitDrift, []string{"drill report: it is not signed"}},
		"a key that nobody knows":     {signed(snapshot.SignedManifest, manifest(5, nil), 9), ExitDrift, []string{"nobody knows the key", "→ take the newest keyring.json"}},
		"another job's key":           {signed(snapshot.SignedManifest, manifest(5, nil), 3), ExitDrift, []string{"is of the role drill, and it is snapshot that signs this", "→ do not rely on it"}},
		"a retired key, later":        {signed(snapshot.SignedManifest, manifest(12, nil), 1), ExitDrift, []string{"made at 2026-11-12T12:00:00Z, and the key was retired at 2026-11-10T12:00:00Z", "→ its clock was wrong, a machine that was given up has gone on"}},
		"a key before it was there":   {signed(snapshot.SignedManifest, manifest(5, nil), 2), ExitDrift, []string{"made at 2026-11-05T12:00:00Z, and the key is in use from 2026-11-10T12:00:00Z on"}},
		"that, by a clock in doubt":   {signed(snapshot.SignedManifest, manifest(5, doubted), 2), ExitOK, []string{"note: its date is of a clock that was in doubt, as it says itself", "good: "}},
		"altered":                     {replaced(m, `"raft_index": 42`, `"raft_index": 43`), ExitDrift, []string{"it has been changed since it was signed", "→ do not rely on it"}},
		"altered into nonsense":       {replaced(m, `"raft_index": 42`, `"raft_index": 0`), ExitDrift, []string{"it has been changed since it was signed"}},
		"a member more":               {replaced(m, `"signature"`, `"note": 1, "signature"`), ExitDrift, []string{`unknown member "note"`}},
		"a report called a manifest":  {replaced(signed(report.SignedReport, passed, 3), `"report"`, `"manifest"`), ExitDrift, []string{"is of the role drill, and it is snapshot that signs this"}},
		"a manifest called a report":  {replaced(m, `"manifest"`, `"report"`), ExitDrift, []string{"is of the role snapshot, and it is drill that signs this"}},
		"of a later format":           {signed(snapshot.SignedManifest, future, 1), ExitDrift, []string{"format: 9, this program reads 1", "→ a newer version of this program"}},
		"a proof, which nobody signs": {[]byte(`{"id": "one/x", "verified_at": "2026-11-05T12:00:00Z"}`), ExitDrift, []string{`it is nothing that a job signs: no snapshot manifest ("manifest") and no drill report ("report")`}},
		"the snapshot itself":         {[]byte("age-encryption.org/v1\n"), ExitDrift, []string{"it is no JSON object"}},
		"nothing":                     {nil, ExitDrift, []string{"it is no JSON object"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file.json")
			if err := os.WriteFile(file, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			code, out := runDrillCLI(t, "verify", file, "--keyring", keyring)
			if code != c.code {
				t.Errorf("exit code %d, want %d:\n%s", code, c.code, out)
			}
			says(t, out, c.says...)
			if c.code != ExitOK && strings.Contains(out, "good: the") {
				t.Errorf("it is called good:\n%s", out)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "m.json")
	if err := os.WriteFile(file, m, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no file":      {[]string{file + ".none", "--keyring", keyring}, "no such file"},
		"no keyring":   {[]string{file, "--keyring", file + ".none"}, "→ give the keyring.json of the machine's escrow"},
		"no keyring's": {[]string{file, "--keyring", file}, "keyring: format 0"},
		"nothing":      {nil, "accepts 1 arg(s)"},
	} {
		if code, out := runDrillCLI(t, append([]string{"verify"}, c.args...)...); code != ExitUsage || !strings.Contains(out, c.says) {
			t.Errorf("%s: exit code %d:\n%s", name, code, out)
		}
	}
}
