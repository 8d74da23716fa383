package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom/appliance/proc"
	"strongroom/appliance/vaultapi"
	"strongroom/test/vaulttest"
)

// rounds of every target, interleaved, so that a slow moment of the machine
// hits all of them; odd, for the median.
const (
	rounds   = 5
	perRound = 1500 * time.Millisecond
)

// Reads of an API key against the same Vault's built-in KV v2, HashiCorp's KV
// v2 as an external plugin, and a plugin that answers with a constant.
func BenchmarkReads(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	etag := setUpKey(b, s)
	setUpKV(b, s)
	setUpExternal(b, s)

	targets := []struct {
		name string
		req  request
	}{
		{"constant plugin", request{path: "const/creds/x", status: 200}},
		{"apikeys", request{path: "apikeys/creds/app/production/x", status: 200}},
		{"apikeys, If-None-Match", request{path: "apikeys/creds/app/production/x", header: "If-None-Match: " + etag, status: 304}},
		{"apikeys, if_version", request{path: "apikeys/creds/app/production/x?if_version=1", status: 304}},
		{"external KV v2", request{path: "kvext/data/x", status: 200}},
		{"built-in KV v2", request{path: "secret/data/x", status: 200}},
	}
	l := load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: 8}
	for b.Loop() {
		rates := make([][]float64, len(targets))
		p50 := make([][]float64, len(targets))
		for round := range rounds + 1 {
			for i, t := range targets {
				r, err := l.run(b.Context(), t.req, perRound)
				if err != nil {
					b.Fatal(err)
				}
				if round > 0 { // the first one warms up
					rates[i] = append(rates[i], r.perSecond)
					p50[i] = append(p50[i], float64(r.p50)/float64(time.Millisecond))
				}
			}
		}
		var table strings.Builder
		fmt.Fprintf(&table, "\n%-24s %10s %9s %18s %16s\n", "read", "requests/s", "p50 ms", "to the constant", "to external KV")
		for i, t := range targets {
			fmt.Fprintf(&table, "%-24s %10.0f %9.2f %18.2f %16.2f\n", t.name, median(rates[i]), median(p50[i]),
				ratio(rates[i], rates[0]), ratio(rates[i], rates[4]))
		}
		b.Log(table.String())
		b.ReportMetric(ratio(rates[1], rates[0]), "apikeys/constant")
		b.ReportMetric(ratio(rates[1], rates[4]), "apikeys/externalKV")
		b.ReportMetric(ratio(rates[2], rates[1]), "304/200")
	}
}

// ratio is the median of the rounds' ratios.
func ratio(a, b []float64) float64 {
	var r []float64
	for i := range a {
		r = append(r, a[i]/b[i])
	}
	return median(r)
}

func write(b *testing.B, s *vaulttest.Server, path string, data map[string]any) *api.Secret {
	b.Helper()
	sec, err := s.Root.API().Logical().WriteWithContext(b.Context(), path, data)
	if err != nil {
		b.Fatal(err)
	}
	return sec
}

func setUpKey(b *testing.B, s *vaulttest.Server) (etag string) {
	b.Helper()
	write(b, s, "apikeys/providers/internal", map[string]any{"type": "generated"})
	write(b, s, "apikeys/keys/app/production/x", map[string]any{"provider": "internal"})
	sec, err := s.Root.API().Logical().ReadWithContext(b.Context(), "apikeys/creds/app/production/x")
	if err != nil {
		b.Fatal(err)
	}
	return sec.Data["etag"].(string)
}

// kvValue makes an answer of about the size of a key's.
var kvValue = map[string]any{"data": map[string]any{
	"key": "sr_0123456789abcdefghijklmnopqrstuvwxyzABCD", "note": strings.Repeat("x", 200),
}}

func setUpKV(b *testing.B, s *vaulttest.Server) {
	b.Helper()
	if err := s.Root.EnableKV2(b.Context(), "secret"); err != nil {
		b.Fatal(err)
	}
	write(b, s, "secret/data/x", kvValue)
}

// setUpExternal registers the two peers as plugins and mounts them.
func setUpExternal(b *testing.B, s *vaulttest.Server) {
	b.Helper()
	kv := vaulttest.Bin(b, "kvv2")
	constant := filepath.Join(b.TempDir(), "constplugin")
	build := exec.Command("go", "build", "-trimpath", "-o", constant, "./test/bench/constplugin")
	build.Dir = vaulttest.Root(b)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build the constant plugin: %v: %s", err, out)
	}
	for name, from := range map[string]string{"kvext": kv, "constplugin": constant} {
		data, err := os.ReadFile(from)
		if err != nil {
			b.Fatal(err)
		}
		to := filepath.Join(s.Layout.Plugins(), name)
		if err := os.WriteFile(to, data, 0o500); err != nil {
			b.Fatal(err)
		}
		sum, err := vaultapi.SHA256File(to)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Root.RegisterPlugin(b.Context(), vaultapi.Plugin{Name: name, Command: name, SHA256: sum}); err != nil {
			b.Fatal(err)
		}
	}
	sys := s.Root.API().Sys()
	if err := sys.MountWithContext(b.Context(), "const", &api.MountInput{Type: "constplugin"}); err != nil {
		b.Fatal(err)
	}
	if err := sys.MountWithContext(b.Context(), "kvext", &api.MountInput{Type: "kvext"}); err != nil {
		b.Fatal(err)
	}
	// A new KV v2 mount upgrades itself in the background.
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := s.Root.API().Logical().WriteWithContext(b.Context(), "kvext/data/x", kvValue)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// Rotations of generated keys are bound by raft's commits, as KV v2's writes.
// Both go round a hundred names.
func BenchmarkRotations(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	setUpKey(b, s)
	setUpKV(b, s)
	const names, each = 100, 300
	for i := range names {
		write(b, s, fmt.Sprintf("apikeys/keys/bulk/%d", i), map[string]any{"provider": "internal"})
	}
	perSecond := func(do func(i int)) float64 {
		began := time.Now()
		for i := range each {
			do(i)
		}
		return each / time.Since(began).Seconds()
	}
	for b.Loop() {
		var rotations, writes []float64
		for range rounds {
			rotations = append(rotations, perSecond(func(i int) { write(b, s, fmt.Sprintf("apikeys/rotate/bulk/%d", i%names), nil) }))
			writes = append(writes, perSecond(func(i int) { write(b, s, fmt.Sprintf("secret/data/w%d", i%names), kvValue) }))
		}
		b.ReportMetric(median(rotations), "rotations/s")
		b.ReportMetric(median(writes), "KVwrites/s")
		b.ReportMetric(ratio(rotations, writes), "rotations/KVwrites")
	}
}

// What a client in a long poll costs the plugin's process.
func BenchmarkLongPollMemory(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	setUpKey(b, s)
	// In the first seconds after its initialisation Vault wants its state lock
	// once for itself, and waits would keep it; a restarted one does not.
	s.KillAndWait(b)
	const clients = 5000
	l := load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: clients}
	for version := 1; b.Loop(); version++ {
		plugin := proc.ChildOf(s.Process.PID())
		before, err := proc.Resident(plugin)
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := l.run(b.Context(), request{path: fmt.Sprintf("apikeys/creds/app/production/x?if_version=%d&wait=60", version), status: 200}, time.Millisecond)
			done <- err
		}()
		waiting := func() string {
			st, err := s.Root.API().Logical().ReadWithContext(b.Context(), "apikeys/status")
			if err != nil {
				b.Fatal(err)
			}
			return fmt.Sprint(st.Data["waiting_reads"])
		}
		for deadline := time.Now().Add(50 * time.Second); waiting() != fmt.Sprint(clients); {
			select {
			case err := <-done:
				b.Fatalf("a client did not wait: %v", err)
			default:
			}
			if time.Now().After(deadline) {
				b.Fatalf("only %s of %d clients wait", waiting(), clients)
			}
			<-time.After(100 * time.Millisecond)
		}
		after, err := proc.Resident(plugin)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(after-before)/clients/1024, "KiB/client")
		rotated := time.Now()
		write(b, s, "apikeys/rotate/app/production/x", map[string]any{"force": true})
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(rotated).Milliseconds()), "ms-until-all-know")
	}
}
