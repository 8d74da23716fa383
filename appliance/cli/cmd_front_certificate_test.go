package cli

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/serve/front"
	"strongroom.example/appliance/serve/localtls"
)

// A renewed certificate is handed over, once; what does not fit is refused with
// the exit code that decides whether systemd tries again.
func TestFrontCertificateCommand(t *testing.T) {
	pair, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := func(name string) string {
		t.Helper()
		file, served := filepath.Join(dir, name+".toml"), filepath.Join(dir, "files.pem")
		text := fmt.Sprintf("listen = [\"127.0.0.1:1\"]\nnames = [%q]\nstorage = %q\nissuer = \"files\"\n[files]\ncert = %q\nkey = %q\n"+
			"[vault]\naddress = \"127.0.0.1:1\"\nca_file = \"/a\"\ncert_file = \"/b\"\nkey_file = \"/c\"\n", name, dir, served, served)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	t.Run("another's key for a minute", func(t *testing.T) {
		credentials := t.TempDir()
		for name, b := range map[string][]byte{certificateCredential: pair.ServerCrt, certificateKey: other.ServerKey} {
			if err := os.WriteFile(filepath.Join(credentials, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("CREDENTIALS_DIRECTORY", credentials)
		start := time.Now()
		for _, try := range []struct {
			after time.Duration
			code  int
		}{{0, ExitFailed}, {50 * time.Second, ExitFailed}, {front.RenewalPatience, ExitOperator}, {2 * front.RenewalPatience, ExitFailed}} {
			err := runFrontCertificate(New("test"), config("localhost"), start.Add(try.after))
			var e *Error
			if !errors.As(err, &e) || e.Code != try.code {
				t.Errorf("after %v: %v, want exit code %d", try.after, err, try.code)
			}
		}
	})
	for _, c := range []struct {
		name, config string
		cert, key    []byte
		code         int
		want         string
	}{
		{"no such configuration", filepath.Join(dir, "none.toml"), pair.ServerCrt, pair.ServerKey, ExitUsage, "no such file"},
		{"another's key", config("localhost"), pair.ServerCrt, other.ServerKey, ExitFailed, "do not belong together"},
		{"another name", config("vault.example.org"), pair.ServerCrt, pair.ServerKey, ExitOperator, "not fit to be served"},
		{"the first", config("localhost"), pair.ServerCrt, pair.ServerKey, ExitOK, "Another certificate is handed"},
		{"the same again", config("localhost"), pair.ServerCrt, pair.ServerKey, ExitOK, "has this certificate already"},
		{"the next", config("localhost"), other.ServerCrt, other.ServerKey, ExitOK, "Another certificate is handed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			credentials := t.TempDir()
			for name, b := range map[string][]byte{certificateCredential: c.cert, certificateKey: c.key} {
				if err := os.WriteFile(filepath.Join(credentials, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("CREDENTIALS_DIRECTORY", credentials)
			cmd := New("1.2.3 (abc)")
			var out bytes.Buffer
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			cmd.SetArgs([]string{"front", "certificate", "--config", c.config})
			code := Report(&out, cmd.ExecuteContext(t.Context()))
			if code != c.code || !strings.Contains(out.String(), c.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, c.code, c.want, out.String())
			}
			if strings.Contains(out.String(), "BEGIN") {
				t.Errorf("it shows a file:\n%s", out.String())
			}
		})
	}
}
