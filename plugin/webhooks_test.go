package apikeys

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

const hookSecret = "0123456789abcdef"

// receiver is a server that webhooks are sent to.
type receiver struct {
	*httptest.Server
	got    chan *received
	status atomic.Int64
}

type received struct {
	event     hookEvent
	raw       string
	signature string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{got: make(chan *received, 100)}
	r.status.Store(200)
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		e := &received{raw: string(raw), signature: req.Header.Get(SignatureHeader)}
		if err := json.Unmarshal(raw, &e.event); err != nil {
			t.Error(err)
		}
		status := int(r.status.Load())
		w.WriteHeader(status)
		r.got <- e
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) next(t *testing.T) *received {
	t.Helper()
	select {
	case e := <-r.got:
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
		return nil
	}
}

// hook registers a webhook to the receiver, and makes its pauses short.
func (w *world) hook(r *receiver, extra map[string]any) {
	w.t.Helper()
	w.b.hooks.pause = func(ctx context.Context, _ time.Duration) {}
	data := map[string]any{
		"url": r.URL + "/hook", "secret": hookSecret, "allow_addresses": "127.0.0.1,::1",
		"ca_pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})),
	}
	for k, v := range extra {
		data[k] = v
	}
	w.write("webhooks/h", data)
}

func TestWebhookIsSignedAndHoldsNoSecret(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.remoteKey("app/k", nil)
	w.hook(r, map[string]any{"events": "rotate,rotate-*"})
	w.write("rotate/app/k", nil)
	got := r.next(t)
	if got.event.Type != "rotate" || got.event.Key != "app/k" || got.event.Data["version"] != "2" || got.event.ID == "" || got.event.Mount == "" {
		t.Errorf("%+v", got.event)
	}
	if want := sign(hookSecret, w.clock.Wall(), []byte(got.raw)); got.signature != want {
		t.Errorf("signature %s, want %s", got.signature, want)
	}
	if strings.Contains(got.raw, w.read("creds/app/k", nil)["key"].(string)) || strings.Contains(got.raw, hookSecret) {
		t.Error("a secret is in it")
	}
	w.write("rotate/app/k", map[string]any{"compromised": true}) // emits compromised, rotate and revoke
	if kind := r.next(t).event.Type; kind != "rotate" {
		t.Errorf("got %s, which was not asked for", kind)
	}
	shown := w.read("webhooks/h", nil)
	if _, ok := shown["secret"]; ok || shown["url"] != r.URL+"/hook" {
		t.Errorf("%v", shown)
	}
}

func TestSignature(t *testing.T) {
	// echo -n '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
	const want = "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e"
	if got := sign(hookSecret, time.Unix(1700000000, 0), []byte("{}")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWebhookIsTriedAgainAndGivesUp(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	gate := make(chan struct{})
	w.b.hooks.pause = func(context.Context, time.Duration) { <-gate }
	r.status.Store(503)
	w.write("rotate/k", nil)
	first := r.next(t)
	r.status.Store(204)
	gate <- struct{}{}
	if again := r.next(t); again.event.ID != first.event.ID {
		t.Errorf("the event came back as another one")
	}
	w.eventually(func() bool { return w.deliveries()["delivered"] == int64(1) })
	close(gate)
	r.status.Store(404)
	w.write("rotate/k", nil)
	for range hookTries {
		r.next(t)
	}
	w.eventually(func() bool { return w.deliveries()["failed"] == int64(1) })
	if got := w.deliveries()["last_error"]; got != "the receiver answered 404" {
		t.Errorf("last_error %v", got)
	}
	if got := w.read("status", nil)["webhooks"].(map[string]any)["h"].(map[string]any)["failed"]; got != int64(1) {
		t.Errorf("status: %v", got)
	}
}

func (w *world) deliveries() map[string]any {
	w.t.Helper()
	return w.read("webhooks/h", nil)["deliveries"].(map[string]any)
}

// eventually waits for another goroutine.
func (w *world) eventually(cond func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-deadline:
			w.t.Fatal("it never came true")
		default:
			runtime.Gosched()
		}
	}
}

func TestWebhookThatHangsHoldsUpNothing(t *testing.T) {
	w := newWorld(t, remoteCaps())
	release := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	w.localKey("k", nil)
	w.hook(&receiver{Server: server}, nil)
	for range hookQueue + 50 {
		w.b.emit(t.Context(), "rotate", "k")
	}
	w.eventually(func() bool { return w.deliveries()["dropped"].(int64) >= 49 })
	close(release)
	w.b.hooks.close()
}

func TestWebhooksOutliveARestartAndCanBeChanged(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	w.start()
	w.write("rotate/k", nil)
	if got := r.next(t).event.Type; got != "rotate" {
		t.Errorf("%s", got)
	}
	w.write("webhooks/h", map[string]any{"events": "revoke"})
	w.write("rotate/k", nil)
	if _, err := w.do(opDelete, "versions/k", map[string]any{"version": 1, "force": true}); err != nil {
		t.Fatal(err)
	}
	got := r.next(t).event.Type
	if got == "webhook-update" { // it wanted all until then, and may have been told of the change
		got = r.next(t).event.Type
	}
	if got != "revoke" {
		t.Errorf("%s came, although only revoke is wanted", got)
	}
	if list, err := w.do(opList, "webhooks/", nil); err != nil || len(list.Data["keys"].([]string)) != 1 {
		t.Errorf("%v %v", list, err)
	}
	if _, err := w.do(opDelete, "webhooks/h", nil); err != nil {
		t.Fatal(err)
	}
	w.start()
	if resp, err := w.do(opRead, "webhooks/h", nil); resp != nil || err != nil {
		t.Errorf("%v %v", resp, err)
	}
}

func TestRedirectOfAWebhookIsNotFollowed(t *testing.T) {
	w := newWorld(t, remoteCaps())
	inside := newReceiver(t)
	server := httptest.NewTLSServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	w.localKey("k", nil)
	w.hook(&receiver{Server: server}, nil)
	w.write("rotate/k", nil)
	w.eventually(func() bool { return w.deliveries()["failed"] == int64(1) })
	if len(inside.got) != 0 {
		t.Error("it was followed")
	}
}

func TestCompromisedProvider(t *testing.T) {
	w, old := compromisedWorld(t)
	resp := w.write("providers/svc/rotate", map[string]any{"compromised": true})
	if resp.Data["marked_keys"] != 3 {
		t.Errorf("%v", resp.Data)
	}
	for _, name := range []string{"k0", "k1", "k2"} {
		if _, err := w.do(opRead, "creds/"+name, nil); err == nil {
			t.Errorf("%s is still given to readers", name)
		}
	}
	w.tick()
	checkCompromised(t, w, old)
}

func compromisedWorld(t *testing.T) (*world, []string) {
	w := newWorld(t, remoteCaps())
	w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 1})
	var old []string
	for _, name := range []string{"k0", "k1", "k2"} {
		w.remoteKey(name, nil)
		w.write("rotate/"+name, nil)
	}
	for _, k := range w.remote.keys {
		old = append(old, k.value)
	}
	return w, old
}

func checkCompromised(t *testing.T, w *world, old []string) {
	t.Helper()
	for _, value := range old {
		if w.remote.works(value) {
			t.Errorf("%s still works", value)
		}
	}
	if err := settled(w, remoteCaps()); err != nil {
		t.Error(err)
	}
}

func TestCompromisedProviderGoesOnAfterACrash(t *testing.T) {
	for n := 1; ; n++ {
		w, old := compromisedWorld(t)
		cr := &crasher{at: n}
		w.storage.setFault(cr.storage)
		w.remote.setFault(cr.service)
		_, err := w.do(opWrite, "providers/svc/rotate", map[string]any{"compromised": true})
		asked := err == nil || len(w.storage.writes()) > 0
		w.storage.setFault(nil)
		w.remote.setFault(nil)
		if !cr.hit() {
			if n < 3 { // one write, before and after
				t.Errorf("only %d points were reached", n)
			}
			return
		}
		w.start()
		if c, err := (store{w.storage}).campaigns(t.Context()); err != nil || (asked && len(c) == 0 && n > 1 && n < 8) {
			t.Fatalf("point %d (%s): the campaign is forgotten: %v", n, cr.where, err)
		}
		if n == 1 { // before the first write nothing has been promised
			w.write("providers/svc/rotate", map[string]any{"compromised": true})
		}
		for range 5 {
			w.pass(time.Minute)
		}
		checkCompromised(t, w, old)
	}
}

func TestCompromisedKeyThatMakesItsOwnSuccessor(t *testing.T) {
	caps := remoteCaps()
	caps.FromCurrent, caps.Overlap = true, false
	for name, broken := range map[string]bool{"it can": false, "it cannot": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, caps)
			w.write("providers/svc", map[string]any{"type": "remote"})
			w.write("keys/k", map[string]any{"provider": "svc"})
			w.remote.keys["x"] = &serviceKey{id: "x", value: "brought", alive: true}
			w.write("import/k", map[string]any{"key": "brought", "provider_key_id": "x"})
			if broken {
				w.remote.setFault(failing("create", provider.KindTransient))
			}
			w.write("providers/svc/rotate", map[string]any{"compromised": true})
			for range 5 {
				w.pass(time.Second)
			}
			if w.remote.works("brought") {
				t.Error("the compromised one still works")
			}
			_, err := w.do(opRead, "creds/k", nil)
			if (err != nil) != broken {
				t.Errorf("reading it: %v", err)
			}
		})
	}
}

func TestCredentialThatIsAKeyItself(t *testing.T) {
	w := newWorld(t, remoteCaps())
	seen := func(name string) string {
		p, err := w.b.provider(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return p.(*serviceClient).credential[provider.PrimaryValue]
	}
	w.write("providers/svc", map[string]any{"type": "remote", "credential": "key=by-hand"})
	w.remoteKey("ops/svc", map[string]any{"grace_period": "1d"})
	w.write("providers/svc", map[string]any{"credential": map[string]any{}, "credential_key": "ops/svc"})
	w.start() // the provider is built from a key that is made with it
	if got, want := seen("svc"), w.read("creds/ops/svc", nil)["key"]; got != want {
		t.Errorf("credential %s, want %s", got, want)
	}
	resp := w.write("providers/svc/rotate", nil)
	if resp.Data["credential"].(map[string]any)["version"] != 2 {
		t.Errorf("%v", resp.Data)
	}
	if got, want := seen("svc"), w.read("creds/ops/svc", nil)["key"]; got != want {
		t.Errorf("after a rotation: credential %s, want %s", got, want)
	}
	w.refused(opDelete, "keys/ops/svc", nil, `provider "svc"`)
	w.remoteKey("app/k", nil)
	resp = w.write("providers/svc/rotate", map[string]any{"compromised": true})
	if resp.Data["marked_keys"] != 1 {
		t.Errorf("%v: the credential itself is replaced already", resp.Data)
	}
	w.tick()
	if err := settled(w, remoteCaps()); err != nil {
		t.Error(err)
	}
	if got := w.read("providers/svc", nil); got["credential_key"] != "ops/svc" || len(got["credential_fields"].([]string)) != 0 {
		t.Errorf("%v", got)
	}
	if list, err := w.do(opList, "providers/", nil); err != nil || len(list.Data["keys"].([]string)) != 1 {
		t.Errorf("%v %v", list, err)
	}
}
