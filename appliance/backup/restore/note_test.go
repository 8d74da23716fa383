package restore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

func epochAt(t *testing.T, n string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "epoch.json")
	if err := os.WriteFile(path, []byte(`{"installation_id":"x","epoch":`+n+`}`), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is Vault's own 4xx is a refusal. Whatever else was answered after Vault had all
// of it leaves the epoch raised: the storage may be an old one.
func TestOnlyVaultsOwnRefusalTakesTheEpochBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		back   bool
	}{
		{"Vault refuses", 400, `{"errors":["bad"]}`, true},
		{"Vault denies", 403, `{"errors":["permission denied"]}`, true},
		{"another seal", 500, `{"errors":["could not verify hash file, possibly the snapshot is using a different set of unseal keys"]}`, true},
		{"a proxy waited too long", 504, "<html>gateway timeout</html>", false},
		{"a proxy has lost it", 502, "", false},
		{"a proxy denies", 403, "<html>forbidden</html>", false},
		{"a proxy finds it too large", 413, "<html>too large</html>", false},
		{"Vault fails", 500, `{"errors":["internal"]}`, false},
		{"nobody is ready", 503, `{"errors":["sealed"]}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeVault{snapshot: func(w http.ResponseWriter, r *http.Request) bool {
				buf := make([]byte, 1<<16)
				for {
					if _, err := r.Body.Read(buf); err != nil {
						break
					}
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
				return true
			}}
			epoch, note := epochAt(t, "4"), filepath.Join(t.TempDir(), "waits.json")
			res, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), EpochFile: epoch, WaitsFile: note, Patience: time.Minute, Poll: time.Millisecond})
			if err == nil || res.Restored || errors.Is(err, ErrUnclear) == tt.back {
				t.Errorf("%v", err)
			}
			want := int64(5)
			if tt.back {
				want = 4
			}
			if got := readEpoch(t, epoch); got != want {
				t.Errorf("epoch %d, want %d", got, want)
			}
			w, err := loadWaits(note)
			if err != nil || w.HandedOver == tt.back {
				t.Errorf("note %+v, %v", w, err)
			}
		})
	}
}

// A restore that was killed between the epoch and the hand-over has raised it for
// nothing: the next one takes that back before it does anything, and raises it once.
func TestKilledBetweenEpochAndHandOver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		killed func(t *testing.T, epoch, file string)
		want   int64
	}{
		{"before it was raised", func(t *testing.T, epoch, file string) {
			if err := note(file, func(w *Waits) { w.Epoch, w.Raised = `{"installation_id":"x","epoch":4}`, "5" }); err != nil {
				t.Fatal(err)
			}
		}, 5},
		{"after it was raised", func(t *testing.T, epoch, file string) {
			if _, _, err := raiseEpoch(epoch, file, nil, 7); err != nil {
				t.Fatal(err)
			}
		}, 5},
		{"after the hand-over", func(t *testing.T, epoch, file string) {
			if _, _, err := raiseEpoch(epoch, file, nil, 7); err != nil {
				t.Fatal(err)
			}
			if err := note(file, func(w *Waits) { w.HandedOver = true }); err != nil {
				t.Fatal(err)
			}
		}, 6},
		{"and somebody has raised it since", func(t *testing.T, epoch, file string) {
			if _, _, err := raiseEpoch(epoch, file, nil, 7); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(epoch, []byte(`{"installation_id":"x","epoch":9}`), 0o640); err != nil {
				t.Fatal(err)
			}
		}, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			epoch, file := epochAt(t, "4"), filepath.Join(t.TempDir(), "waits.json")
			tt.killed(t, epoch, file)
			f := &fakeVault{reconcile: reconciled}
			if _, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), EpochFile: epoch, WaitsFile: file, Patience: time.Minute, Poll: time.Millisecond}); err != nil {
				t.Fatal(err)
			}
			if got := readEpoch(t, epoch); got != tt.want {
				t.Errorf("epoch %d, want %d", got, tt.want)
			}
			if _, err := os.Stat(file); !os.IsNotExist(err) {
				t.Errorf("the note is left: %v", err)
			}
		})
	}
}

// An auto-unsealed Vault may stay sealed for as long as somebody has patience.
func TestSealedForLongerThanTenSeconds(t *testing.T) {
	f := &fakeVault{sealed: 400, reconcile: reconciled}
	if res, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), Patience: time.Minute, Poll: time.Millisecond}); err != nil || !res.Restored {
		t.Errorf("%+v, %v", res, err)
	}
	f = &fakeVault{sealed: -1, reconcile: reconciled}
	if _, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), Patience: 300 * time.Millisecond, Poll: time.Millisecond}); !errors.Is(err, ErrSealed) || !errors.Is(err, ErrUnfinished) {
		t.Errorf("sealed for good: %v", err)
	}
}

// A newer Vault's snapshot goes into an older one only where somebody insists.
func TestNewerVaultsSnapshot(t *testing.T) {
	for from, refused := range map[string]bool{"1.21.1": false, "1.21.2": true, "2.0.0": true, "1.22.0-rc1": true, "1.20.9": false, "": false, "strange": false} {
		f := &fakeVault{reconcile: reconciled}
		o := Options{Snapshot: checked(t), Vault: f.start(t), From: config.Server{Version: from}, Patience: time.Minute, Poll: time.Millisecond}
		if _, err := Run(t.Context(), o); errors.Is(err, ErrNewerVault) != refused || !refused && err != nil {
			t.Errorf("%q: %v", from, err)
		}
		if f.mu.Lock(); refused && len(f.calls) > 0 {
			t.Errorf("%q: it has called %q", from, f.calls)
		}
		f.mu.Unlock()
		o.IntoOlder = true
		if _, err := Run(t.Context(), o); err != nil {
			t.Errorf("%q, insisted: %v", from, err)
		}
	}
}

// Another product's snapshot goes nowhere, whoever insists and whatever its version.
func TestOtherProductsSnapshot(t *testing.T) {
	for _, version := range []string{"1.20.0", "1.21.1", "2.7.2"} {
		f := &fakeVault{reconcile: reconciled}
		_, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), From: config.Server{Product: config.ProductOpenBao, Version: version},
			IntoOlder: true, Patience: time.Minute, Poll: time.Millisecond})
		if !errors.Is(err, ErrOtherProduct) {
			t.Errorf("OpenBao %s: %v", version, err)
		}
		if f.mu.Lock(); len(f.calls) > 0 {
			t.Errorf("OpenBao %s: it has called %q", version, f.calls)
		}
		f.mu.Unlock()
	}
}

// A restore begins a lineage above the snapshot's and its own.
func TestRestoreBeginsALineage(t *testing.T) {
	for _, tt := range []struct {
		own  string
		from *snapshot.Lineage
		want int64
	}{
		{"4", nil, 5}, {"1", &snapshot.Lineage{ID: "old", Epoch: 7}, 8}, {"9", &snapshot.Lineage{ID: "old", Epoch: 7}, 10},
	} {
		epoch := epochAt(t, tt.own)
		if _, _, err := raiseEpoch(epoch, "", tt.from, 70); err != nil {
			t.Fatal(err)
		}
		l, err := LineageIn(epoch)
		if err != nil || l.Epoch != tt.want || l.Left != 70 || l.ID == "x" || tt.from != nil && l.Parent != "old" {
			t.Errorf("%+v: %+v, %v", tt, l, err)
		}
		// An earlier version that raises it knows of no lineage.
		if err := os.WriteFile(epoch, []byte(`{"installation_id":"x","epoch":30,"lineage":{"id":"y","epoch":5}}`), 0o640); err != nil {
			t.Fatal(err)
		}
		if l, err := LineageIn(epoch); err != nil || l.Epoch != 30 || l.ID != "x" {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if l, err := LineageIn(filepath.Join(t.TempDir(), "none")); l != nil || err != nil {
		t.Errorf("%+v, %v", l, err)
	}
}

// What fits one machine alone never comes back into its place, however it is named.
func TestOwn(t *testing.T) {
	for _, path := range []string{
		machine.EpochFile, machine.ManifestFile, machine.DrillKeyPub, machine.DrillSigningPub, machine.VaultHCL, machine.FrontTOML,
		machine.NftablesConf, machine.NftablesConf + ".new", machine.CredentialDir, machine.CredentialDir + "/backup-s3", machine.TLSDir + "/link.key",
		machine.StateDir + "/verify/verified.json", machine.EscrowDir + "/master-key.age", machine.RaftDir + "/raft.db", machine.SysctlFile,
		machine.SSHDFile, "/etc/machine-id", machine.OperationLock,
	} {
		for _, name := range []string{path, strings.TrimPrefix(path, "/"), "./" + strings.TrimPrefix(path, "/"), strings.Replace(path, "/", "//", 1), "/x/.." + path} {
			if !Own(name) {
				t.Errorf("%q is not", name)
			}
		}
	}
	for _, path := range []string{machine.ConfigFile, machine.AppsFile, machine.FrontData + "/key", machine.EpochFile + ".old", machine.Etc + "/tls-own/key", "/etc/ssl/own.pem", "/var/lib/vaultkeeper/x"} {
		if Own(path) {
			t.Errorf("%q is", path)
		}
	}
}

// What was replaced stays for the last few restores, in the folder that is for that. One
// that somebody has named may be a place of backups: nothing goes there.
func TestReplacedIsPruned(t *testing.T) {
	for own, stay := range map[bool]int{true: keptReplaced, false: keptReplaced + 3} {
		t.Run(fmt.Sprintf("own %v", own), func(t *testing.T) { replacedIsPruned(t, own, stay) })
	}
}

func replacedIsPruned(t *testing.T, own bool, stay int) {
	s, archive := newStore(t), testArchive(t)
	f := &fakeVault{reconcile: reconciled, snapshot: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			_, _ = w.Write(archive)
		}
		return r.Method == http.MethodGet
	}}
	s.take(t, time.Now().Add(-time.Hour), true)
	keep := &Keeping{Dir: filepath.Join(t.TempDir(), "replaced"), Recipients: s.opts.Recipients}
	from := Source{Places: []snapshot.Destination{s.dest}, Identities: []age.Identity{s.id}, TakeState: t.TempDir(), Dir: t.TempDir()}
	vault := f.start(t)
	for range keptReplaced + 3 {
		f.mu.Lock()
		f.restored = false
		f.mu.Unlock()
		p, err := NewPlan(t.Context(), from, keep, Options{Vault: vault, Patience: time.Minute, Poll: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		p.keep = &Keeping{Dir: keep.Dir, Own: own, Recipients: keep.Recipients}
		_, err = p.Run(t.Context())
		if cerr := p.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
	d, err := snapshot.NewDir(keep.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := snapshot.List(context.Background(), d, ""); err != nil || len(left) != stay {
		t.Errorf("%d are left, %v", len(left), err)
	}
}
