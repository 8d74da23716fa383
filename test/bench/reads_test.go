package bench

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// rounds of every target, short ones and many, interleaved, so that a slow
// moment of the machine hits all of them alike; odd, for the median. Every
// second round goes backwards, so that none always follows the same other.
const (
	rounds   = 25
	perRound = 400 * time.Millisecond
)

// target is one thing to read and what was measured of it.
type target struct {
	name   string
	plugin string // the program that answers; "": Vault itself
	req    request

	rates, p50         []float64
	vaultCPU, pluginCP time.Duration
	count              int
}

// Reads of an API key against the same Vault's built-in KV v2, HashiCorp's KV
// v2 as an external plugin, and a plugin that answers with the same bytes, at
// a mount that is tuned alike, without looking anything up.
func BenchmarkReads(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	setUpKey(b, s)
	setUpKV(b, s)
	setUpPeers(b, s)
	etag := setUpAnswer(b, s)

	const key = "creds/app/production/x"
	targets := []*target{
		{name: "constant plugin", plugin: "constplugin", req: request{path: "const/" + key, status: 200}},
		{name: "apikeys", plugin: engine, req: request{path: "apikeys/" + key, status: 200}},
		{name: "apikeys, If-None-Match", plugin: engine, req: request{path: "apikeys/" + key, header: "If-None-Match: " + etag, status: 304}},
		{name: "apikeys, if_version", plugin: engine, req: request{path: "apikeys/" + key + "?if_version=1", status: 304}},
		{name: "external KV v2", plugin: "kvext", req: request{path: "kvext/data/x", status: 200}},
		{name: "built-in KV v2", req: request{path: "secret/data/x", status: 200}},
	}
	for b.Loop() {
		measure(b, s, targets)
		var table strings.Builder
		fmt.Fprintf(&table, "\n%-24s %10s %9s %16s %15s %19s %20s\n", "read", "requests/s", "p50 ms", "to the constant", "to external KV", "Vault's µs of CPU", "plugin's µs of CPU")
		for _, t := range targets {
			fmt.Fprintf(&table, "%-24s %10.0f %9.2f %16.2f %15.2f %19.0f %20.0f\n", t.name, median(t.rates), median(t.p50),
				ratio(t.rates, targets[0].rates), ratio(t.rates, targets[4].rates), t.perRead(t.vaultCPU), t.perRead(t.pluginCP))
		}
		b.Log(table.String())
		b.ReportMetric(ratio(targets[1].rates, targets[0].rates), "apikeys/constant")
		b.ReportMetric(ratio(targets[1].rates, targets[4].rates), "apikeys/externalKV")
		b.ReportMetric(ratio(targets[0].rates, targets[4].rates), "constant/externalKV")
		b.ReportMetric(ratio(targets[2].rates, targets[1].rates), "304/200")
		b.ReportMetric(ratio(targets[3].rates, targets[1].rates), "if_version/200")
	}
}

// engine is the name of the plugin's program.
const engine = "vault-plugin-secrets-apikeys"

func measure(b *testing.B, s *vaulttest.Server, targets []*target) {
	b.Helper()
	l := load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: 8}
	vault := s.Process.PID()
	for round := range rounds + 1 {
		for i := range targets {
			t := targets[i]
			if round%2 == 1 {
				t = targets[len(targets)-1-i]
			}
			plugin := 0
			if t.plugin != "" {
				var err error
				if plugin, err = vaulttest.ChildNamed(vault, t.plugin); err != nil {
					b.Fatal(err)
				}
			}
			vaultBefore, pluginBefore := usedBy(b, vault), usedBy(b, plugin)
			r, err := l.run(b.Context(), t.req, perRound)
			if err != nil {
				b.Fatal(err)
			}
			if round == 0 {
				continue // warms up
			}
			t.rates = append(t.rates, r.perSecond)
			t.p50 = append(t.p50, float64(r.p50)/float64(time.Millisecond))
			t.vaultCPU += usedBy(b, vault) - vaultBefore
			t.pluginCP += usedBy(b, plugin) - pluginBefore
			t.count += r.count
		}
	}
}

func usedBy(b *testing.B, pid int) time.Duration {
	b.Helper()
	if pid == 0 {
		return 0
	}
	used, err := cpuTime(pid)
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// perRead is in microseconds.
func (t *target) perRead(d time.Duration) float64 {
	return float64(d.Microseconds()) / float64(t.count)
}

// ratio is the median of the rounds' ratios.
func ratio(a, b []float64) float64 {
	var r []float64
	for i := range a {
		r = append(r, a[i]/b[i])
	}
	return median(r)
}

// setUpAnswer makes the constant plugin give the answer that the engine gives.
func setUpAnswer(b *testing.B, s *vaulttest.Server) (etag string) {
	b.Helper()
	sec, err := vaulttest.API(s.Root).Logical().ReadWithContext(b.Context(), "apikeys/creds/app/production/x")
	if err != nil {
		b.Fatal(err)
	}
	raw, err := json.Marshal(sec.Data)
	if err != nil {
		b.Fatal(err)
	}
	etag = sec.Data["etag"].(string)
	write(b, s, "const/answer", map[string]any{"data": string(raw), "etag": etag})
	return etag
}
