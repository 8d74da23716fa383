package front

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/authority"
	"strongroom.example/config"
)

// The storage's files in the order in which a first start makes them.
var storageFiles = []string{
	rootKey + ".crt", rootKey + ".key", interKey + ".crt", interKey + ".key",
	"certificates/local/127.0.0.1/127.0.0.1.crt", "certificates/local/127.0.0.1/127.0.0.1.key", "certificates/local/127.0.0.1/127.0.0.1.json",
}

const leafFolder = "certificates/local/127.0.0.1"

// usedStorage is a front's configuration with the storage that a first start has made.
func usedStorage(t *testing.T) Config {
	t.Helper()
	c := baseConfig(t, newBackend(t, http.HandlerFunc(echo)))
	c.Names = []string{"127.0.0.1"}
	f := startFront(t, c)
	f.stop(t)
	for _, file := range storageFiles {
		if !there(filepath.Join(c.Storage, file)) {
			t.Fatalf("a first start makes no %s", file)
		}
	}
	return c
}

// copyOf is c with a copy of its storage.
func copyOf(t *testing.T, c Config) Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "storage"), os.DirFS(c.Storage)); err != nil {
		t.Fatal(err)
	}
	writeTo(t, filepath.Join(dir, "root.pem"), readFile(t, c.RootFile))
	c.Storage, c.RootFile, c.Listen = filepath.Join(dir, "storage"), filepath.Join(dir, "root.pem"), []string{freePort(t)}
	return c
}

func writeTo(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// Whatever a power cut, a full disk or a clock leaves in the storage, the next start
// serves, under the root that clients trust.
func TestStorageHeals(t *testing.T) {
	first := usedStorage(t)
	nuls := bytes.Repeat([]byte{0}, 300)
	_, otherKey := selfSigned(t, "other", time.Now())
	type damage struct {
		name string
		do   func(t *testing.T, c Config)
	}
	lock := func(text string) func(*testing.T, Config) {
		return func(t *testing.T, c Config) {
			remove(t, filepath.Join(c.Storage, leafFolder))
			writeTo(t, filepath.Join(c.Storage, "locks", "issue_cert_127.0.0.1.lock"), []byte(text))
		}
	}
	tests := []damage{
		{"lock of NULs", lock(string(nuls))},
		{"lock with half a JSON", lock(`{"created":"2026-`)},
		{"lock of next year", lock(`{"created":"2036-01-01T00:00:00Z","updated":"2036-01-01T00:00:00Z"}`)},
		{"no published root", func(t *testing.T, c Config) { remove(t, c.RootFile) }},
		{"published root of NULs", func(t *testing.T, c Config) { writeTo(t, c.RootFile, nuls) }},
		{"budget of NULs", func(t *testing.T, c Config) { writeTo(t, filepath.Join(c.Storage, budgetFile), nuls) }},
	}
	for _, file := range storageFiles {
		for _, content := range []struct {
			name string
			of   func(whole []byte) []byte
		}{
			{"of NULs", func([]byte) []byte { return nuls }}, {"empty", func([]byte) []byte { return nil }},
			{"half", func(whole []byte) []byte { return whole[:len(whole)/2] }},
		} {
			tests = append(tests, damage{filepath.Base(file) + " " + content.name, func(t *testing.T, c Config) {
				at := filepath.Join(c.Storage, file)
				writeTo(t, at, content.of(readFile(t, at)))
			}})
		}
		tests = append(tests, damage{filepath.Base(file) + " gone", func(t *testing.T, c Config) { remove(t, filepath.Join(c.Storage, file)) }})
		if strings.HasSuffix(file, ".key") {
			tests = append(tests, damage{filepath.Base(file) + " of another", func(t *testing.T, c Config) { writeTo(t, filepath.Join(c.Storage, file), otherKey) }})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := copyOf(t, first)
			tt.do(t, c)
			f := startFront(t, c)
			if !bytes.Equal(readFile(t, c.RootFile), readFile(t, first.RootFile)) {
				t.Fatal("clients are given another root")
			}
			if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
				t.Errorf("got %s", res.Status)
			}
		})
	}
}

// A first start that ended at any of its writes, as on a disk that is full, is taken up
// by the next one.
func TestFirstStartThatWasCut(t *testing.T) {
	first := usedStorage(t)
	for n, file := range storageFiles {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, half %t", n, half), func(t *testing.T) {
				t.Parallel()
				c := copyOf(t, first)
				for _, later := range storageFiles[n+1:] {
					remove(t, filepath.Join(c.Storage, later))
				}
				if at := filepath.Join(c.Storage, file); half {
					whole := readFile(t, at)
					writeTo(t, at, whole[:len(whole)/2])
				}
				remove(t, c.RootFile) // is written last
				if res, _ := startFront(t, c).get("/v1/sys/health"); res.StatusCode != 200 {
					t.Errorf("got %s", res.Status)
				}
			})
		}
	}
}

// A root that clients trust is never replaced in silence.
func TestRootStays(t *testing.T) {
	first := usedStorage(t)
	both := func(t *testing.T, c Config) {
		writeTo(t, filepath.Join(c.Storage, rootKey+".crt"), []byte("x"))
		writeTo(t, filepath.Join(c.Storage, rootKey+".key"), []byte("x"))
	}
	for name, do := range map[string]func(t *testing.T, c Config){
		"damaged, both files": both,
		"gone, with all":      func(t *testing.T, c Config) { remove(t, filepath.Join(c.Storage, "pki")) },
		"another one": func(t *testing.T, c Config) {
			crt, _ := selfSigned(t, "other", time.Now())
			writeTo(t, c.RootFile, crt)
		},
		"no key, and no intermediate": func(t *testing.T, c Config) {
			remove(t, filepath.Join(c.Storage, rootKey+".key"))
			remove(t, filepath.Join(c.Storage, interKey+".crt"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := copyOf(t, first)
			do(t, c)
			published := readFile(t, c.RootFile)
			f := launch(t, c).start()
			f.waitOutput("ERROR")
			<-f.done
			if f.err == nil || !strings.Contains(f.output(), authority.ErrRoot.Error()) {
				t.Fatalf("ended with %v:\n%s", f.err, f.output())
			}
			if !bytes.Equal(readFile(t, c.RootFile), published) {
				t.Error("clients are given another root")
			}
			// A person's word makes another.
			if err := NewRoot(c, withJob(t, &c).folder, time.Now()); err != nil {
				t.Fatal(err)
			}
			if res, _ := startFront(t, c).get("/v1/sys/health"); res.StatusCode != 200 {
				t.Errorf("got %s", res.Status)
			}
			if bytes.Equal(readFile(t, c.RootFile), published) {
				t.Error("the root is the one of before")
			}
		})
	}
	c := copyOf(t, first)
	c.Issuer = config.TLSACME
	if err := NewRoot(c, t.TempDir(), time.Now()); err == nil {
		t.Error("an issuer without a root of its own gets a new one")
	}
}

// Both ends of what the internal CA has signed are looked at; what a public CA has
// signed, by its clock, stays.
func TestClockOfTheStorage(t *testing.T) {
	first := usedStorage(t)
	now := time.Now()
	leaf, _ := pem.Decode(readFile(t, filepath.Join(first.Storage, storageFiles[4])))
	crt, err := x509.ParseCertificate(leaf.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		now    time.Time
		issuer string
		gone   []string
	}{
		{"right", now, config.TLSInternal, nil},
		{"in the leaf's last second", crt.NotAfter.Add(-time.Second), config.TLSInternal, nil},
		{"after the leaf", crt.NotAfter.Add(time.Second), config.TLSInternal, []string{storageFiles[4]}},
		{"after the intermediate", now.AddDate(0, 1, 0), config.TLSInternal, []string{storageFiles[2], storageFiles[3], storageFiles[4]}},
		{"before all of them", now.AddDate(-4, 0, 0), config.TLSInternal, []string{storageFiles[2], storageFiles[3], storageFiles[4]}},
		{"before all of them, of a public CA", now.AddDate(-4, 0, 0), config.TLSACME, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := copyOf(t, first)
			c.Issuer = tt.issuer
			h, release, err := heal(c, tt.now)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			for _, file := range storageFiles[2:5] {
				if got := !there(filepath.Join(c.Storage, file)); got != slices.Contains(tt.gone, file) {
					t.Errorf("%s moved: %t; %s", file, got, h.moved)
				}
			}
			if len(tt.gone) == 0 && len(h.moved) > 0 {
				t.Error(h.moved)
			}
		})
	}
}

func TestWatchValid(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	served := func(begins time.Duration) certmagic.Certificate {
		crt, key := selfSigned(t, "localhost", now.Add(begins))
		pair, err := tls.X509KeyPair(crt, key)
		if err != nil {
			t.Fatal(err)
		}
		return certmagic.Certificate{Certificate: pair}
	}
	for _, tt := range []struct {
		name string
		all  []certmagic.Certificate
		ends bool
	}{
		{"valid", []certmagic.Certificate{served(-time.Hour)}, false},
		{"begins later", []certmagic.Certificate{served(time.Minute)}, true},
		{"has ended", []certmagic.Certificate{served(-48 * time.Hour)}, true},
		{"one of two", []certmagic.Certificate{served(-48 * time.Hour), served(-time.Hour)}, false},
		{"none", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			tick := make(chan time.Time)
			ended := make(chan error, 1)
			done := make(chan struct{})
			go func() {
				watchValid(ctx, tick, func() time.Time { return now }, []string{"localhost"},
					func(string) []certmagic.Certificate { return tt.all }, func(err error) { ended <- err })
				close(done)
			}()
			tick <- now
			if !tt.ends {
				tick <- now // it asks again
				cancel()
			}
			<-done
			cancel()
			if got := len(ended) == 1; got != tt.ends {
				t.Errorf("ended: %t", got)
			}
		})
	}
}

// An account that cannot be read is made anew; a whole one stays.
func TestAccountsHeal(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	const folder = "acme/ca.example.org-directory/users/ops@example.org"
	for name, tt := range map[string]struct {
		files map[string]string
		stays bool
	}{
		"whole":           {map[string]string{"ops.json": `{"status":"valid"}`, "ops.key": string(whole)}, true},
		"key of NULs":     {map[string]string{"ops.json": `{}`, "ops.key": "\x00\x00"}, false},
		"account of NULs": {map[string]string{"ops.json": "\x00\x00", "ops.key": string(whole)}, false},
		"half an account": {map[string]string{"ops.json": `{"status":`, "ops.key": string(whole)}, false},
		"no key":          {map[string]string{"ops.json": `{}`}, false},
		"no account":      {map[string]string{"ops.key": string(whole)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Storage: t.TempDir(), Issuer: config.TLSACME, Names: []string{"a.example.org"}}
			for file, text := range tt.files {
				writeTo(t, filepath.Join(c.Storage, folder, file), []byte(text))
			}
			_, release, err := heal(c, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			release()
			if got := there(filepath.Join(c.Storage, folder)); got != tt.stays {
				t.Errorf("stays: %t", got)
			}
		})
	}
}

// A count that cannot be read is full for an hour, and then works again.
func TestBudgetHeals(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	c := Config{Storage: t.TempDir(), Issuer: config.TLSACME, Names: []string{"a.example.org"}, ACME: &config.FrontACME{CA: "https://ca.example.org/directory"}}
	writeTo(t, filepath.Join(c.Storage, budgetFile), []byte("\x00\x00\x00"))
	_, release, err := heal(c, now)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b := newBudget(c.Storage, func() time.Time { return now })
	if err := b.check("ca.example.org", c.Names); !errors.Is(err, ErrBudget) {
		t.Fatalf("at once: %v", err)
	}
	now = now.Add(failureWindow + time.Second)
	if err := b.check("ca.example.org", c.Names); err != nil {
		t.Fatalf("an hour later: %v", err)
	}
}

// What was moved aside is kept, and not for ever.
func TestDamagedIsBounded(t *testing.T) {
	c := Config{Storage: t.TempDir(), Issuer: config.TLSInternal}
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	for n := range damagedMost + 5 {
		writeTo(t, filepath.Join(c.Storage, leafFolder, "127.0.0.1.key"), []byte{byte(n)})
		_, release, err := heal(c, now.Add(time.Duration(n)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	kept, err := filepath.Glob(filepath.Join(c.Storage, damagedFolder, "*", "127.0.0.1.key"))
	if err != nil || len(kept) != damagedMost || !bytes.Equal(readFile(t, kept[damagedMost-1]), []byte{damagedMost + 4}) {
		t.Errorf("%d kept, %v", len(kept), err)
	}
}

// One front a storage.
func TestStorageIsOneFronts(t *testing.T) {
	c := Config{Storage: t.TempDir(), Issuer: config.TLSInternal}
	_, release, err := heal(c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := heal(c, time.Now()); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("a second front: %v", err)
	}
	release()
	if _, release, err = heal(c, time.Now()); err != nil {
		t.Fatal(err)
	}
	release()
}

// selfSigned is a CA's certificate for name, valid for a day from begins on, and its key.
func selfSigned(t *testing.T, name string, begins time.Time) (crt, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: begins, NotAfter: begins.Add(24 * time.Hour), DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = certmagic.PEMEncodePrivateKey(private); err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}
