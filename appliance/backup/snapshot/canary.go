package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// CanaryPath is where the canary lies in the KV version 2 engine at secret/.
const CanaryPath = "secret/data/strongroom/canary"

// canaryBytes of randomness are in a canary, so that its hash tells nobody what
// it is.
const canaryBytes = 32

// Canary is what a drill must find in a snapshot: a secret that was written just
// before it. The manifest holds its hash, never the value.
type Canary struct {
	Version   int64     `json:"version"`
	SHA256    string    `json:"sha256"` // of the value
	WrittenAt time.Time `json:"written_at"`
}

// Writer is the part of Vault's client that WriteCanary needs.
type Writer interface {
	// Write writes data to path, and gives what Vault answers.
	Write(ctx context.Context, path string, data map[string]any) (vaultapi.Data, error)
}

// CanaryOptions of WriteCanary.
type CanaryOptions struct {
	// Vault has a token that may write the canary and need be able to do
	// nothing else.
	Vault Writer
	Host  string
	Now   func() time.Time // time.Now when nil
	Rand  io.Reader        // crypto/rand when nil
}

// WriteCanary writes a new canary. The snapshot that is taken next holds it.
func WriteCanary(ctx context.Context, o CanaryOptions) (*Canary, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	raw := make([]byte, canaryBytes)
	if _, err := io.ReadFull(o.Rand, raw); err != nil {
		return nil, fmt.Errorf("make canary: %w", err)
	}
	value, at := hex.EncodeToString(raw), o.Now().UTC()
	s, err := o.Vault.Write(ctx, CanaryPath, map[string]any{
		"data": map[string]any{"value": value, "time": at.Format(time.RFC3339Nano), "host": o.Host},
	})
	if err != nil {
		return nil, fmt.Errorf("write canary: %w", err)
	}
	version, err := s.Number("version")
	if err != nil {
		return nil, fmt.Errorf("write canary: is secret/ a KV version 2 engine? %w", err)
	}
	return &Canary{Version: version, SHA256: CanarySum(value), WrittenAt: at}, nil
}

// CanarySum is the hash of a canary's value that a manifest holds.
func CanarySum(value string) string { return sha256Hex([]byte(value)) }
