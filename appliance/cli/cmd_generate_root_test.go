package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/base/wayin"
)

// rootVault is a Vault of 1.x or 2.x that makes a root token for the keys canary-a and
// canary-b.
type rootVault struct {
	config       string // file; "" is a Vault of 1.x
	bao          bool   // is OpenBao
	open, signal bool
	asked        []string
}

func (v *rootVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const token, otp = "hvs.canary", "0123456789"
	if strings.HasSuffix(r.URL.Path, "/sys/health") {
		if v.bao {
			fmt.Fprint(w, `{"initialized":true,"replication_dr_mode":"unknown"}`)
			return
		}
		fmt.Fprint(w, `{"enterprise":false,"initialized":true,"replication_dr_mode":"disabled"}`)
		return
	}
	if v.config != "" && !v.open {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":["permission denied"]}`)
		return
	}
	var body struct{ Key string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch {
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(r.URL.Path, "/attempt"):
		fmt.Fprintf(w, `{"nonce":"n","otp":%q,"required":2}`, otp)
	case body.Key != "canary-a" && body.Key != "canary-b":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"errors":["root generation aborted"]}`)
	default:
		v.asked = append(v.asked, body.Key)
		raw := []byte(token)
		for i := range raw {
			raw[i] ^= otp[i]
		}
		fmt.Fprintf(w, `{"complete":%v,"encoded_token":%q}`, len(v.asked) == 2, base64.RawStdEncoding.EncodeToString(raw))
	}
}

func (v *rootVault) reload(context.Context) error {
	b, err := os.ReadFile(v.config)
	v.open, v.signal = bytes.Contains(b, []byte("enable_unauthenticated_access")), true
	return err
}

func TestGenerateRoot(t *testing.T) {
	const own = "ui = true\n"
	for name, tt := range map[string]struct {
		v1   bool
		bao  bool
		in   string
		code int
		says string
	}{
		"Vault 1.x":                  {v1: true, in: "canary-a\ncanary-b\n"},
		"Vault 2.x":                  {in: "canary-a\ncanary-b\n"},
		"two files, one key in both": {in: "canary-a\n\n canary-a \r\ncanary-b"},
		"too few":                    {in: "canary-a\n", code: ExitOperator, says: "1 of the 2 that Vault asks for"},
		"another Vault's":            {in: "canary-x\ncanary-y\n", code: ExitOperator, says: "no recovery keys of this Vault"},
		"OpenBao":                    {v1: true, bao: true, in: "canary-a\ncanary-b\n", code: ExitFailed, says: "the gate was asked for"},
		"nothing":                    {in: "\n\n", code: ExitUsage, says: "no recovery keys on standard input"},
		"something else":             {in: strings.Repeat("canary", 1000), code: ExitUsage, says: "holds something else"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "vault.hcl")
			if err := os.WriteFile(file, []byte(own), 0o640); err != nil {
				t.Fatal(err)
			}
			v := &rootVault{config: file, bao: tt.bao}
			if tt.v1 {
				v.config = ""
			}
			s := httptest.NewServer(v)
			defer s.Close()
			code, out, said := runGenerateRoot(t, v, file, tt.in, "--address", s.URL)
			if code != tt.code || !strings.Contains(said, tt.says) || strings.Contains(said, "canary") {
				t.Errorf("exit code %d, and it said:\n%s", code, said)
			}
			if want := map[bool]string{true: "hvs.canary\n"}[tt.code == 0]; out != want {
				t.Errorf("%d bytes are printed, want %d", len(out), len(want))
			}
			b, err := os.ReadFile(file)
			fi, statErr := os.Stat(file)
			if err != nil || statErr != nil || string(b) != own || fi.Mode().Perm() != 0o640 || v.open {
				t.Errorf("afterwards, open %v, mode %v, %v, the file is\n%s", v.open, fi.Mode(), errors.Join(err, statErr), b)
			}
			if reloaded := !tt.v1 && tt.code != ExitUsage; v.signal != reloaded {
				t.Errorf("Vault was told to reload: %v", v.signal)
			}
		})
	}
}

// What a killed run has left goes without a word to Vault; nothing of Vault's is needed.
func TestGenerateRootClose(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vault.hcl")
	v := &rootVault{config: file}
	for _, tt := range []struct{ before, after string }{
		{"ui = true\nenable_unauthenticated_access = [\"generate-root\"] # strongroom: for the recovery keys, and taken out again\n", "ui = true\n"},
		{"ui = true", "ui = true"},
	} {
		if err := os.WriteFile(file, []byte(tt.before), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, said := runGenerateRoot(t, v, file, "", "--close"); code != 0 || out+said != "" {
			t.Errorf("exit code %d, %q %q", code, out, said)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != tt.after || v.signal {
			t.Errorf("told to reload: %v, %v, the file is %q", v.signal, err, b)
		}
	}
}

func runGenerateRoot(t *testing.T, v *rootVault, file, in string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := New("test")
	for _, c := range root.Commands() {
		if c.Name() == "generate-root" {
			root.RemoveCommand(c)
		}
	}
	dir := filepath.Dir(file)
	root.AddCommand((&generateRootOptions{
		config: file, lock: filepath.Join(dir, "lock"), reload: v.reload, door: filepath.Join(dir, "door", "s"), doorLock: filepath.Join(dir, "door.lock"),
		gate: func() (*wayin.Gate, error) { return nil, errors.New("the gate was asked for") },
	}).command())
	var out, errOut bytes.Buffer
	root.SetIn(strings.NewReader(in))
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(append([]string{"generate-root"}, args...))
	code = Report(&errOut, root.ExecuteContext(t.Context()))
	return code, out.String(), errOut.String()
}
