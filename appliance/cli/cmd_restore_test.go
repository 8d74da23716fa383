package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/recipient"
)

// What comes after "restored" is for the operator, whatever it was.
func TestRestoreErrors(t *testing.T) {
	answer := &vaultapi.Error{Status: 500}
	for _, tt := range []struct {
		name string
		err  error
		code int
		hint string
	}{
		{"refused", answer, ExitFailed, ""},
		{"an engine fails", fmt.Errorf("%w: %w", restore.ErrUnfinished, answer), ExitOperator, "write apikeys/reconcile until done"},
		{"interrupted", fmt.Errorf("%w: %w", restore.ErrUnfinished, context.Canceled), ExitOperator, "write apikeys/reconcile until done"},
		{"token gone", fmt.Errorf("%w: %w", restore.ErrUnfinished, restore.ErrTokenGone), ExitOperator, "log in to it"},
		{"sealed", fmt.Errorf("%w: %w", restore.ErrUnfinished, restore.ErrSealed), ExitOperator, "unseal it"},
		{"no answer", fmt.Errorf("%w: %w", restore.ErrUnclear, context.Canceled), ExitOperator, "max_wait"},
	} {
		var b bytes.Buffer
		if code := Report(&b, restoreError(tt.err)); code != tt.code || !strings.Contains(b.String(), tt.hint) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", tt.name, code, tt.code, tt.hint, b.String())
		}
	}
}

// Into their own places go all files but those of this machine alone, and what
// was wrong with another place is told apart from the snapshot's own.
func TestRestoreFilesIntoTheirPlaces(t *testing.T) {
	b := newBackups(t)
	d, err := snapshot.NewDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	own := []string{
		"etc/strongroom/epoch.json", "etc/strongroom/installed.json",
		"etc/strongroom/credentials/backup-s3", "etc/strongroom/tls/link.key",
	}
	// None of them is on a machine that runs tests.
	come := []string{"etc/strongroom/restore-test.toml", "etc/strongroom/epoch.json.restore-test", "var/lib/strongroom-front/restore-test"}
	taken, err := snapshot.Take(t.Context(), snapshot.TakeOptions{
		Source: archive{}, Vault: snapshot.VaultInfo{ClusterID: "one", Version: "1.21.1"},
		Recipients: []recipient.Recipient{b.recipient}, Destinations: []snapshot.Destination{d}, StateDir: b.takeState,
		Files: func(_ context.Context, w io.Writer) error {
			tw := tar.NewWriter(w)
			for _, name := range append(own, come...) {
				if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, ModTime: time.Unix(1e9, 0)}); err != nil {
					return err
				}
			}
			return tw.Close()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.run(t, ExitOK, "verify", "--identity", b.identity, "--state", b.state, "--take-state", b.takeState)
	args := []string{"--dir", t.TempDir(), "--dir", b.dir, "--cluster", "one", "--identity", b.identity, "--dry-run"}
	code, out := runRestoreCLI(t, append(args, "--files", "/")...)
	if code != ExitOK || !strings.Contains(out, "3 new, 0 to replace") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if want := fmt.Sprintf("Files of %s, from %s; not every copy", taken.Manifest.ID, d.Name()); !strings.Contains(out, want) {
		t.Errorf("want %q:\n%s", want, out)
	}
	for _, name := range own {
		if !strings.Contains(out, "left out: /"+name+"\n") {
			t.Errorf("%s is not left out:\n%s", name, out)
		}
	}
	dir := t.TempDir()
	code, out = runRestoreCLI(t, append(args, "--files", dir)...)
	if code != ExitOK || !strings.Contains(out, "7 new") || strings.Contains(out, "left out") {
		t.Errorf("elsewhere: exit code %d:\n%s", code, out)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	if _, out = runRestoreCLI(t, append(args, "--files", link)...); !strings.Contains(out, "left out") {
		t.Errorf("by a link:\n%s", out)
	}
}

// A snapshot from a named folder replaces what is this machine's: who can open what is kept
// of that stands in the configuration all the same.
func TestRestoreFromAFolderKeepsForTheConfigured(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	b, config := newBackups(t), filepath.Join(t.TempDir(), "conf")
	text := fmt.Sprintf("[backup]\nrecipients = [%q]\n[[backup.to]]\ntype = \"dir\"\npath = %q\n", b.recipient.Line, t.TempDir())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := restoreOptions{snapshotOptions: snapshotOptions{config: config, dirs: []string{b.dir}}, keepDir: t.TempDir()}
	k, err := o.keeping()
	if err != nil || len(k.Recipients) != 1 || k.Recipients[0].Fingerprint != b.recipient.Fingerprint {
		t.Errorf("%+v, %v", k, err)
	}
	o.config = filepath.Join(t.TempDir(), "none")
	if k, err := o.keeping(); err == nil || !strings.Contains(err.Error(), "nobody could open") {
		t.Errorf("without a configuration: %+v, %v", k, err)
	}
}
