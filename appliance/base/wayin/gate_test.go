package wayin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
)

// bao is OpenBao with a configuration file: generate-root is on the gate alone, which
// is there when it has started with one.
type bao struct {
	*vault
	socket string
	gate   *httptest.Server
	made   int // folders
}

func (b *bao) main(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "sys/health") {
		fmt.Fprint(w, `{"initialized":true,"sealed":false,"standby":false}`)
		return
	}
	w.WriteHeader(http.StatusMethodNotAllowed)
	fmt.Fprint(w, `{"errors":["unsupported operation"]}`)
}

// restart is systemd's: it ends when OpenBao runs with the file as it is.
func (b *bao) restart(context.Context) error {
	if err := b.fails(); err != nil {
		return err
	}
	b.reloads++
	if b.gate != nil {
		b.gate.Close()
		b.gate = nil
	}
	if !strings.Contains(b.file, fmt.Sprintf("address      = %q", b.socket)) {
		return nil
	}
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		return err
	}
	b.gate = &httptest.Server{Listener: l, Config: &http.Server{Handler: b.vault}}
	b.gate.Start()
	return nil
}

func newBao(t *testing.T, v *vault) (*bao, Door) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	v.v1 = true // whoever reaches the gate is asked for no token
	if v.file == "" {
		v.file = config
	}
	b := &bao{vault: v, socket: filepath.Join(dir, "door", "s")}
	main := httptest.NewServer(http.HandlerFunc(b.main))
	t.Cleanup(func() {
		main.Close()
		if b.gate != nil {
			b.gate.Close()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d := v.door(t)
	if d.Vault, err = vaultapi.New(vaultapi.Options{Address: main.URL}); err != nil {
		t.Fatal(err)
	}
	gate, err := vaultapi.New(vaultapi.Options{Address: "unix://" + b.socket})
	if err != nil {
		t.Fatal(err)
	}
	d.Reload = b.restart
	d.Gate = &Gate{Vault: gate, Socket: b.socket, User: "vault", Group: "vault", Make: func() (func() error, error) {
		if err := b.fails(); err != nil {
			return nil, err
		}
		b.made++
		end, err := makeFolder(filepath.Join(dir, "door"), filepath.Join(dir, "lock"), os.Getuid(), os.Getgid())
		if err != nil {
			return nil, err
		}
		return func() error { return errors.Join(b.fails(), end()) }, nil
	}}
	return b, d
}

func TestGenerateRootByGate(t *testing.T) {
	for name, tt := range map[string]struct {
		v      *vault
		shares []string
		says   string
	}{
		"OpenBao":             {v: &vault{}},
		"a gate that is left": {v: &vault{file: config + "listener \"unix\" {" + mark + "\n  address = \"/x\"" + mark + "\n}" + mark + "\n"}},
		"a wrong key":         {v: &vault{}, shares: []string{"canary-no"}, says: "root generation aborted"},
		"too few keys":        {v: &vault{}, shares: []string{}, says: vaultapi.ErrFewShares.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			b, d := newBao(t, tt.v)
			if tt.shares == nil {
				tt.shares = []string{share}
			}
			got, err := d.GenerateRoot(t.Context(), tt.shares)
			if tt.says == "" && (err != nil || got != token) || tt.says != "" && (got != "" || !strings.Contains(fmt.Sprint(err), tt.says)) {
				t.Errorf("a token of %d bytes, %v", len(got), err)
			}
			if b.file != config || b.reloads != 2 || b.gate != nil || b.begun {
				t.Errorf("%d restarts, gate %v, an attempt under way %v, and the file is\n%s", b.reloads, b.gate != nil, b.begun, b.file)
			}
			if _, err := os.Stat(filepath.Dir(b.socket)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder: %v", err)
			}
		})
	}
}

// Whatever fails: either the file and OpenBao are as before, or the error says that
// the way in is open; and a token that was made is handed out.
func TestGenerateRootByGateFails(t *testing.T) {
	for n := 1; ; n++ {
		b, d := newBao(t, &vault{failing: n, patience: 5 * time.Second})
		got, err := d.GenerateRoot(t.Context(), []string{share})
		if b.calls < n {
			if n < 8 {
				t.Fatalf("only %d calls", b.calls)
			}
			return
		}
		if !errors.Is(err, errPlanted) {
			t.Errorf("call %d fails: %v", n, err)
		}
		if (b.vault.made > 0) != (got == token) {
			t.Errorf("call %d fails: %d tokens made, %d bytes handed out", n, b.vault.made, len(got))
		}
		if left := b.gate != nil || b.file != config; left && !errors.Is(err, ErrLeftOpen) {
			t.Errorf("call %d fails: %v, and the gate is there: %v, with\n%s", n, err, b.gate != nil, b.file)
		}
	}
}

// At each start of OpenBao what a killed run has left goes, and what a living one
// holds stays.
func TestCloseUnheld(t *testing.T) {
	dir := t.TempDir()
	door, lock := filepath.Join(dir, "door"), filepath.Join(dir, "lock")
	v := &vault{file: config + setting + mark + "\n"}
	d := v.door(t)
	end, err := makeFolder(door, lock, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(door); err != nil || fi.Mode().Perm() != 0o730 {
		t.Errorf("the folder: %v, %v", fi, err)
	}
	if _, err := makeFolder(door, lock, os.Getuid(), os.Getgid()); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("a second run: %v", err)
	}
	if err := CloseUnheld(d.Read, d.Write, filepath.Join(door, "s"), lock); err != nil || v.file == config {
		t.Errorf("held: %v, and the file is\n%s", err, v.file)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	// A killed run's, whose lock went with it.
	if err := errors.Join(os.Mkdir(door, 0o700), os.WriteFile(filepath.Join(door, "s"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := CloseUnheld(d.Read, d.Write, filepath.Join(door, "s"), lock); err != nil || v.file != config {
		t.Errorf("left: %v, and the file is\n%s", err, v.file)
	}
	if _, err := os.Stat(door); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
}
