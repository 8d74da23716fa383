package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// stallLimit tells a read that is merely slow on a busy machine from one that
// is locked out until the waits end by themselves, after 60 s.
const stallLimit = 40 * time.Second

// A thousand clients in a long poll hold Vault's locks for reading. Whoever
// reloads the plugin ends the waits first, and then nobody else notices.
func TestReloadWithThousandWaiters(t *testing.T) {
	s := keyedVault(t, "1h")
	// In the first seconds after its initialisation Vault wants its state lock
	// once for itself; a restarted one does not.
	s.KillAndWait(t)
	const clients = 1000
	var waiters sync.WaitGroup
	answers := make(chan int, clients)
	for range clients {
		waiters.Go(func() {
			status, err := pollOnce(s, 1, 60)
			if err != nil {
				t.Errorf("a waiting client: %v", err)
				return
			}
			answers <- status
		})
	}
	awaitWaiting(t, s, clients)

	// Reads go on all the while; the longest gap between two is what counts.
	ctx, stop := context.WithCancel(t.Context())
	var longest time.Duration
	var reader sync.WaitGroup
	reader.Go(func() {
		c := vaulttest.API(s.Client(t, s.RootToken))
		last := time.Now()
		for ctx.Err() == nil {
			if _, err := c.Logical().ReadWithContext(ctx, "apikeys/creds/"+clientKey); err == nil {
				longest = max(longest, time.Since(last))
				last = time.Now()
			}
		}
	})
	l := vaulttest.API(s.Root).Logical()
	began := time.Now()
	if _, err := l.WriteWithContext(t.Context(), "apikeys/config", map[string]any{"max_wait": 0}); err != nil {
		t.Fatal(err)
	}
	waiters.Wait()
	ended := time.Since(began)
	if _, err := l.WriteWithContext(t.Context(), "sys/plugins/reload/backend", map[string]any{"mounts": "apikeys/"}); err != nil {
		t.Fatal(err)
	}
	reloaded := time.Since(began)
	current(t, s)
	stop()
	reader.Wait()
	close(answers)
	for status := range answers {
		if status != http.StatusNotModified {
			t.Errorf("a client whose wait was ended got %d, want 304", status)
		}
	}
	t.Logf("%d waits ended after %v, the plugin was reloaded after %v; no read stalled for longer than %v",
		clients, ended.Round(time.Millisecond), reloaded.Round(time.Millisecond), longest.Round(time.Millisecond))
	if longest > stallLimit || ended > stallLimit {
		t.Errorf("reads stalled for %v, the waits took %v to end", longest, ended)
	}
}

// awaitWaiting returns once the engine counts n waiting reads.
func awaitWaiting(t *testing.T, s *vaulttest.Server, n int) {
	t.Helper()
	deadline := time.Now().Add(50 * time.Second)
	for {
		st, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "apikeys/status")
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(st.Data["waiting_reads"]) == fmt.Sprint(n) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v of %d clients wait", st.Data["waiting_reads"], n)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// pollOnce is one long poll over a connection of its own; the answer's status.
func pollOnce(s *vaulttest.Server, version, seconds int) (int, error) {
	var conn net.Conn
	var err error
	// The listen queue is short, and a thousand come at once.
	for range 2000 {
		if conn, err = net.Dial("unix", s.Layout.VaultSocket()); err == nil {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET /v1/apikeys/creds/%s?if_version=%d&wait=%d HTTP/1.1\r\nHost: vault\r\nX-Vault-Request: true\r\nX-Vault-Token: %s\r\n\r\n",
		clientKey, version, seconds, s.RootToken)
	if err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
