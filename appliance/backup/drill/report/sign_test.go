package report

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/signing"
)

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func sampleReport() *Report {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	return &Report{
		Format: Format, Kind: KindDrill, Host: "box <&>", StartedAt: at, FinishedAt: at.Add(time.Minute), Passed: true,
		RPOSeconds: 90, RTOSeconds: 8.25, Snapshot: Snapshot{ID: "c/x", TakenAt: at},
		Checks: []Check{{"canary", Pass, "version 1", ""}, {"engine", Fail, "it is not fenced", "report this"}},
		Steps:  []Timing{{"restore", 5}},
		Found:  &Found{Mounts: map[string]string{"App/": "kv 2", "app/": "kv 1"}},
	}
}

func encode(t *testing.T, r *Report, key ed25519.PrivateKey) []byte {
	t.Helper()
	b, err := Encode(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compact(t *testing.T, r *Report) []byte {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func verify(data []byte, key ed25519.PublicKey) error {
	s, err := Parse(data)
	if err != nil {
		return err
	}
	return s.Verify(key)
}

func TestSignature(t *testing.T) {
	key := testKey(1)
	good := encode(t, sampleReport(), key)
	if err := verify(good, public(key)); err != nil {
		t.Fatal(err)
	}
	var short, wide bytes.Buffer
	if err := errors.Join(json.Compact(&short, good), json.Indent(&wide, good, "", "\t\t")); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"in one line": short.Bytes(), "laid out anew": wide.Bytes()} {
		if err := verify(b, public(key)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Reports that were signed before are good for ever.
	message := append([]byte("strongroom drill report v1\n"), compact(t, sampleReport())...)
	if !bytes.Contains(good, []byte(base64.StdEncoding.EncodeToString(ed25519.Sign(key, message)))) {
		t.Errorf("what is signed is another text than ever:\n%s", good)
	}
	if err := verify(good, public(testKey(2))); !errors.Is(err, signing.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	if err := verify(encode(t, sampleReport(), nil), public(key)); !errors.Is(err, signing.ErrNotSigned) {
		t.Errorf("not signed: %v", err)
	}
	// A signature of another report.
	other := sampleReport()
	other.Host = "elsewhere"
	otherFile := encode(t, other, key)
	cut := func(b []byte) (report, signature []byte) {
		i := bytes.Index(b, []byte(`"signature"`))
		return b[:i], b[i:]
	}
	report, _ := cut(good)
	_, signature := cut(otherFile)
	if err := verify(append(bytes.Clone(report), signature...), public(key)); !errors.Is(err, signing.ErrSignature) {
		t.Errorf("another report's signature: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, data string }{
		{"no report", "{}"},
		{"another format", `{"report": {"format": 2}}`},
		{"an unknown name", `{"report": {"format": 1}, "verdict": "passed"}`},
		{"two, in another case", `{"report": {"format": 1}, "Report": {"format": 1, "passed": true}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s, err := Parse([]byte(tt.data)); err == nil {
				t.Errorf("taken: %+v", s.Report)
			}
		})
	}
}

func TestText(t *testing.T) {
	r := sampleReport()
	r.Passed, r.Failure = false, "it\nended"
	text := r.Text()
	for _, want := range []string{"drill of 2026-11-24T12:00:00Z on box <&>: FAILED", "RPO          1m30s", "RTO          8.25s", "→ report this", "ended early"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if got := r.Failed(); len(got) != 1 || got[0].Name != "engine" {
		t.Errorf("failed checks %+v", got)
	}
}
