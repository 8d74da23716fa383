package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	still "strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

// attack is what one of a stranger's machines does again and again; it has an address of
// its own.
type attack struct {
	name string
	do   func(a *attacker)
}

type attacker struct {
	ctx    context.Context
	source string
	url    string
	conf   *tls.Config
	client *http.Client
}

// send makes a request without a token, and does not care how it ends.
func (a *attacker) send(method, path, body string, headers ...string) {
	req, err := http.NewRequestWithContext(a.ctx, method, a.url+path, strings.NewReader(body))
	if err != nil {
		return
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if res, err := a.client.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// raw opens a connection, writes, and keeps it for a while.
func (a *attacker) raw(handshake bool, text string, hold time.Duration) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(a.source)}, Timeout: 5 * time.Second}
	conn, err := d.DialContext(a.ctx, "tcp", strings.TrimPrefix(a.url, "https://"))
	if err != nil {
		return
	}
	defer conn.Close()
	if handshake {
		t := tls.Client(conn, a.conf)
		if t.HandshakeContext(a.ctx) != nil {
			return
		}
		conn = t
	}
	_, _ = io.WriteString(conn, text)
	_ = still.For(a.ctx, hold)
}

var attacks = []attack{
	{"connections", func(a *attacker) { a.raw(true, "", 2*time.Second) }},
	{"no handshake", func(a *attacker) { a.raw(false, "", 2*time.Second) }},
	{"slow headers", func(a *attacker) { a.raw(true, "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nX", 2*time.Second) }},
	{"wraps", func(a *attacker) { a.send("GET", "/v1/sys/internal/ui/mounts", "", "X-Vault-Wrap-TTL", "768h") }},
	{"bodies", func(a *attacker) {
		a.send("POST", "/v1/secret/data/x", `{"data":{"a":[`+strings.TrimSuffix(strings.Repeat(`"",`, 29_000), ",")+`]}}`)
	}},
	{"refused", func(a *attacker) { a.send("GET", "/v1/sys/raw/"+strings.Repeat("x", 2000), "") }},
	{"broken answers", func(a *attacker) { a.raw(true, "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n", 0) }},
	{"log-ins", func(a *attacker) { a.send("POST", "/v1/auth/userpass/login/anna", `{"password":"wrong"}`) }},
}

// weight is what an attack may leave behind.
type weight struct {
	tokens         int
	vault, front   int64 // resident, bytes
	audit, journal int64 // bytes
}

func (h *attackedHour) weigh() weight {
	h.t.Helper()
	w := weight{tokens: tokenAccessors(h.t, h.s), audit: auditBytes(h.t, h.s)}
	front, err := h.frontPID()
	if err == nil {
		w.front, err = proc.Resident(front)
	}
	if err == nil {
		w.vault, err = proc.Resident(h.s.Process.PID())
	}
	var fi os.FileInfo
	if err == nil {
		fi, err = os.Stat(h.s.Layout.Log("front"))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	w.journal = fi.Size()
	return w
}

// frontPID is the front's: the process that was started with this configuration.
func (h *attackedHour) frontPID() (int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range lines {
		if args, err := os.ReadFile(file); err == nil && strings.Contains(string(args), h.s.Layout.FrontConfig()) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errors.New("no process has the front's configuration")
}

type attackedHour struct {
	t   *testing.T
	s   *vaulttest.Server
	url string
}

// good reads a secret ten times a second, until ctx ends, and gives the time of each read.
func (h *attackedHour) good(ctx context.Context, c *http.Client) (took []time.Duration, failed int) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return took, failed
		case <-tick.C:
		}
		start := time.Now()
		status, _ := ask(h.t, c, "GET", h.url+"/v1/secret/data/good", h.s.RootToken, "")
		took = append(took, time.Since(start))
		if status != http.StatusOK {
			failed++
		}
	}
}

func p99(took []time.Duration) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// An attacker's hour: each attack from forty addresses, beside a client that reads. The
// client is served all the time, and nothing is left behind: no token, no audit history to
// speak of, a bound of the journal, no memory. In make test each attack is short.
// Forged packets are TestSYNFlood's.
func TestFrontInAnAttackersHour(t *testing.T) {
	long := os.Getenv("STRONGROOM_SOAK") == "1"
	each := time.Second
	if long {
		each = 7 * time.Minute
	}
	s, url := frontedVault(t)
	if err := s.EnableAudit(t.Context(), s.Root); err != nil {
		t.Fatal(err)
	}
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	api := vaulttest.API(s.Root)
	for path, data := range map[string]map[string]any{
		"sys/auth/userpass": {"type": "userpass"}, "secret/data/good": {"data": map[string]any{"a": "b"}},
	} {
		if _, err := api.Logical().WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	h := &attackedHour{t, s, url}
	client := from(t, s, url, "127.0.9.9")
	run := func(name string, do func(*attacker)) {
		before := h.weigh()
		ctx, cancel := context.WithTimeout(t.Context(), each)
		defer cancel()
		var wg sync.WaitGroup
		for n := range 40 {
			if do == nil {
				break
			}
			wg.Go(func() {
				source := fmt.Sprintf("127.9.0.%d", n+1)
				c := from(t, s, url, source)
				a := &attacker{ctx, source, url, c.Transport.(*http.Transport).TLSClientConfig.Clone(), c}
				a.conf.ServerName = "127.0.0.1"
				for ctx.Err() == nil {
					do(a)
					_ = still.For(ctx, 20*time.Millisecond) // they share two processors with what they attack
				}
			})
		}
		took, failed := h.good(ctx, client)
		wg.Wait()
		after := h.weigh()
		n := len(took)
		t.Logf("%-15s %5d good reads, %d failed, p99 %8v | tokens %+d | Vault %4d MB %+4d | front %3d MB %+4d | audit %+7d KB | journal %+6d KB",
			name, n, failed, p99(took).Round(100*time.Microsecond), after.tokens-before.tokens, after.vault>>20, (after.vault-before.vault)>>20,
			after.front>>20, (after.front-before.front)>>20, (after.audit-before.audit)>>10, (after.journal-before.journal)>>10)
		if failed > 0 || n == 0 {
			t.Errorf("%s: %d of %d good reads failed", name, failed, n)
		}
		if after.tokens != before.tokens {
			t.Errorf("%s: %d tokens are left", name, after.tokens-before.tokens)
		}
		if most := int64(250 << 20); after.front > most {
			t.Errorf("%s: the front has %d MB", name, after.front>>20)
		}
		// A good read is a kilobyte in each audit log, and half of one in the journal; what comes to
		// nothing has 64 KiB of a minute there, and per address 8 MiB and 32 KiB a second in all.
		minutes := int64(each/time.Minute) + 2
		if got, most := after.journal-before.journal, minutes*64<<10+int64(n)<<10; got > most {
			t.Errorf("%s: the journal has %d KB more, and %d may be", name, got>>10, most>>10)
		}
		if got, most := after.audit-before.audit, int64(n)*8<<10+40*(8<<20+int64(each/time.Second)*32<<10); got > most {
			t.Errorf("%s: the audit log has %d KB more, and %d may be", name, got>>10, most>>10)
		}
	}
	run("quiet", nil)
	for _, a := range attacks {
		run(a.name, a.do)
	}
	run("quiet again", nil)
}
