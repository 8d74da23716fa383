package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// kvFake answers as KV version 2 does and remembers what was written.
type kvFake struct {
	path   string
	value  string
	answer vaultapi.Data
	err    error
}

func (k *kvFake) Write(_ context.Context, path string, data map[string]any) (vaultapi.Data, error) {
	k.path = path
	if inner, ok := data["data"].(map[string]any); ok {
		k.value, _ = inner["value"].(string)
	}
	return k.answer, k.err
}

func versionAnswer(v any) vaultapi.Data { return vaultapi.Data{"version": v} }

func TestWriteCanary(t *testing.T) {
	k := &kvFake{answer: versionAnswer(json.Number("7"))}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 3600))
	c, err := WriteCanary(t.Context(), CanaryOptions{Vault: k, Host: "box", Now: func() time.Time { return at }, Rand: bytes.NewReader(bytes.Repeat([]byte{7}, canaryBytes))})
	if err != nil {
		t.Fatal(err)
	}
	if k.path != CanaryPath || k.value != strings.Repeat("07", canaryBytes) {
		t.Errorf("wrote %q to %q", k.value, k.path)
	}
	if c.Version != 7 || !c.WrittenAt.Equal(at) || c.SHA256 != CanarySum(k.value) {
		t.Errorf("canary %+v", c)
	}
	// The hash is in the manifest, the value nowhere.
	o := takeOptions(t, newKeys(t), bytesSource(buildArchive(t, archiveSpec{})), newMem("one"))
	o.Canary = c
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	m := taken.Manifest
	text, err := m.encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(k.value)) {
		t.Error("the manifest holds the canary's value")
	}
	got, err := ParseManifest(text)
	if err != nil || got.Canary == nil || got.Canary.SHA256 != c.SHA256 {
		t.Errorf("read back %+v, %v", got.Canary, err)
	}
	m.Canary = &Canary{Version: 0, SHA256: c.SHA256}
	if text, err = m.encode(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseManifest(text); !errors.Is(err, ErrCorrupt) {
		t.Errorf("version 0: %v", err)
	}
}

func TestWriteCanaryFails(t *testing.T) {
	refused := errors.New("permission denied")
	tests := []struct {
		name string
		kv   *kvFake
		rand bool
	}{
		{"refused", &kvFake{err: refused}, false},
		{"an empty answer", &kvFake{}, false},
		{"version 1 of the engine", &kvFake{answer: vaultapi.Data{"x": "y"}}, false},
		{"a version that is no number", &kvFake{answer: versionAnswer(json.Number("x"))}, false},
		{"no randomness", &kvFake{answer: versionAnswer(json.Number("1"))}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := CanaryOptions{Vault: tt.kv}
			if tt.rand {
				o.Rand = iotest.ErrReader(errors.New("no entropy"))
			}
			c, err := WriteCanary(t.Context(), o)
			if err == nil || c != nil {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

// A canary that could not be written is recorded and stops no backup; the next
// good run clears it.
func TestTakeRecordsCanary(t *testing.T) {
	o := takeOptions(t, newKeys(t), bytesSource(buildArchive(t, archiveSpec{})), newMem("one"))
	o.CanaryFailure = errors.New("permission denied")
	if _, err := Take(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s, err := LoadTakeState(o.StateDir)
	if err != nil || s.Failure != nil || s.CanaryFailure == nil || s.Last["one"].ID == "" {
		t.Fatalf("state %+v, %v", s, err)
	}
	o.CanaryFailure, o.Canary = nil, &Canary{Version: 3, SHA256: CanarySum("x")}
	taken, err := Take(t.Context(), o)
	if err != nil || taken.Manifest.Canary.Version != 3 {
		t.Fatalf("%+v, %v", taken, err)
	}
	if s, err = LoadTakeState(o.StateDir); err != nil || s.CanaryFailure != nil {
		t.Errorf("state %+v, %v", s, err)
	}
}
