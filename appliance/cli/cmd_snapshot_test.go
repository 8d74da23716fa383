package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/config/recipient"
)

// backups is a directory with snapshots, and how to reach it.
type backups struct {
	dir, identity, state, takeState string
	recipient                       recipient.Recipient
}

func newBackups(t *testing.T) backups {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b := backups{dir: t.TempDir(), state: t.TempDir(), takeState: t.TempDir()}
	if b.recipient, err = recipient.Parse(id.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	b.identity = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(b.identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// archive is a small sound raft snapshot.
type archive struct{}

func (archive) Snapshot(_ context.Context, w io.Writer) error {
	state := []byte("state")
	meta := fmt.Appendf(nil, `{"Index":7,"Term":1,"Size":%d}`, len(state))
	gz := gzip.NewWriter(w)
	tw := tar.NewWriter(gz)
	for _, m := range []struct {
		name string
		data []byte
	}{
		{"meta.json", meta}, {"state.bin", state},
		{"SHA256SUMS", fmt.Appendf(nil, "%x  meta.json\n%x  state.bin\n", sha256.Sum256(meta), sha256.Sum256(state))},
	} {
		if err := tw.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data))}); err != nil {
			return err
		}
		if _, err := tw.Write(m.data); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), gz.Close())
}

func (b backups) take(t *testing.T, cluster string, at time.Time) string {
	t.Helper()
	d, err := snapshot.NewDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := snapshot.Take(t.Context(), snapshot.TakeOptions{
		Source: archive{}, Vault: snapshot.VaultInfo{ClusterID: cluster, Version: "1.21.1"},
		Recipients: []recipient.Recipient{b.recipient}, Destinations: []snapshot.Destination{d},
		StateDir: b.takeState, Now: func() time.Time { return at },
	})
	if err != nil {
		t.Fatal(err)
	}
	return taken.Manifest.ID
}

// run runs the program and gives its exit code and all it printed.
func run(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	c := New("test")
	var buf bytes.Buffer
	c.SetOut(&buf)
	c.SetErr(&buf)
	c.SetArgs(args)
	code = Report(&buf, c.ExecuteContext(t.Context()))
	return code, buf.String()
}

func (b backups) run(t *testing.T, want int, args ...string) string {
	t.Helper()
	code, out := run(t, append([]string{"snapshot", "--dir", b.dir}, args...)...)
	if code != want {
		t.Fatalf("%q: exit code %d, want %d; it said:\n%s", args, code, want, out)
	}
	return out
}

func (b backups) verify(t *testing.T, want int, args ...string) string {
	t.Helper()
	return b.run(t, want, append([]string{"verify", "--identity", b.identity, "--state", b.state, "--take-state", b.takeState}, args...)...)
}

func says(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("it did not say %q:\n%s", w, out)
		}
	}
}

func TestSnapshotListVerifyPrune(t *testing.T) {
	b := newBackups(t)
	now := time.Now().UTC().Truncate(time.Second)
	says(t, b.verify(t, ExitDrift), "no snapshot", "→ take one")
	old := b.take(t, "one", now.AddDate(-3, 0, 0))
	says(t, b.verify(t, ExitOK), "good "+old)
	newer := b.take(t, "one", now)

	says(t, b.run(t, ExitOK, "list"), "verified", "not verified", old, newer)
	var list []listed
	if err := json.Unmarshal([]byte(b.run(t, ExitOK, "list", "--json")), &list); err != nil || len(list) != 2 || !list[0].Verified || list[1].Verified {
		t.Fatalf("list %+v, %v", list, err)
	}
	// Only the old one is verified: it stays.
	says(t, b.run(t, ExitOK, "prune", "--take-state", b.takeState), "keep", "newest verified", "deleted 0")
	says(t, b.verify(t, ExitOK), "good "+newer)
	says(t, b.run(t, ExitOK, "prune", "-n", "--keep-hourly", "1", "--take-state", b.takeState), "delete  "+old+"  expired", "would delete 1")
	if n := strings.Count(b.run(t, ExitOK, "list"), "one/"); n != 2 {
		t.Fatalf("a dry run left %d of 2", n)
	}
	// As the unit does it, in one go.
	keep := filepath.Join(t.TempDir(), "appliance.toml")
	if err := os.WriteFile(keep, fmt.Appendf(nil, "[backup]\nkeep = { hourly = 1, daily = 0, weekly = 0, monthly = 0 }\n[[backup.to]]\ntype = \"dir\"\npath = %q\n", b.dir), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := run(t, "snapshot", "verify", "--prune", "--config", keep, "--identity", b.identity, "--state", b.state, "--take-state", b.takeState)
	if code != ExitOK {
		t.Errorf("exit code %d", code)
	}
	says(t, out, "good "+newer, "delete  "+old+"  expired", "deleted 1, kept 1")
	if out := b.run(t, ExitOK, "list"); strings.Contains(out, old) || !strings.Contains(out, newer) {
		t.Errorf("after the prune:\n%s", out)
	}
}

func TestSnapshotVerifyExitCodes(t *testing.T) {
	b := newBackups(t)
	id := b.take(t, "one", time.Now())
	file := filepath.Join(b.dir, id+".snap.age")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := newBackups(t)
	tests := []struct {
		name string
		edit func([]byte) []byte
		args []string
		want int
		says string
	}{
		{"sound", nil, nil, ExitOK, "good " + id},
		{"truncated", func(b []byte) []byte { return b[:len(b)-1] }, nil, ExitDrift, "truncated"},
		{"corrupt", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, nil, ExitDrift, "corrupt"},
		{"another's identity", nil, []string{"--identity", other.identity}, ExitOperator, "no identity opens"},
		{"no such identity", nil, []string{"--identity", "/nonexistent"}, ExitOperator, "/nonexistent"},
		{"a bad name", nil, []string{"--id", "../x"}, ExitUsage, "snapshot name"},
		{"an unknown name", nil, []string{"--id", "one/20200101T000000Z-00000000"}, ExitDrift, "no snapshot"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := bytes.Clone(good)
			if tt.edit != nil {
				data = tt.edit(data)
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"verify", "--state", b.state, "--take-state", b.takeState}, tt.args...)
			if !strings.Contains(strings.Join(tt.args, " "), "--identity") {
				args = append(args, "--identity", b.identity)
			}
			says(t, b.run(t, tt.want, args...), tt.says)
		})
	}
}

func TestSnapshotOfSeveralClusters(t *testing.T) {
	b := newBackups(t)
	b.take(t, "one", time.Now())
	two := b.take(t, "two", time.Now())
	b.takeState = t.TempDir() // nothing says which one is meant
	says(t, b.verify(t, ExitUsage), "several clusters", "--cluster")
	says(t, b.verify(t, ExitOK, "--cluster", "two"), "good "+two)
}

// A place that cannot be opened wants an operator, and hides no other.
func TestSnapshotOfABadPlace(t *testing.T) {
	b := newBackups(t)
	id := b.take(t, "one", time.Now())
	code, out := run(t, "snapshot", "list", filepath.Join(b.dir, "none"), b.dir)
	if code != ExitOperator {
		t.Errorf("exit code %d", code)
	}
	says(t, out, id, "cannot be opened", "no such file", "mount the disk")
	code, out = run(t, "snapshot", "verify", filepath.Join(b.dir, "none"), b.dir, "--identity", b.identity, "--state", b.state, "--take-state", b.takeState)
	if code != ExitOperator {
		t.Errorf("exit code %d", code)
	}
	says(t, out, "good "+id, "cannot be opened")
}

func TestSnapshotUsage(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.toml")
	if err := os.WriteFile(empty, []byte("[backup]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		says string
	}{
		{"no configuration", []string{"list", "--config", filepath.Join(dir, "none.toml")}, "docs/backup.md"},
		{"no place in it", []string{"list", "--config", empty}, "backup.to: is required"},
		{"no recipient", []string{"take", "--dir", dir}, "no recipient"},
		{"a bad recipient", []string{"take", "--dir", dir, "--recipient", "age1x"}, "age1x"},
		{"no identity", []string{"verify", "--dir", dir}, "no identity"},
		{"keeps nothing", []string{"prune", "--dir", dir, "--keep-hourly", "-1"}, "below 0"},
		{"half an AppRole", []string{"take", "--dir", dir, "--recipient", "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj", "--role-id-file", "x", "--address", refusing(t)}, "answers 400"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", "")
			code, out := run(t, append([]string{"snapshot"}, tt.args...)...)
			if code == ExitOK || (tt.says != "answers 400" && code != ExitUsage) {
				t.Errorf("exit code %d; it said:\n%s", code, out)
			}
			says(t, out, tt.says)
		})
	}
}

func TestSnapshotFailureIsLoud(t *testing.T) {
	const secret = "very-secret-path"
	var got alert.Body
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.URL.Path != "/"+secret {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer hook.Close()
	b := newBackups(t)
	creds := t.TempDir()
	conf := filepath.Join(creds, "appliance.toml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(creds, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("alerts", hook.URL+"/"+secret+"\n")
	write("appliance.toml", fmt.Sprintf("[backup]\nwebhook_file = \"alerts\"\n[[backup.to]]\ntype = \"dir\"\npath = %q\n", b.dir))
	t.Setenv("CREDENTIALS_DIRECTORY", creds)
	t.Setenv("JOURNAL_STREAM", "8:1")
	args := []string{"snapshot", "verify", "--config", conf, "--identity", b.identity, "--state", b.state, "--take-state", b.takeState}
	code, out := run(t, args...)
	if code != ExitDrift || got.Event != "strongroom.snapshot.verify.failed" || !strings.Contains(got.Error, "no snapshot") {
		t.Errorf("exit code %d, webhook got %+v", code, got)
	}
	says(t, out, "<3>snapshot verify failed: ")

	// A webhook that is down is said, keeps its secret, and changes nothing.
	hook.Close()
	code, out = run(t, args...)
	if code != ExitDrift || strings.Contains(out, secret) {
		t.Errorf("exit code %d; it said:\n%s", code, out)
	}
	says(t, out, "the webhook was not told")
}
