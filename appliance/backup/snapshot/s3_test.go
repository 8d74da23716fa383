package snapshot

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// proxy stands between a client and the store and may answer in its place.
type proxy struct {
	*httptest.Server
	// fault answers a request and returns true, or leaves it to the store.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newProxy(t *testing.T, v *versity, fault func(http.ResponseWriter, *http.Request) bool) *proxy {
	t.Helper()
	rp := &httputil.ReverseProxy{
		// The signature covers the Host header.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: v.addr})
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p := &proxy{fault: fault}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.fault(w, r) {
			rp.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func isPart(r *http.Request, number string) bool {
	return r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == number
}

func isComplete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

func isObject(r *http.Request, method string) bool {
	return r.Method == method && strings.HasSuffix(r.URL.Path, suffixSnap) && len(r.URL.Query()) == 0
}

// hangUp cuts the connection after reading some of the request.
func hangUp(w http.ResponseWriter, r *http.Request) bool {
	_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func answer(status int, code string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>no</Message></Error>")
	}
}

// stored gives every file in a bucket of the store, temporary ones included.
func (v *versity) stored(t *testing.T, bucket string) map[string]string {
	t.Helper()
	out := map[string]string{}
	root := filepath.Join(v.data, bucket)
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, root)] = hexSum(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Each fault of a store: Take fails with the right error, and the store holds
// what it held before, the last good snapshot above all.
func TestTakeWithAFaultyStore(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "backups", false)
	k := newKeys(t)
	raw := buildArchive(t, archiveSpec{state: randomBytes(2*minPart+1000, 21)})
	direct := v.open(t, S3Config{Bucket: "backups", PartSize: minPart})
	if _, err := Take(t.Context(), takeOptions(t, k, bytesSource(raw), direct)); err != nil {
		t.Fatal(err)
	}
	onDisk := func(change func(path string) error) func(*testing.T, http.ResponseWriter, *http.Request) {
		return func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			u := url.URL{Scheme: "http", Host: v.addr}
			rp := httputil.NewSingleHostReverseProxy(&u)
			rp.ServeHTTP(rec, r)
			if err := change(filepath.Join(v.data, r.URL.Path)); err != nil {
				t.Error(err)
			}
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		}
	}
	tests := []struct {
		name  string
		when  func(*http.Request) bool
		do    func(*testing.T, http.ResponseWriter, *http.Request)
		want  error
		keeps bool // Put does not see it; Verify must
	}{
		{"cut off in the first part", func(r *http.Request) bool { return isPart(r, "1") },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) { hangUp(w, r) }, ErrUnreachable, false},
		{"cut off in the last part", func(r *http.Request) bool { return isPart(r, "3") },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) { hangUp(w, r) }, ErrUnreachable, false},
		{"cut off at the end", isComplete,
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) { hangUp(w, r) }, ErrUnreachable, false},
		{"done, but the answer is lost", isComplete, func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			onDisk(func(string) error { return nil })(t, httptest.NewRecorder(), r)
			hangUp(w, r)
		}, ErrUnreachable, false},
		{"full", func(r *http.Request) bool { return isPart(r, "2") },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
				answer(http.StatusForbidden, "QuotaExceeded")(w, r)
			}, ErrFull, false},
		{"507", func(r *http.Request) bool { return isPart(r, "2") },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
				answer(http.StatusInsufficientStorage, "X")(w, r)
			}, ErrFull, false},
		{"key revoked", func(*http.Request) bool { return true },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
				answer(http.StatusForbidden, "InvalidAccessKeyId")(w, r)
			}, ErrDenied, false},
		{"no bucket", func(r *http.Request) bool { return r.Method == http.MethodPost },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
				answer(http.StatusNotFound, "NoSuchBucket")(w, r)
			}, ErrPlace, false},
		{"only 503", func(*http.Request) bool { return true },
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
				answer(http.StatusServiceUnavailable, "SlowDown")(w, r)
			}, ErrUnreachable, false},
		{"200 with an error inside", isComplete,
			func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
				answer(http.StatusOK, "InternalError")(w, r)
			}, ErrUnreachable, false},
		{"200 with a truncated object", isComplete, onDisk(func(p string) error { return os.Truncate(p, minPart) }), ErrTruncated, false},
		{"200 with nothing stored", isComplete, onDisk(os.Remove), ErrNotFound, false},
		{"200 with a longer object", isComplete, onDisk(func(p string) error { return os.Truncate(p, 4*minPart) }), ErrTrailing, false},
		{"200 with another end", isComplete, onDisk(flipByte(-1)), ErrCorrupt, false},
		{"200 with another middle", isComplete, onDisk(flipByte(minPart)), ErrCorrupt, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := v.stored(t, "backups")
			p := newProxy(t, v, func(w http.ResponseWriter, r *http.Request) bool {
				if !tt.when(r) {
					return false
				}
				tt.do(t, w, r)
				return true
			})
			d := v.open(t, S3Config{Endpoint: p.URL, Bucket: "backups", PartSize: minPart, Stall: time.Minute})
			o := takeOptions(t, k, bytesSource(raw), d)
			taken, err := Take(t.Context(), o)
			if tt.keeps {
				if err != nil {
					t.Fatal(err)
				}
				vo := verifyOptions(t, k, direct)
				vo.ID = mustID(t, taken.Manifest.ID)
				_, err = Verify(t.Context(), vo)
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if strings.Contains(err.Error(), testSecret) {
				t.Error("the error shows the secret key")
			}
			if tt.keeps {
				return
			}
			// What a dead connection kept from being tidied, Sweep removes.
			if _, err := direct.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if after := v.stored(t, "backups"); !maps.Equal(before, after) {
				t.Errorf("the bucket held %d files and holds %d", len(before), len(after))
			}
		})
	}
}

// flipByte changes the byte at off, from the end if negative.
func flipByte(off int) func(string) error {
	return func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if off < 0 {
			off += len(b)
		}
		b[off] ^= 1
		// In place: the store keeps its sums in attributes of the file.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(b[off:off+1], int64(off))
		return errors.Join(err, f.Close())
	}
}

func TestS3Down(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := NewS3(S3Config{Endpoint: "http://" + addr, Bucket: "bucket", AccessKey: "a", SecretKey: "s", Retries: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(t.Context(), "x", strings.NewReader("x"))
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want %v", err, ErrUnreachable)
	}
}

func TestS3Silent(t *testing.T) {
	// Accepts, reads, and never says anything.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	s, err := NewS3(S3Config{
		Endpoint: "http://" + l.Addr().String(), Bucket: "bucket", AccessKey: "a", SecretKey: "s",
		Retries: 1, Stall: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	// It never returns where the silence has no limit.
	_, err = s.Put(t.Context(), "x", strings.NewReader("x"))
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want %v", err, ErrUnreachable)
	}
}

// Slow is not silent: a store that takes longer than the stall time in all, but
// always moves, is waited for.
func TestS3Slow(t *testing.T) {
	t.Parallel() // it waits
	v := startVersity(t)
	v.bucket(t, "slow", false)
	const stall = 9 * time.Second
	var slow atomic.Int32
	p := newProxy(t, v, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		slow.Add(1)
		// A trickle: one pause per read of a body of 1 MiB in 64 pieces.
		r.Body = io.NopCloser(&trickle{r: r.Body, pause: stall / 60})
		return false
	})
	d := v.open(t, S3Config{Endpoint: p.URL, Bucket: "slow", Stall: stall})
	data := randomBytes(1<<20, 22)
	start := time.Now()
	if _, err := d.Put(t.Context(), "x", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); slow.Load() == 0 || took < stall {
		t.Errorf("%d slow requests in %s: the test does not test", slow.Load(), took)
	}
	if got := get(t, d, "x"); hexSum(got) != hexSum(data) {
		t.Error("got other bytes back")
	}
}

// trickle waits before every 16 KiB.
type trickle struct {
	r     io.Reader
	pause time.Duration
}

func (s *trickle) Read(p []byte) (int, error) {
	timer := time.NewTimer(s.pause)
	<-timer.C
	return s.r.Read(p[:min(len(p), 16<<10)])
}

func TestVerifyOfACutDownload(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "cut", false)
	k := newKeys(t)
	direct := v.open(t, S3Config{Bucket: "cut", PartSize: minPart})
	raw := buildArchive(t, archiveSpec{state: randomBytes(2<<20, 23)})
	if _, err := Take(t.Context(), takeOptions(t, k, bytesSource(raw), direct)); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, v, func(w http.ResponseWriter, r *http.Request) bool {
		if !isObject(r, http.MethodGet) {
			return false
		}
		w.Header().Set("Content-Length", "2000000")
		w.Header().Set("Last-Modified", testTime.Format(http.TimeFormat))
		_, _ = w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		return hangUp(w, r)
	})
	o := verifyOptions(t, k, v.open(t, S3Config{Endpoint: p.URL, Bucket: "cut"}))
	if _, err := Verify(t.Context(), o); !errors.Is(err, ErrTruncated) {
		t.Errorf("got %v, want %v", err, ErrTruncated)
	}
	s, err := LoadVerifyState(o.StateDir)
	if err != nil || len(s.LastGood) > 0 || s.Failure == nil {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestS3ObjectLock(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "locked", true)
	now := time.Now()
	d := v.open(t, S3Config{Bucket: "locked", LockFor: time.Hour, Now: func() time.Time { return now }})
	info := put(t, d, "c/x", []byte("kept"))
	if got := info.LockedUntil.Sub(now); got < 59*time.Minute || got > time.Hour {
		t.Errorf("locked for %s, want an hour", got)
	}
	if err := d.Delete(t.Context(), "c/x"); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want %v", err, ErrLocked)
	}
	// Our clock being ahead does not help.
	now = now.Add(2 * time.Hour)
	if err := d.Delete(t.Context(), "c/x"); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want %v", err, ErrLocked)
	}
	if got := get(t, d, "c/x"); string(got) != "kept" {
		t.Errorf("it is now %q", got)
	}
}

func TestS3LegalHold(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "held", true)
	d := v.open(t, S3Config{Bucket: "held"})
	put(t, d, "c/x", []byte("kept"))
	on := minio.LegalHoldEnabled
	if err := v.core.PutObjectLegalHold(t.Context(), "held", "c/x", minio.PutObjectLegalHoldOptions{Status: &on}); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), "c/x"); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want %v", err, ErrLocked)
	}
	if got := get(t, d, "c/x"); string(got) != "kept" {
		t.Errorf("it is now %q", got)
	}
}

// In a bucket with versions a plain DELETE would free nothing.
func TestS3DeleteFreesEveryVersion(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "versions", true)
	d := v.open(t, S3Config{Bucket: "versions"})
	for range 2 {
		put(t, d, "c/x", []byte("x"))
		// A marker of somebody else's plain DELETE.
		if err := v.core.RemoveObject(t.Context(), "versions", "c/x", minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, "c/x.json", []byte("other"))
	if err := d.Delete(t.Context(), "c/x"); err != nil {
		t.Fatal(err)
	}
	left, err := d.versions(t.Context(), d.prefix+"c/x")
	if err != nil || len(left) > 0 {
		t.Errorf("%d versions left, %v", len(left), err)
	}
	get(t, d, "c/x.json")
}

func TestS3SweepsInterruptedUploads(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "sweep", false)
	d := v.open(t, S3Config{Bucket: "sweep", Prefix: "p"})
	ours := "p/" + testCluster + "/20261124T151500Z-1a2b3c4d.snap.age"
	for _, key := range []string{ours, "p/somebody/elses", "elsewhere"} {
		if _, err := v.core.NewMultipartUpload(t.Context(), "sweep", key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 0}, {time.Now().Add(time.Hour), 1}, {time.Now().Add(time.Hour), 0}} {
		if n, err := d.Sweep(t.Context(), tt.before); n != tt.want || err != nil {
			t.Errorf("swept %d, %v, want %d", n, err, tt.want)
		}
	}
}

func TestS3Config(t *testing.T) {
	sound := S3Config{Endpoint: "https://nbg1.your-objectstorage.com", Bucket: "b", AccessKey: "a", SecretKey: testSecret}
	tests := []struct {
		name  string
		edit  func(*S3Config)
		fault string
	}{
		{"sound", func(*S3Config) {}, ""},
		{"http on loopback", func(c *S3Config) { c.Endpoint = "http://127.0.0.1:9000" }, ""},
		{"http elsewhere", func(c *S3Config) { c.Endpoint = "http://s3.example.com" }, "loopback"},
		{"a password in the URL", func(c *S3Config) { c.Endpoint = "https://u:" + testSecret + "@h" }, "want https"},
		{"no URL", func(c *S3Config) { c.Endpoint = "s3.example.com" }, "want https"},
		{"a path", func(c *S3Config) { c.Endpoint = "https://s3.example.com/store" }, "it has a path"},
		{"no bucket", func(c *S3Config) { c.Bucket = "" }, "bucket"},
		{"a bucket with a path", func(c *S3Config) { c.Bucket = "a/b" }, "bucket"},
		{"no key", func(c *S3Config) { c.SecretKey = "" }, "credentials"},
		{"small parts", func(c *S3Config) { c.PartSize = 1 << 20 }, "part size"},
		{"an unknown lock mode", func(c *S3Config) { c.LockMode = "strict" }, `"strict"`},
		{"a negative lock", func(c *S3Config) { c.LockFor = -1 }, "negative"},
		{"a bad prefix", func(c *S3Config) { c.Prefix = "../x" }, "prefix"},
		{"no such CA file", func(c *S3Config) { c.CAFile = "/nonexistent" }, "CA file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := sound
			tt.edit(&c)
			s, err := NewS3(c)
			if tt.fault == "" {
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(c.Endpoint, hetznerDomain) && s.cfg.Region != "nbg1" {
					t.Errorf("region %q", s.cfg.Region)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Fatalf("got %v, want an error with %q", err, tt.fault)
			}
			if strings.Contains(err.Error(), testSecret) {
				t.Error("the error shows the secret")
			}
		})
	}
}

// What somebody deletes in a bucket with object lock is hidden and not gone: it is listed,
// told, verified, read, and kept.
func TestS3DeletedUnderALock(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "hidden", true)
	k, d := newKeys(t), v.open(t, S3Config{Bucket: "hidden"})
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Now = time.Now
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	verify := verifyOptions(t, k, d)
	verify.TakeStateDir = o.StateDir
	if _, err := Verify(t.Context(), verify); err != nil {
		t.Fatal(err)
	}
	objects, err := d.List(t.Context(), "")
	if err != nil || len(objects) != 3 {
		t.Fatalf("%+v, %v", objects, err)
	}
	for _, ob := range objects {
		if err := v.core.RemoveObject(t.Context(), "hidden", ob.Name, minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := List(t.Context(), d, testCluster)
	if err != nil || len(entries) != 1 || !entries[0].Hidden || !entries[0].Verified || entries[0].ID.String() != taken.Manifest.ID {
		t.Fatalf("%+v, %v", entries, err)
	}
	if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != taken.Manifest.ID {
		t.Errorf("newest verified %q, %v", m.ID, err)
	}
	if _, err := Verify(t.Context(), verify); !errors.Is(err, ErrDeleted) {
		t.Errorf("verify: %v", err)
	}
	if s, err := LoadVerifyState(verify.StateDir); err != nil || s.LastGood[d.Name()].ID != taken.Manifest.ID || s.Failure == nil {
		t.Errorf("%+v, %v", s, err)
	}
	if info, err := d.Stat(t.Context(), taken.Manifest.Snapshot.Name); err != nil || !info.Hidden || info.Size != taken.Manifest.Snapshot.Size {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := d.Stat(t.Context(), testCluster+"/none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what nobody has stored: %v", err)
	}
	// Whoever deletes it by its versions, as Prune does, has it gone.
	if err := d.Delete(t.Context(), taken.Manifest.Snapshot.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Stat(t.Context(), taken.Manifest.Snapshot.Name); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}
