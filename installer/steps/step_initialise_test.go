package steps

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	applied := `{"event":"applied","step":"initialise","what":"Vault"}` + "\n"
	const aside = " → set aside, and kept"
	const token = "/root/the-token" // sealed
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
			[]string{"initialised, and nobody has a key to it" + aside, what}, false},
		{"a run was killed before it had the keys in escrow", `{"initialized":true}`, func(v *vps) { v.Files[machine.RootTokenFile] = v.Files[token] }, began,
			[]string{"before the recovery keys were in escrow" + aside, what}, false},
		{"a run was killed after it had the keys in escrow", `{"initialized":true}`, func(v *vps) {
			v.Files[machine.RootTokenFile] = v.Files[token]
			kept(machine.EscrowDir + "/recovery-keys-1.age")(v)
		}, began, nil, false},
		{"somebody has the keys", `{"initialized":true}`, kept(machine.EscrowDir + "/recovery-keys-1.age"), began, nil, true},
		{"it was initialised, and its logins are gone", `{"initialized":true}`, nil, began + applied, nil, true},
		{"it was initialised by a run that was killed once before", `{"initialized":true}`, nil, began + began + applied, nil, true},
		{"a journal with a line that nobody can read", `{"initialized":true}`, nil, "{\n" + began, nil, true},
		{"a journal of a newer version", `{"initialized":true}`, nil, began + `{"event":"sealed"}` + "\n" + began, nil, true},
		{"the last line was cut off", `{"initialized":true}`, nil, began + `{"event":"fai`, []string{"nobody has a key to it" + aside, what}, false},
		{"by somebody else", `{"initialized":true}`, nil, "", nil, true},
		{"by somebody else, after another step", `{"initialized":true}`, nil, `{"event":"begin","step":"services","what":"Vault"}` + "\n", nil, true},
		{"a run ended well since", `{"initialized":true}`, nil, began + applied + `{"event":"done"}` + "\n", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newJobWorld(t)
			w.Files[token] = w.Files[machine.RootTokenFile]
			delete(w.Files, machine.RootTokenFile)
			w.Files[machine.EscrowDir] = w.Files[machine.Etc]
			w.vault.answer = func(_ *http.Request, p string) (int, any) {
				switch p {
				case "sys/health":
					return http.StatusOK, json.RawMessage(c.vault)
				case "sys/mounts":
					return http.StatusOK, json.RawMessage(`{"data":{"sys/":{"type":"system"},"identity/":{"type":"identity"},"cubbyhole/":{"type":"cubbyhole"}}}`)
				}
				return 0, nil
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
					!strings.Contains(err.Error(), "not by an unfinished run of this installer") || !strings.Contains(fe.Hint, "--set-aside "+e.Config.Domain) || len(diff) > 0 {
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

// A storage that is set aside is there afterwards, with the keys that belong to it, while
// Vault runs on an empty one; where it cannot be moved, all is as before.
func TestStorageIsSetAside(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*vps)
		want  string // of the error
	}{
		{"moved", func(*vps) {}, ""},
		{"a disk of its own", func(v *vps) { v.Mounts = []string{machine.RaftDir} }, "set Vault's storage aside"},
		{"no room for another", func(v *vps) { v.Free = minFreeOurs }, "are free where"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newJobWorld(t)
			w.Units[machine.UnitVault] = &host.Unit{Load: "loaded", Active: "active"}
			for _, p := range []string{"/var/lib", machine.VaultData, machine.StateDir, machine.EscrowDir} {
				w.Files[p] = w.Files[machine.Etc]
			}
			own := host.Attr{Mode: 0o700, UID: 7, GID: 7}
			w.Files[machine.RaftDir] = &host.Node{Info: host.Info{Attr: own, Type: fs.ModeDir}}
			const db, keys = machine.RaftDir + "/vault.db", machine.EscrowDir + "/recovery-keys-1.age"
			w.Files[db] = &host.Node{Data: []byte("data")}
			w.Files[keys] = &host.Node{Data: []byte("keys")}
			w.OnStart[machine.UnitVault] = func() error {
				if _, there := w.Files[db]; there && c.want == "" {
					return errors.New("it opens the storage of before")
				}
				return nil
			}
			c.spoil(w.vps)
			e := w.env()
			err := e.setAside(t.Context())
			if u := w.Units[machine.UnitVault]; u.Active != "active" {
				t.Errorf("Vault is %s", u.Active)
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || w.Files[db] == nil || w.Files[keys] == nil {
					t.Errorf("error = %v; the files: %v, %v", err, w.Files[db], w.Files[keys])
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			at := machine.Aside + w.Clock.UTC().Format("20060102T15") // and some minutes
			found := ""
			for p := range w.Files {
				if strings.HasPrefix(p, machine.RaftDir+at) && strings.HasSuffix(p, "/vault.db") || strings.HasPrefix(p, keys+at) {
					found += string(w.Files[p].Data)
				}
			}
			if len(found) != len("datakeys") || w.Files[machine.RaftDir].Attr != own {
				t.Errorf("kept is %q; the new folder is %v", found, w.Files[machine.RaftDir].Attr)
			}
			if len(e.Notes) != 1 || !strings.Contains(e.Notes[0], machine.RaftDir+at) {
				t.Errorf("the operator is told %q", e.Notes)
			}
		})
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
