package steps

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// release is what a mirror serves of Vault 2.2.2, by path below /vault/2.2.2/.
type release map[string][]byte

const (
	releaseZip  = "vault_2.2.2_linux_" + runtime.GOARCH + ".zip"
	releaseSums = "vault_2.2.2_SHA256SUMS"
)

// newRelease is a good one, signed by key.
func newRelease(t *testing.T, key *openpgp.Entity) release {
	t.Helper()
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for name, text := range map[string]string{"vault": "a Vault from the mirror", "LICENSE.txt": "licence"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r := release{releaseZip: archive.Bytes(), releaseSums: fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(archive.Bytes()), releaseZip)}
	index, err := json.Marshal(map[string]any{
		"name": "vault", "version": "2.2.2", "shasums": releaseSums, "shasums_signature": releaseSums + ".sig",
		"shasums_signatures": []string{releaseSums + ".sig"},
		"builds": []map[string]any{{"name": "vault", "version": "2.2.2", "os": "linux", "arch": runtime.GOARCH, "filename": releaseZip,
			"url": "https://releases.hashicorp.com/vault/2.2.2/" + releaseZip}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r["index.json"] = index
	r.sign(t, key)
	return r
}

func (r release) sign(t *testing.T, key *openpgp.Entity) {
	t.Helper()
	var sig bytes.Buffer
	if err := openpgp.DetachSign(&sig, key, bytes.NewReader(r[releaseSums]), nil); err != nil {
		t.Fatal(err)
	}
	r[releaseSums+".sig"] = sig.Bytes()
}

// ServeHTTP implements http.Handler.
func (r release) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := strings.TrimPrefix(req.URL.Path, "/vault/2.2.2/")
	b, ok := r[name]
	switch {
	case !ok:
		http.NotFound(w, req)
		return
	case strings.HasSuffix(name, ".json"):
		w.Header().Set("Content-Type", "application/json")
	case strings.HasSuffix(name, ".zip"):
		w.Header().Set("Content-Type", "application/zip")
	}
	_, _ = w.Write(b)
}

// pgpKey is a key pair and its public half.
func pgpKey(t *testing.T) (*openpgp.Entity, string) {
	t.Helper()
	e, err := openpgp.NewEntity("Releases", "", "releases@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	w, err := armor.Encode(&text, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	return e, text.String()
}

// TestDownload gets Vault from mirrors, all but one of which lie.
func TestDownload(t *testing.T) {
	key, public := pgpKey(t)
	other, _ := pgpKey(t)
	for name, c := range map[string]struct {
		lie        func(release)
		hashicorps bool // the key that is built in
		want       string
	}{
		"a good one":                     {lie: func(release) {}},
		"another archive":                {lie: func(r release) { r[releaseZip] = append(r[releaseZip], 0) }, want: "checksum does not match"},
		"an archive cut short":           {lie: func(r release) { r[releaseZip] = r[releaseZip][:40] }, want: "checksum does not match"},
		"other sums":                     {lie: func(r release) { r[releaseSums] = append(r[releaseSums], "00 x\n"...) }, want: "unable to verify checksums signature"},
		"signed by another key":          {lie: func(r release) { r.sign(t, other) }, want: "unable to verify checksums signature"},
		"good, and not by HashiCorp":     {lie: func(release) {}, hashicorps: true, want: "unable to verify checksums signature"},
		"no signature":                   {lie: func(r release) { delete(r, releaseSums+".sig") }, want: "failed to download signature"},
		"rubbish for a signature":        {lie: func(r release) { r[releaseSums+".sig"] = []byte("rubbish") }, want: "unable to verify checksums signature"},
		"no sums":                        {lie: func(r release) { delete(r, releaseSums) }, want: "failed to download checksums"},
		"sums that don't name the file":  {lie: func(r release) { r[releaseSums] = nil; r.sign(t, key) }, want: "no checksum found"},
		"no such release":                {lie: func(r release) { clear(r) }, want: "2.2.2"},
		"rubbish for a list of releases": {lie: func(r release) { r["index.json"] = []byte("rubbish") }, want: "2.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", filepath.Join(tmp, "none")) // /tmp, which may be memory, is not used
			dir := filepath.Join(tmp, "lib", "download")
			if err := os.MkdirAll(filepath.Join(dir, "left by a killed run"), 0o700); err != nil {
				t.Fatal(err)
			}
			r := newRelease(t, key)
			c.lie(r)
			srv := httptest.NewServer(r)
			defer srv.Close()
			v := newVPS(t)
			e := v.env()
			e.VaultBinary, e.Config.Vault.Mirror, e.downloadDir = "", srv.URL, dir
			if !c.hashicorps {
				e.releaseKey = public
			}
			diff, err := vaultProgram{e}.Check(t.Context())
			if err != nil || len(diff) != 1 || !strings.Contains(diff[0].To, "signature verified") {
				t.Fatalf("diff = %v, %v", diff, err)
			}
			err = diff[0].Apply(t.Context())
			var failed *fault.Error
			n := v.Files[machine.VaultProgram]
			switch {
			case c.want == "":
				if err != nil || n == nil || string(n.Data) != "a Vault from the mirror" || n.Attr != root(0o755) {
					t.Errorf("error %v, file %+v", err, n)
				}
			case !errors.As(err, &failed) || !strings.Contains(err.Error(), c.want) || !strings.Contains(failed.Hint, "--vault-binary"):
				t.Errorf("error = %v, want %q", err, c.want)
			case n != nil:
				t.Error("something was installed")
			}
			if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if got := os.Getenv("TMPDIR"); got != filepath.Join(tmp, "none") {
				t.Errorf("TMPDIR stays %q", got)
			}
		})
	}
}

func TestInstalledVaultIsKept(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.VaultBinary = ""
	v.Files[machine.VaultProgram] = &host.Node{Data: []byte("Vault")}
	if diff, err := (vaultProgram{e}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("diff = %v, %v", diff, err)
	}
	v.Commands["vault"] = answer("Vault v2.3.0 (abc)\n")
	var failed *fault.Error
	_, err := (vaultProgram{e}).Check(t.Context())
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "Vault 2.3.0 is installed and 2.2.2 is configured") {
		t.Fatalf("error = %v", err)
	}
	if doc := regexp.MustCompile(`docs/\S+\.md`).FindString(failed.Hint); doc != "docs/upgrade.md" {
		t.Errorf("hint %q", failed.Hint)
	}
}

// A release goes into a file of its own, whole and verified or not at all, and a host
// that says nothing is not waited for.
func TestFetchVaultTo(t *testing.T) {
	key, public := pgpKey(t)
	silent := make(chan struct{})
	defer close(silent)
	for name, c := range map[string]struct {
		there  string // in the file before
		host   func(release) http.Handler
		within time.Duration
		want   string
	}{
		"a good one":   {host: func(r release) http.Handler { return r }, within: time.Minute},
		"a liar":       {host: func(r release) http.Handler { r[releaseZip] = append(r[releaseZip], 0); return r }, within: time.Minute, want: "checksum does not match"},
		"no release":   {host: func(release) http.Handler { return http.NotFoundHandler() }, within: time.Minute, want: "2.2.2"},
		"one is there": {there: "mine", host: func(r release) http.Handler { return r }, within: time.Minute, want: "is there already"},
		"a silent host": {host: func(release) http.Handler {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-silent })
		}, within: 50 * time.Millisecond, want: "no answer within 50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "vault")
			if c.there != "" {
				if err := os.WriteFile(file, []byte(c.there), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			srv := httptest.NewServer(c.host(newRelease(t, key)))
			defer srv.CloseClientConnections()
			err := fetchVaultTo(t.Context(), config.Vault{Version: "2.2.2", Mirror: srv.URL}, public, file, c.within)
			if c.want == "" && err != nil || c.want != "" && !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			got, readErr := os.ReadFile(file)
			fi, statErr := os.Stat(file)
			switch {
			case c.want == "":
				if string(got) != "a Vault from the mirror" || statErr != nil || fi.Mode() != 0o755 {
					t.Errorf("%v, %v, the file is %q", readErr, statErr, got)
				}
			case string(got) != c.there:
				t.Errorf("the file is %q", got)
			}
			left, err := os.ReadDir(dir)
			if want := len(got); err != nil || len(left) != min(want, 1) {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// The program that Vault is in use with is replaced by an upgrade alone, of whatever
// version the new one says it is; what the machine was installed with may be put back.
func TestProgramInUseIsNotReplaced(t *testing.T) {
	for _, c := range []struct {
		name    string
		inUse   bool
		given   string
		change  func(*vps, *Env)
		refused bool
	}{
		{"another version", true, "Vault v2.3.0", nil, true},
		{"other bytes of the same version", true, "Vault v2.2.2", nil, true},
		{"the same program", true, "Vault v2.2.2", func(v *vps, _ *Env) { v.Files[machine.VaultProgram].Data = v.Files["/root/vault"].Data }, false},
		{"before there is anything in Vault", false, "Vault v2.3.0", nil, false},
		{"in an upgrade", true, "Vault v2.3.0", func(_ *vps, e *Env) { e.Upgrading = true }, false},
		{"none is there", true, "Vault v2.2.2", func(v *vps, _ *Env) { delete(v.Files, machine.VaultProgram) }, false},
		{"what was installed, in place of a damaged one", true, "Vault v2.2.2", func(v *vps, _ *Env) {
			sum, err := v.Host().Sum("/root/vault")
			if err != nil {
				panic(err)
			}
			v.Files[machine.ManifestFile] = &host.Node{Data: []byte(`{"format":1,"version":"1.2.3","files":[{"path":"` + machine.VaultProgram + `","sha256":"` + sum + `"}]}`)}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVPS(t)
			v.Files["/root/vault"] = &host.Node{Data: []byte(c.given)}
			v.Files[machine.VaultProgram] = &host.Node{Data: []byte("the one that is in use"), Info: host.Info{Attr: root(0o755)}}
			v.Commands["vault"] = answer(c.given + " (abc)\n")
			if c.inUse {
				v.Files[machine.DoctorSecretFile] = &host.Node{}
			}
			e := v.env()
			if c.change != nil {
				c.change(v, e)
			}
			diff, err := vaultProgram{e}.Check(t.Context())
			var failed *fault.Error
			if refused := errors.As(err, &failed) && failed.Code == fault.Operator && strings.Contains(failed.Hint, "upgrade --vault-binary /root/vault"); refused != c.refused {
				t.Errorf("%v, error = %v", diff, err)
			}
		})
	}
}
