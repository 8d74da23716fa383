package snapshot

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// The memory that taking and verifying may need beside what the process has,
// in bytes: for any size of snapshot.
const memoryBound = 40 << 20

// synthetic is a Source of a sound archive with any amount of incompressible
// state, of which it keeps nothing.
type synthetic struct {
	size int64
	peak *peak
}

func (s synthetic) Snapshot(ctx context.Context, w io.Writer) error {
	gz, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	meta, err := json.Marshal(map[string]any{"ID": "bolt-snapshot", "Index": 7, "Term": 1, "Size": s.size})
	if err != nil {
		return err
	}
	state := sha256.New()
	write := func(name string, size int64, body io.Reader) error {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size}); err != nil {
			return err
		}
		_, err := io.Copy(tw, ctxReader{ctx, body})
		return err
	}
	rnd := io.LimitReader(rand.NewChaCha8([32]byte{9}), s.size)
	sampled := readFunc(func(p []byte) (int, error) { s.peak.sample(); return rnd.Read(p) })
	if err := write("meta.json", int64(len(meta)), bytesReader(meta)); err != nil {
		return err
	}
	if err := write("state.bin", s.size, io.TeeReader(sampled, state)); err != nil {
		return err
	}
	sums := fmt.Appendf(nil, "%x  meta.json\n%x  state.bin\n", sha256.Sum256(meta), state.Sum(nil))
	if err := write("SHA256SUMS", int64(len(sums)), bytesReader(sums)); err != nil {
		return err
	}
	return errors.Join(tw.Close(), gz.Close())
}

func bytesReader(b []byte) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if len(b) == 0 {
			return 0, io.EOF
		}
		n := copy(p, b)
		b = b[n:]
		return n, nil
	})
}

// peak holds the most memory that the Go runtime had from the system.
type peak struct {
	calls int
	most  uint64
}

func (p *peak) sample() {
	if p.calls++; p.calls%200 != 0 {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.most = max(p.most, m.Sys-m.HeapReleased)
}

// STRONGROOM_SOAK=1 makes it the gigabyte that the promise is about.
func TestMemoryDoesNotGrowWithTheSnapshot(t *testing.T) {
	size := int64(96 << 20)
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		size = 1 << 30
	}
	v := startVersity(t)
	v.bucket(t, "large", false)
	k := newKeys(t)
	s3, dir := v.open(t, S3Config{Bucket: "large"}), newTestDir(t)

	debug.FreeOSMemory()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	p := &peak{}
	o := takeOptions(t, k, synthetic{size, p}, s3, dir)
	o.Stall = 5 * time.Minute
	if _, err := Take(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	vo := verifyOptions(t, k, sampledDest{s3, p})
	if _, err := Verify(t.Context(), vo); err != nil {
		t.Fatal(err)
	}
	grown := int64(p.most) - int64(before.Sys-before.HeapReleased)
	t.Logf("%d MiB in %d samples: %d MiB of memory at most, %d more than before", size>>20, p.calls/200, p.most>>20, grown>>20)
	if p.calls < 1000 {
		t.Fatal("too few samples")
	}
	if grown > memoryBound {
		t.Errorf("memory grew by %d MiB, want at most %d", grown>>20, memoryBound>>20)
	}
}

// sampledDest looks at the memory while a download runs.
type sampledDest struct {
	Destination
	p *peak
}

func (s sampledDest) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	rc, err := s.Destination.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{readFunc(func(p []byte) (int, error) { s.p.sample(); return rc.Read(p) }), rc}, nil
}
