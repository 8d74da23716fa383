package e2e

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"strongroom.example/test/vaulttest"
)

// auditSite is a Vault with two audit devices, and what rotates them.
type auditSite struct {
	s    *vaulttest.Server
	dir  string // of the logs
	args []string
}

func newAuditSite(t *testing.T, conf string) auditSite {
	t.Helper()
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	if err := s.EnableAudit(t.Context(), s.Root); err != nil {
		t.Fatal(err)
	}
	dir := vaulttest.Dir(t)
	file := filepath.Join(dir, "appliance.toml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	a := auditSite{s: s, dir: filepath.Dir(s.Layout.Audit("x"))}
	a.args = []string{"audit", "rotate", "--config", file, "--audit-logs", a.dir, "--state", dir, "--pid-file", filepath.Join(dir, "pid"), "--force"}
	a.pid(t)
	return a
}

// pid writes Vault's process id where the job looks.
func (a auditSite) pid(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(a.args[3]), "pid"), []byte(strconv.Itoa(a.s.Process.PID())), 0o600); err != nil {
		t.Fatal(err)
	}
}

// entries are the ids of the requests in all of a device's logs, by the kind of
// the entry.
func (a auditSite) entries(t *testing.T, device string) map[string]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.dir, device+".log*"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, name := range files {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, fi.Mode(), err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = f
		if strings.HasSuffix(name, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e struct {
				Type    string `json:"type"`
				Request struct {
					ID string `json:"id"`
				} `json:"request"`
			}
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatalf("%s: a line in two: %v: %.80q", name, err, lines.Text())
			}
			out[e.Type+" "+e.Request.ID]++
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return out
}

// Under load every request is in both devices' logs, once, however often they
// are rotated.
func TestAuditRotationLosesNothing(t *testing.T) {
	t.Parallel()
	a := newAuditSite(t, "[audit]\nwarn_percent = 98\nfull_percent = 99\n")
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		ids []string

		rotations atomic.Int64
	)
	for n := range 4 {
		c := vaulttest.API(a.s.Client(t, a.s.RootToken))
		wg.Go(func() {
			// On until the logs have been rotated under it, however slow that is.
			for i := 0; i < 150 || rotations.Load() < 6; i++ {
				s, err := c.Logical().WriteWithContext(t.Context(), fmt.Sprintf("secret/data/load-%d", n), map[string]any{"data": map[string]any{"i": i}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ids = append(ids, s.RequestID)
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		out := mustRun(t, 0, a.args...)
		rotations.Add(int64(strings.Count(out, "rotated audit-")))
	}
	if len(ids) < 600 || rotations.Load() < 6 {
		t.Fatalf("%d requests, %d rotations", len(ids), rotations.Load())
	}
	for _, device := range []string{"audit-1", "audit-2"} {
		entries := a.entries(t, device)
		for _, id := range ids {
			if entries["request "+id] != 1 || entries["response "+id] != 1 {
				t.Fatalf("%s: request %s: %d request entries, %d response entries", device, id, entries["request "+id], entries["response "+id])
			}
		}
	}
	t.Logf("%d requests over %d rotations", len(ids), rotations.Load())

	// A killed Vault comes back, and makes what was renamed under it.
	a.s.KillAndWait(t)
	a.pid(t)
	mustRun(t, 0, a.args...)
	if _, err := vaulttest.API(a.s.Root).Logical().ReadWithContext(t.Context(), "secret/data/load-0"); err != nil {
		t.Error(err)
	}
}
