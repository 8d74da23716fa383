package steps

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// Vault's keys are made once, and made again only where surely nobody has those
// of before: what says so is the journal, and nothing else.
func TestInitialisedByWhom(t *testing.T) {
	const what = "initialised, 3 of 5 recovery keys in escrow"
	began := `{"event":"begin","step":"initialise","what":"Vault"}` + "\n"
	kept := func(p string) func(*vps) { return func(v *vps) { v.Files[p] = &host.Node{} } }
	for _, c := range []struct {
		name    string
		vault   string // its answer about its health; "" where none comes
		machine func(*vps)
		journal string
		want    []string // the changes
		refused bool
	}{
		{"a fresh machine, whose Vault does not run yet", "", nil, "", []string{what}, false},
		{"a machine in use, whose Vault is down", "", kept(machine.DoctorSecretFile), "", nil, false},
		{"a new Vault", `{"initialized":false,"sealed":true}`, nil, "", []string{what}, false},
		{"its token is kept for the rest of the installation", `{"initialized":true}`, kept(machine.RootTokenFile), "", nil, false},
		{"installed", `{"initialized":true}`, kept(machine.DoctorSecretFile), "", nil, false},
		{"a run was killed before it had the token", `{"initialized":true}`, nil, began,
			[]string{"initialised by a run that was killed before it had stored the keys → removed", what}, false},
		{"by somebody else", `{"initialized":true}`, nil, "", nil, true},
		{"by somebody else, after another step", `{"initialized":true}`, nil, `{"event":"begin","step":"services","what":"Vault"}` + "\n", nil, true},
		{"a run ended well since", `{"initialized":true}`, nil, began + `{"event":"done"}` + "\n", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newJobWorld(t)
			delete(w.Files, machine.RootTokenFile)
			w.vault.answer = func(_ *http.Request, p string) (int, any) {
				if p != "sys/health" {
					return 0, nil
				}
				return http.StatusOK, json.RawMessage(c.vault)
			}
			if c.machine != nil {
				c.machine(w.vps)
			}
			e := w.env()
			if c.vault == "" {
				e = w.vps.env()
			}
			file := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(file, []byte(c.journal), 0o600); err != nil {
				t.Fatal(err)
			}
			var err error
			if e.Journal, err = engine.OpenJournal(file, "1.2.3", e.Host.Now); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = e.Journal.Close() })

			diff, err := initialise{e}.Check(t.Context())
			var fe *fault.Error
			if c.refused {
				if !errors.As(err, &fe) || fe.Code != fault.Operator || !strings.Contains(fe.Hint, machine.VaultData) ||
					!strings.Contains(err.Error(), "not by an unfinished run of this installer") || len(diff) > 0 {
					t.Errorf("%v, error = %v", diff, err)
				}
				return
			}
			if err != nil || len(diff) != len(c.want) {
				t.Fatalf("%v, %v; want %q", diff, err, c.want)
			}
			for i, want := range c.want {
				if got := fmt.Sprint(diff[i]); !strings.Contains(got, want) {
					t.Errorf("change %d is %q, want %q", i, got, want)
				}
			}
		})
	}
}

// What a killed run has left is removed while Vault stands still, and Vault runs
// afterwards.
func TestHalfInitialisedIsRemoved(t *testing.T) {
	w := newJobWorld(t)
	w.Units[machine.UnitVault] = &host.Unit{Load: "loaded", Active: "active"}
	for _, p := range []string{"/var/lib", machine.VaultData, machine.RaftDir} {
		w.Files[p] = w.Files[machine.Etc]
	}
	w.Files[machine.RaftDir+"/vault.db"] = &host.Node{}
	w.OnStart[machine.UnitVault] = func() error {
		if _, there := w.Files[machine.RaftDir+"/vault.db"]; there {
			return errors.New("it opens the storage of before")
		}
		return nil
	}
	if err := (initialise{w.env()}).wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := w.Units[machine.UnitVault]; u.Active != "active" {
		t.Errorf("Vault is %s", u.Active)
	}
	if _, there := w.Files[machine.RaftDir]; there {
		t.Error("the storage is still there")
	}
}

// The keys exist once Vault has made them, so what is to hold them is tried
// before: a place that loses or garbles them stops the run with Vault untouched.
func TestPlacesForTheKeysAreTried(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*vps)
		want  string
	}{
		{"all is well", func(*vps) {}, ""},
		{"no folder for the escrow", func(v *vps) { delete(v.Files, machine.EscrowDir) }, "try the escrow: "},
		{"no folder for credentials", func(v *vps) { delete(v.Files, machine.CredentialDir) }, machine.CredentialDir},
		{"no systemd-creds", func(v *vps) { delete(v.Commands, "systemd-creds") }, "systemd-creds"},
		{"systemd-creds gives something else back", func(v *vps) {
			creds := v.Commands["systemd-creds"]
			v.Commands["systemd-creds"] = func(c host.Command, in []byte) (host.Output, error) {
				if c.Args[1] == "decrypt" {
					return host.Output{Stdout: []byte("something else")}, nil
				}
				return creds(c, in)
			}
		}, "opens with another content than was sealed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newJobWorld(t)
			w.Files[machine.EscrowDir] = w.Files[machine.Etc]
			w.vault.answer = func(r *http.Request, p string) (int, any) {
				switch {
				case p == "sys/health":
					return http.StatusOK, json.RawMessage(`{"initialized":false,"sealed":true}`)
				case p == "sys/init" && c.want != "":
					t.Error("Vault was asked for keys that nothing can hold")
				case p == "sys/init":
					return http.StatusBadRequest, json.RawMessage(`{"errors":["asked"]}`)
				}
				return 0, nil
			}
			c.spoil(w.vps)
			err := initialise{w.env()}.initialise(t.Context())
			want := c.want
			if want == "" {
				want = "asked"
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error = %v, want %q", err, want)
			}
			for p := range w.Files {
				if c.want == "" && strings.Contains(p, "probe") {
					t.Errorf("%s is left over", p)
				}
			}
		})
	}
}
