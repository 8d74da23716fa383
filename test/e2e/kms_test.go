package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom.example/appliance/serve/kms"
	"strongroom.example/test/vaulttest"
)

// recordingKMS answers Vault with a keyset and notes the version of each
// ciphertext that Vault brings.
type recordingKMS struct {
	handler http.Handler

	mu        sync.Mutex
	decrypted []string
}

func (k *recordingKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var in struct {
		Ciphertext string `json:"ciphertext"`
	}
	if json.Unmarshal(body, &in) == nil && in.Ciphertext != "" {
		k.mu.Lock()
		k.decrypted = append(k.decrypted, strings.Split(in.Ciphertext, ":")[1])
		k.mu.Unlock()
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	k.handler.ServeHTTP(w, r)
}

// taken gives the versions since the last call.
func (k *recordingKMS) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.decrypted
	k.decrypted = nil
	return out
}

// After a rotation Vault unseals with the old version once, re-encrypts its
// seal, and from then on needs the new version alone.
func TestKMSRotationReachesVaultsSeal(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	if err := s.KMS.Stop(); err != nil {
		t.Fatal(err)
	}
	next, err := s.Keyset.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.Layout.KMSSocket()); err != nil {
		t.Fatal(err)
	}
	ln, err := kms.Listen(s.Layout.KMSSocket(), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	rec := &recordingKMS{handler: (&kms.Server{Keyset: next}).Handler()}
	srv := &http.Server{Handler: rec, ReadHeaderTimeout: time.Minute}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })

	s.KillAndWait(t)
	if got := rec.taken(); !slices.Contains(got, "v1") {
		t.Fatalf("the first start after the rotation decrypts %q, want v1 among them", got)
	}
	s.KillAndWait(t)
	if got := rec.taken(); len(got) == 0 || slices.Contains(got, "v1") {
		t.Fatalf("the second start after the rotation decrypts %q, want v2 alone", got)
	}
}

// A Vault that is killed is unsealed within two seconds of its start, where the
// machine has two cores for it.
func BenchmarkUnsealAfterKill(b *testing.B) {
	s := vaulttest.New(b)
	for b.Loop() {
		s.KillAndWait(b)
	}
}
