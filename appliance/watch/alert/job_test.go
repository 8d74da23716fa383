package alert

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestJobFailed(t *testing.T) {
	var got Body
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
	}))
	url := srv.URL + "/" + canary
	hook, _, err := OpenWebhook("f", func(string) ([]byte, error) { return []byte(url + "\n"), nil })
	if err != nil {
		t.Fatal(err)
	}
	tell := func() error {
		return hook.JobFailed(t.Context(), "snapshot take", "vault-1", event.At, errors.New("the place "+canary+" is full"), canary)
	}
	if err := tell(); err != nil {
		t.Fatal(err)
	}
	if got.Event != "strongroom.snapshot.take.failed" || got.Host != "vault-1" || !got.Time.Equal(event.At) ||
		got.Text != "strongroom on vault-1: snapshot take failed: "+got.Error || !strings.HasSuffix(got.Error, "is full") {
		t.Errorf("%+v", got)
	}
	if strings.Contains(got.Text+got.Error, canary) {
		t.Error("the secret is told")
	}
	srv.Close()
	if err := tell(); err == nil || !strings.HasPrefix(err.Error(), hook.Name()+": ") || strings.Contains(err.Error(), canary) {
		t.Errorf("a webhook that is down: %v", err)
	}
}
