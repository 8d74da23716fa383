package front

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/serve/authority"
	"strongroom.example/config"
)

// job is the one that has the root's key, as systemd starts it for each question.
type job struct {
	folder string
	names  []string
	now    time.Time
	stop   func()
}

// withJob gives c such a job.
func withJob(t *testing.T, c *Config) *job {
	t.Helper()
	dir, err := os.MkdirTemp("", "ca") // the socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	j := &job{folder: filepath.Join(dir, "authority"), names: c.Names, now: time.Now()}
	if err := os.Mkdir(j.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Authority = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", c.Authority)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = authority.Serve(conn, j.folder, j.names, j.now) // the asker is told
			_ = conn.Close()
		}
	}()
	j.stop = func() { _ = l.Close(); <-done }
	t.Cleanup(func() { j.stop(); _ = os.RemoveAll(dir) })
	return j
}

// healed heals c's storage and gives the root that it has then.
func healed(t *testing.T, c Config, now time.Time) (root *x509.Certificate, said string, err error) {
	t.Helper()
	h, release, err := heal(c, now)
	if err != nil {
		return nil, "", err
	}
	release()
	root = readRoot(h.path(rootKey + ".crt"))
	inter, ok := h.readPair(interKey)
	if root == nil || !ok || inter.Leaf.CheckSignatureFrom(root) != nil || !validAt(inter.Leaf, now) {
		t.Fatalf("there is no intermediate certificate to sign with: %v", h.moved)
	}
	return root, strings.Join(h.moved, "\n"), nil
}

func (j *job) at(name string) string { return filepath.Join(j.folder, name) }

// The root's key is never where the front is; under it the front serves.
func TestRootElsewhere(t *testing.T) {
	c := baseConfig(t, newBackend(t, http.HandlerFunc(echo)))
	c.Names = []string{"127.0.0.1"}
	j := withJob(t, &c)
	f := startFront(t, c)
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
		t.Errorf("got %s", res.Status)
	}
	f.stop(t)
	if !bytes.Equal(readFile(t, c.RootFile), readFile(t, j.at("root.crt"))) {
		t.Error("clients are given another root than the job has")
	}
	err := filepath.WalkDir(c.Storage, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "root.key" {
			t.Errorf("%s is in the front's storage", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is there to give up
		if err := NewRoot(c, j.folder, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	old := readFile(t, filepath.Join(c.Storage, rootKey+".crt"))
	if res, _ := startFront(t, c).get("/v1/sys/health"); res.StatusCode != 200 {
		t.Errorf("after a new root: %s", res.Status)
	}
	if bytes.Equal(readFile(t, c.RootFile), old) {
		t.Error("the root is the one of before")
	}
}

// What is damaged is made anew under the same root, or it is said that the root is gone;
// never is it another.
func TestRootElsewhereStays(t *testing.T) {
	nuls := bytes.Repeat([]byte{0}, 300)
	tests := map[string]struct {
		do    func(t *testing.T, c *Config, j *job)
		later time.Duration
		want  string // the error
		said  string
	}{
		"nothing":            {},
		"due":                {later: authority.IntermediateLife - authority.IntermediateLife/3 + time.Hour},
		"over":               {later: 2 * authority.IntermediateLife},
		"the clock was back": {later: -2 * time.Hour},
		"the job is gone":    {do: func(_ *testing.T, _ *Config, j *job) { j.stop() }},
		"the job is gone, and it is due": {
			do: func(_ *testing.T, _ *Config, j *job) { j.stop() }, later: authority.IntermediateLife - time.Hour, said: "no other intermediate certificate could be had",
		},
		"the job is gone, and it is over": {
			do: func(_ *testing.T, _ *Config, j *job) { j.stop() }, later: 2 * authority.IntermediateLife, want: "journalctl -u 'strongroom-front-authority@*' has why",
		},
		"the job's certificate is gone":    {do: func(t *testing.T, _ *Config, j *job) { remove(t, j.at("root.crt")) }, later: 2 * authority.IntermediateLife},
		"the job's certificate is damaged": {do: func(t *testing.T, _ *Config, j *job) { writeTo(t, j.at("root.crt"), nuls) }, later: 2 * authority.IntermediateLife},
		"the job's certificate is damaged, and none is published": {do: func(t *testing.T, c *Config, j *job) {
			writeTo(t, j.at("root.crt"), nuls)
			remove(t, c.RootFile)
		}, later: 2 * authority.IntermediateLife},
		"the job's key is gone":    {do: func(t *testing.T, _ *Config, j *job) { remove(t, j.at("root.key")) }, later: 2 * authority.IntermediateLife, want: authority.ErrRoot.Error()},
		"the job's key is damaged": {do: func(t *testing.T, _ *Config, j *job) { writeTo(t, j.at("root.key"), nuls) }, later: 2 * authority.IntermediateLife, want: authority.ErrRoot.Error()},
		"all of the job's is gone": {do: func(t *testing.T, _ *Config, j *job) {
			remove(t, j.at("root.key"))
			remove(t, j.at("root.crt"))
		}, later: 2 * authority.IntermediateLife, want: authority.ErrRoot.Error()},
		"clients hold another": {do: func(t *testing.T, c *Config, _ *job) {
			crt, _, err := authority.NewRoot(c.Names, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			writeTo(t, c.RootFile, crt)
		}, later: 2 * authority.IntermediateLife, want: authority.ErrRoot.Error()},
		"the same names and more": {do: func(_ *testing.T, c *Config, j *job) {
			c.Names = append(slices.Clone(c.Names), "vault.example.com")
			j.names = c.Names
		}, want: authority.ErrNames.Error()},
		"nothing is published":         {do: func(t *testing.T, c *Config, _ *job) { remove(t, c.RootFile) }},
		"what is published is damaged": {do: func(t *testing.T, c *Config, _ *job) { writeTo(t, c.RootFile, nuls) }},
	}
	for _, file := range []string{rootKey + ".crt", interKey + ".crt", interKey + ".key"} {
		tests[file+" is damaged"] = struct {
			do    func(t *testing.T, c *Config, j *job)
			later time.Duration
			want  string
			said  string
		}{do: func(t *testing.T, c *Config, _ *job) { writeTo(t, filepath.Join(c.Storage, file), nuls) }}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := config.DefaultFront()
			c.Issuer, c.Names, c.Storage, c.RootFile = config.TLSInternal, []string{"127.0.0.1"}, filepath.Join(dir, "storage"), filepath.Join(dir, "root.pem")
			if err := os.Mkdir(c.Storage, 0o700); err != nil {
				t.Fatal(err)
			}
			j := withJob(t, &c)
			first, _, err := healed(t, c, j.now)
			if err != nil {
				t.Fatal(err)
			}
			if err := publishRoot(c); err != nil {
				t.Fatal(err)
			}
			if tt.do != nil {
				tt.do(t, &c, j)
			}
			j.now = j.now.Add(tt.later)
			root, said, err := healed(t, c, j.now)
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got %v, want %q", err, tt.want)
				}
				// A person's word makes another.
				if err := NewRoot(c, j.folder, time.Now()); err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(name, "the job is gone") {
					return
				}
				if root, _, err = healed(t, c, j.now); err != nil || root.Equal(first) {
					t.Errorf("after a new root: %v", err)
				}
			case err != nil:
				t.Fatal(err)
			case !root.Equal(first):
				t.Error("it is another root")
			case !strings.Contains(said, tt.said):
				t.Errorf("it says %q", said)
			}
			for _, name := range []string{"root.key", "root.crt"} {
				if fi, err := os.Stat(j.at(name)); err == nil && fi.Mode().Perm() != 0o600 && tt.do == nil {
					t.Errorf("%s has mode %s", name, fi.Mode())
				}
			}
		})
	}
}

// A root of before, whose key is the front's, stays until a person gives it up; then the
// job has the next one.
func TestRootOfBefore(t *testing.T) {
	first := usedStorage(t)
	c := copyOf(t, first)
	j := withJob(t, &c)
	startFront(t, c).stop(t)
	if !bytes.Equal(readFile(t, c.RootFile), readFile(t, first.RootFile)) || there(j.at("root.key")) {
		t.Fatal("it is replaced")
	}
	if err := NewRoot(c, j.folder, time.Now()); err != nil {
		t.Fatal(err)
	}
	startFront(t, c).stop(t)
	if !bytes.Equal(readFile(t, c.RootFile), readFile(t, j.at("root.crt"))) {
		t.Error("clients are given another root than the job has")
	}
	if there(filepath.Join(c.Storage, rootKey+".key")) {
		t.Error("the key of before is still in its place")
	}
}

// What was stopped between two of its writes is taken up by the next.
func TestRootThatWasCut(t *testing.T) {
	c := config.DefaultFront()
	dir := t.TempDir()
	c.Issuer, c.Names, c.Storage, c.RootFile = config.TLSInternal, []string{"127.0.0.1"}, dir, filepath.Join(dir, "root.pem")
	j := withJob(t, &c)
	if _, _, err := healed(t, c, j.now); err != nil {
		t.Fatal(err)
	}
	// The key is written, and not the certificate; nobody has seen either.
	remove(t, j.at("root.crt"))
	remove(t, filepath.Join(c.Storage, "pki"))
	first, _, err := healed(t, c, j.now)
	if err != nil {
		t.Fatal(err)
	}
	// A root is given up, and nothing more was done.
	writeTo(t, j.at("retired-"+authority.Fingerprint(first)+".crt"), readFile(t, j.at("root.crt")))
	writeTo(t, c.RootFile, readFile(t, j.at("root.crt")))
	second, _, err := healed(t, c, j.now)
	if err != nil || second.Equal(first) {
		t.Errorf("a root that was given up signs: %v", err)
	}
	if there(c.RootFile) {
		t.Error("the root that was given up is still published")
	}
}

// Another name wants another root, by a person's word; a root from before there were
// constraints stays valid, for any name.
func TestRootOfOtherNames(t *testing.T) {
	first := usedStorage(t)
	root := readRoot(first.RootFile)
	if root == nil || !root.PermittedDNSDomainsCritical || len(root.ExcludedDNSDomains) != 1 || len(root.PermittedIPRanges) != 1 {
		t.Fatalf("the root is for %v", root)
	}
	c := copyOf(t, first)
	c.Names = []string{"127.0.0.1", "localhost"}
	f := launch(t, c).start()
	<-f.done
	if said := f.output(); !strings.Contains(said, "the internal CA's root is for other names") || !strings.Contains(said, "front new-root") {
		t.Fatalf("it said\n%s", said)
	}
	if !bytes.Equal(readFile(t, c.RootFile), readFile(t, first.RootFile)) {
		t.Error("clients are given another root")
	}
	if err := NewRoot(c, withJob(t, &c).folder, time.Now()); err != nil {
		t.Fatal(err)
	}
	if res, _ := startFront(t, c).get("/v1/sys/health"); res.StatusCode != 200 {
		t.Errorf("got %s", res.Status)
	}

	old := copyOf(t, first)
	remove(t, old.Storage)
	remove(t, old.RootFile)
	crt, key := rootOfBefore(t)
	writeTo(t, filepath.Join(old.Storage, rootKey+".crt"), crt)
	writeTo(t, filepath.Join(old.Storage, rootKey+".key"), key)
	old.Names = []string{"localhost", "127.0.0.1"}
	startFront(t, old)
	if !bytes.Equal(readFile(t, old.RootFile), crt) {
		t.Error("a root of before is replaced")
	}
}

// rootOfBefore is one as earlier versions made it, for every name.
func rootOfBefore(t *testing.T) (crt, key []byte) {
	t.Helper()
	crt, key, err := authority.NewRoot([]string{"x"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	free := &x509.Certificate{
		SerialNumber: pair.Leaf.SerialNumber, Subject: pair.Leaf.Subject, NotBefore: pair.Leaf.NotBefore, NotAfter: pair.Leaf.NotAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: pair.Leaf.KeyUsage,
	}
	der, err := x509.CreateCertificate(rand.Reader, free, free, pair.Leaf.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

// A front that runs gets another intermediate certificate in time, and ends so that it is
// used; while the job does not answer it goes on.
func TestWatchDue(t *testing.T) {
	c := config.DefaultFront()
	dir := t.TempDir()
	c.Issuer, c.Names, c.Storage, c.RootFile = config.TLSInternal, []string{"127.0.0.1"}, dir, filepath.Join(dir, "root.pem")
	j := withJob(t, &c)
	socket := c.Authority
	if _, _, err := healed(t, c, j.now); err != nil {
		t.Fatal(err)
	}
	inter := filepath.Join(c.Storage, interKey+".crt")
	first := readFile(t, inter)
	for _, tt := range []struct {
		name   string
		after  time.Duration
		socket string
		ends   bool
	}{
		{"not due", authority.IntermediateLife / 2, socket, false},
		{"due, and nobody answers", authority.IntermediateLife - time.Hour, filepath.Join(dir, "none"), false},
		{"due", authority.IntermediateLife - time.Hour, socket, true},
	} {
		c.Authority = tt.socket
		now := j.now.Add(tt.after)
		tick, ended, done := make(chan time.Time), make(chan error, 1), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(done)
			watchDue(ctx, tick, func() time.Time { return now }, c, func(err error) { ended <- err })
		}()
		tick <- now
		if !tt.ends {
			tick <- now // it asks again
			cancel()
		}
		<-done
		cancel()
		if got := len(ended) == 1; got != tt.ends || bytes.Equal(readFile(t, inter), first) == tt.ends {
			t.Errorf("%s: ended: %t", tt.name, got)
		}
	}
}
