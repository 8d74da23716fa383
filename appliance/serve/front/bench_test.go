package front

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// The benchmarks read over HTTP/1.1 and TLS, as Vault's clients do, from a
// backend that costs next to nothing. Stock is the stock Caddy binary with the
// same proxy, TLS, timeouts and access log; compare within one run only.
func BenchmarkFront(b *testing.B) {
	v := newBackend(b, http.HandlerFunc(constant))
	c := baseConfig(b, v)
	c.Limits.RequestsPerSecond = 0
	f := startFront(b, c)
	benchmarkReads(b, f)
}

func BenchmarkFrontStock(b *testing.B) {
	bin := tool(b, "caddy")
	v := newBackend(b, http.HandlerFunc(constant))
	c := baseConfig(b, v)
	cfg, err := caddyConfig(c, sockets{})
	if err != nil {
		b.Fatal(err)
	}
	var app caddyhttp.App
	if err := json.Unmarshal(cfg.AppsRaw["http"], &app); err != nil {
		b.Fatal(err)
	}
	srv := app.Servers[serverHTTPS]
	srv.ListenerWrappersRaw, srv.Logs = nil, &caddyhttp.ServerLogConfig{}
	srv.Routes[0].HandlersRaw = srv.Routes[0].HandlersRaw[1:] // without the gate
	cfg.AppsRaw["http"] = caddyconfig.JSON(app, nil)
	delete(cfg.AppsRaw, stateID)
	text, err := encode(cfg)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "caddy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		b.Fatal(err)
	}
	f := launch(b, c)
	f.cmd = exec.Command(bin, "run", "--config", file)
	f.cmd.Env = []string{"XDG_DATA_HOME=" + c.Storage}
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f.cmd.Stdout, f.cmd.Stderr = f, f
	f.start()
	f.waitOutput(`certificate obtained successfully","identifier":"127.0.0.1"`)
	f.config.RootFile = filepath.Join(c.Storage, "pki", "authorities", "local", "root.crt")
	f.client = f.newClient()
	waitServed(b, c.Listen[0], "127.0.0.1")
	benchmarkReads(b, f)
}

func constant(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"data":{"key":"0123456789abcdef"}}`)
}

func benchmarkReads(b *testing.B, f *testFront) {
	tr := f.client.Transport.(*http.Transport)
	tr.MaxIdleConnsPerHost, tr.ForceAttemptHTTP2 = 64, false
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			res, err := f.client.Get(f.url + "/v1/apikeys/creds/app")
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				b.Error(res.Status)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	if rss, err := residentMB(f.cmd.Process.Pid); err == nil {
		b.ReportMetric(rss, "MB-resident")
	}
}

// residentMB is a process's VmRSS in megabytes, proc(5).
func residentMB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), "VmRSS:")
	if !ok {
		return 0, fmt.Errorf("no VmRSS in the status of %d", pid)
	}
	var kb float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kb); err != nil {
		return 0, err
	}
	return kb / 1024, nil
}

// The front is allowed 60 MB when it has nothing to do.
func TestFrontIdleMemory(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector keeps shadow memory")
	}
	v := newBackend(t, http.HandlerFunc(echo))
	f := startFront(t, baseConfig(t, v))
	f.get("/v1/sys/health")
	rss, err := residentMB(f.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB resident", rss)
	if rss > 60 {
		t.Errorf("%.1f MB resident, more than 60", rss)
	}
}
