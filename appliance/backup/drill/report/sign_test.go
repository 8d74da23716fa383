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
	if err := verify(good, public(testKey(2))); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	if err := verify(encode(t, sampleReport(), nil), public(key)); !errors.Is(err, ErrNotSigned) {
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
	if err := verify(append(bytes.Clone(report), signature...), public(key)); !errors.Is(err, ErrSignature) {
		t.Errorf("another report's signature: %v", err)
	}
}

// Whatever one byte is changed to, the file is refused, or says the same: white
// space between tokens is not signed.
func TestSignatureEveryByte(t *testing.T) {
	key := testKey(1)
	good := encode(t, sampleReport(), key)
	s, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	want, err := signedMessage(s.raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, flip := range []byte{1, 0x20, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			s, err := Parse(bad)
			if err != nil || s.Verify(public(key)) != nil {
				continue
			}
			if got, err := signedMessage(s.raw); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("byte %d changed by %#x: the signature is good, the report is another", i, flip)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, data string }{
		{"nothing", ""},
		{"no object", "[]"},
		{"no report", "{}"},
		{"another format", `{"report": {"format": 2}}`},
		{"an unknown name", `{"report": {"format": 1}, "verdict": "passed"}`},
		{"two reports", `{"report": {"format": 1}, "report": {"format": 1, "passed": true}}`},
		{"two, in another case", `{"report": {"format": 1}, "Report": {"format": 1, "passed": true}}`},
		{"something after it", `{"report": {"format": 1}} {}`},
		{"a bracket after it", `{"report": {"format": 1}}}`},
		{"too long", `{"report": {"format": 1, "host": "` + strings.Repeat("x", maxReport) + `"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s, err := Parse([]byte(tt.data)); err == nil {
				t.Errorf("taken: %+v", s.Report)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	key := testKey(1)
	good, err := Encode(sampleReport(), key)
	if err != nil {
		f.Fatal(err)
	}
	good0, err := Parse(good)
	if err != nil {
		f.Fatal(err)
	}
	want, err := signedMessage(good0.raw)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"report": {"format": 1}, "signature": {"algorithm": "ed25519"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil || s.Verify(public(key)) != nil {
			return
		}
		if got, err := signedMessage(s.raw); err != nil || !bytes.Equal(got, want) {
			t.Errorf("forged: %q", data)
		}
	})
}

func TestKeys(t *testing.T) {
	key := testKey(3)
	seed := base64.StdEncoding.EncodeToString(key.Seed())
	got, err := ParseSigningKey([]byte(seed + "\n"))
	if err != nil || !got.Equal(key) {
		t.Errorf("signing key: %v", err)
	}
	for _, bad := range []string{"", "x", seed[:20], seed + "AAAA"} {
		if _, err := ParseSigningKey([]byte(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) && len(bad) > 1 {
			t.Errorf("%d characters: %v", len(bad), err)
		}
	}
	line := EncodePublicKey(public(key))
	for _, text := range []string{string(line), strings.TrimPrefix(string(line), "ed25519 ")} {
		if p, err := ParsePublicKey([]byte(text)); err != nil || !p.Equal(public(key)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParsePublicKey([]byte("ed25519 AAAA")); err == nil {
		t.Error("a short public key is taken")
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
