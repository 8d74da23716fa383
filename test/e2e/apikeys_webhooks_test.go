package e2e

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// hookReceiver answers with a status that the test sets, and hands on the ids
// and versions of the events that it was sent.
type hookReceiver struct {
	*httptest.Server
	status atomic.Int64
	got    chan [2]string
}

func newHookReceiver(t *testing.T) *hookReceiver {
	t.Helper()
	r := &hookReceiver{got: make(chan [2]string, 100)}
	r.status.Store(http.StatusServiceUnavailable)
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		var event struct {
			ID   string
			Data map[string]string
		}
		if err != nil || json.Unmarshal(raw, &event) != nil || event.ID != req.Header.Get("Strongroom-Delivery") {
			t.Errorf("a body that is no event, or has another id than its header: %v", err)
		}
		if !strings.HasPrefix(req.Header.Get("Strongroom-Signature"), "t=") {
			t.Error("an event without a signature")
		}
		w.WriteHeader(int(r.status.Load()))
		r.got <- [2]string{event.ID, event.Data["version"]}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *hookReceiver) next(t *testing.T) (id, version string) {
	t.Helper()
	select {
	case e := <-r.got:
		return e[0], e[1]
	case <-time.After(vaulttest.Patience):
		t.Fatal("no event came")
		return "", ""
	}
}

// A receiver that was down while keys rotated is told of every rotation after
// Vault was killed, in order, and of the first under the id that it saw before.
func TestWebhooksOutliveAKilledVault(t *testing.T) {
	s := keyedVault(t, "1h")
	r := newHookReceiver(t)
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "apikeys/webhooks/ops", map[string]any{
		"url": r.URL, "secret": "0123456789abcdef0123456789abcdef", "events": "rotate", "allow_addresses": "127.0.0.1",
		"ca_pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})),
	}); err != nil {
		t.Fatal(err)
	}
	const rotations = 4
	for range rotations {
		rotate(t, s)
	}
	first, _ := r.next(t)
	r.status.Store(http.StatusNoContent)
	s.KillAndWait(t)
	// Each comes at least once: an answer that is lost, or late, brings it again.
	seen := map[string]bool{}
	for want := range rotations {
		id, version := r.next(t)
		for seen[id] {
			id, version = r.next(t)
		}
		seen[id] = true
		if want == 0 && id != first {
			t.Errorf("the first event came back as %s, it was %s", id, first)
		}
		if version != string(rune('2'+want)) {
			t.Errorf("event %d tells of version %s, want %d", want+1, version, want+2)
		}
	}
}
