package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

// maxResident is what the issue allows for a store of 1 GB, in bytes.
const maxResident = 64 << 20

// bigVault answers like a Vault whose snapshot has size bytes of state.
func bigVault(size int64) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/sys/health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"initialized":true,"sealed":false,"standby":false,"version":"1.21.1","cluster_id":"big"}`)
	})
	mux.HandleFunc("/v1/sys/storage/raft/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		// Cut off where it fails: the client must see that.
		if err := writeArchive(w, size); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	return mux
}

// writeArchive streams an archive as Vault does, of incompressible state.
func writeArchive(w io.Writer, size int64) error {
	gz, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	add := func(name string, size int64, r io.Reader) error {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size}); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	}
	meta := fmt.Sprintf(`{"ID":"bolt-snapshot","Index":9,"Term":2,"Size":%d}`, size)
	if err := add("meta.json", int64(len(meta)), strings.NewReader(meta)); err != nil {
		return err
	}
	h := sha256.New()
	if err := add("state.bin", size, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{3}), size), h)); err != nil {
		return err
	}
	sums := fmt.Sprintf("%x  meta.json\n%x  state.bin\n", sha256.Sum256([]byte(meta)), h.Sum(nil))
	if err := add("SHA256SUMS", int64(len(sums)), strings.NewReader(sums)); err != nil {
		return err
	}
	if err := add("SHA256SUMS.sealed", 6, strings.NewReader("sealed")); err != nil {
		return err
	}
	return errors.Join(tw.Close(), gz.Close())
}

// The built program's resident memory and time while it takes and verifies, to S3 and a
// directory at once, fetches for a drill, and checks for a restore. STRONGROOM_SOAK=1
// makes it the gigabyte of the promise.
func TestSnapshotMemory(t *testing.T) {
	size := int64(128 << 20)
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		size = 1 << 30
	}
	dir := vaulttest.Dir(t)
	ln, err := net.Listen("unix", filepath.Join(dir, "vault.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(bigVault(size))
	srv.Listener = ln
	srv.Start()
	defer srv.Close()
	s3, _ := startS3(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"identity": id.String() + "\n", "token": "any", "s3": "access_key = \"test-access\"\nsecret_key = \"test-secret-key\"\n",
		"conf": "[backup]\nfiles = []\nrecipients = [\"" + id.Recipient().String() + "\"]\n" +
			"[[backup.to]]\ntype = \"dir\"\npath = \"" + path("disk") + "\"\n" +
			"[[backup.to]]\ntype = \"s3\"\nendpoint = \"http://" + s3 + "\"\nbucket = \"backups\"\ncredentials = \"" + path("s3") + "\"\n",
	} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"disk", "take", "verify", "drill", "restore"} {
		if err := os.Mkdir(path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"snapshot", "take", "--config", path("conf"), "--state", path("take"), "--address", "unix://" + path("vault.sock"), "--token-file", path("token")},
		{"snapshot", "verify", "--config", path("conf"), "--state", path("verify"), "--take-state", path("take"), "--identity", path("identity")},
		{"drill", "fetch", "--config", path("conf"), "--state", path("drill"), "--take-state", path("take")},
		{"restore", "--dry-run", "--no-keep", "--config", path("conf"), "--work-dir", path("restore"), "--identity", path("identity"),
			"--epoch-file", path("none"), "--address", "unix://" + path("vault.sock"), "--token-file", path("token")},
	} {
		cmd := exec.Command(vaulttest.Bin(t, "strongroom"), args...)
		cmd.Env = []string{"HOME=" + dir}
		began := time.Now()
		resident, out, err := peakOf(cmd)
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		t.Logf("%s %s of %d MiB: %d MiB resident at most, %.1f s, %s of CPU", args[0], args[1], size>>20, resident>>20, time.Since(began).Seconds(),
			cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		if resident > maxResident {
			t.Errorf("%s %s: %d MiB resident, want at most %d", args[0], args[1], resident>>20, maxResident>>20)
		}
	}
}

// peakOf runs cmd and gives its peak of resident memory in bytes. What the
// kernel accounts to a child at its end includes the test's own memory, which
// the child shared for a moment, so the peak is read while it runs; each is called as often.
func peakOf(cmd *exec.Cmd, each ...func(pid int)) (peak int64, out []byte, err error) {
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := proc.Resident(cmd.Process.Pid); err == nil {
			peak = max(peak, now)
		}
		for _, do := range each {
			do(cmd.Process.Pid)
		}
		select {
		case err := <-done:
			return peak, b.Bytes(), err
		case <-tick.C:
		}
	}
}
