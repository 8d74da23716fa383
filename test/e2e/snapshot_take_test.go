package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/cli"
	"strongroom.example/config/recipient"
	"strongroom.example/test/vaulttest"
)

// The timers' jobs as they are installed: taken by a login that can do nothing
// else, stored in a directory and in a real S3 bucket, read back, pruned.
func TestSnapshotTakeVerifyPrune(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	s3, _ := startS3(t)
	b := newSite(t, s, s3)

	out := b.take(t, s, cli.ExitOK)
	for _, want := range []string{"taken ", "dir:" + b.disk, b.bucket} {
		if !strings.Contains(out, want) {
			t.Errorf("take did not say %q:\n%s", want, out)
		}
	}
	if out := b.verify(t, cli.ExitOK); strings.Count(out, "good ") != 2 {
		t.Errorf("verified in two places:\n%s", out)
	}
	out = mustRun(t, cli.ExitOK, "snapshot", "list", "--config", b.config)
	if strings.Count(out, "verified") != 2 || strings.Contains(out, "not verified") {
		t.Errorf("listed:\n%s", out)
	}
	out = mustRun(t, cli.ExitOK, "snapshot", "prune", "--config", b.config, "--take-state", b.takeState)
	if strings.Count(out, "newest verified") != 2 {
		t.Errorf("pruned:\n%s", out)
	}
	noTokenLeft(t, s)
	stockArchive(t, s, b)
}

// noTokenLeft sees that the job has ended its login.
func noTokenLeft(t *testing.T, s *vaulttest.Server) {
	t.Helper()
	list, err := vaulttest.API(s.Root).Logical().ListWithContext(t.Context(), "auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list.Data["keys"].([]any)); n != 1 {
		t.Errorf("%d tokens are alive, want the root token alone", n)
	}
}

// stockArchive opens a snapshot with age and the stock vault program only.
func stockArchive(t *testing.T, s *vaulttest.Server, b backupSite) {
	t.Helper()
	plain := filepath.Join(b.dir, "stock.snap")
	if err := os.WriteFile(plain, decryptNewest(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := vaultCLI(t, s, "", "operator", "raft", "snapshot", "inspect", plain)
	if err != nil || !strings.Contains(out, "Index") {
		t.Errorf("vault operator raft snapshot inspect: %v\n%s", err, out)
	}
}

func decryptNewest(t *testing.T, b backupSite) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.disk, "*", "*.snap.age"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no snapshot in %s: %v", b.disk, err)
	}
	f, err := os.Open(files[len(files)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	key, err := os.ReadFile(b.identity)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(key))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(f, ids...)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// What a login that takes snapshots cannot do: anything else.
func TestSnapshotLoginCanDoNothingElse(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1, 100)
	roleID, secretID := snapshotRole(t, s)
	c := s.Client(t, "")
	if err := c.LoginAppRole(t.Context(), roleID, secretID); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"sys/policies/acl/root", "sys/mounts", "sys/raw/core/keyring", "secret/metadata/fill", "sys/storage/raft/configuration", "auth/token/accessors"} {
		if r, err := vaulttest.API(c).Logical().ReadWithContext(t.Context(), path); err == nil && r != nil {
			t.Errorf("it reads %s", path)
		}
		if r, err := vaulttest.API(c).Logical().ListWithContext(t.Context(), path); err == nil && r != nil {
			t.Errorf("it lists %s", path)
		}
	}
	if err := c.RestoreSnapshot(t.Context(), strings.NewReader("x"), true); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("it may restore: %v", err)
	}
}

// Each way in which Vault fails: a clear error, the right exit code, and the
// last good snapshot and its record as they were.
func TestSnapshotOfAFailingVault(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	b := newSite(t, s, "")
	b.take(t, s, cli.ExitOK)
	b.verify(t, cli.ExitOK)
	before := tree(t, b.disk)
	record, err := os.ReadFile(filepath.Join(b.verifyState, "verified.json"))
	if err != nil {
		t.Fatal(err)
	}
	unchanged := func(t *testing.T) {
		t.Helper()
		if after := tree(t, b.disk); after != before {
			t.Errorf("the backups changed:\n%s\nto\n%s", before, after)
		}
		now, err := os.ReadFile(filepath.Join(b.verifyState, "verified.json"))
		if err != nil || !bytes.Equal(now, record) {
			t.Errorf("the record changed: %v", err)
		}
	}
	t.Run("expired secret id", func(t *testing.T) {
		bad := b
		bad.secretID = filepath.Join(b.dir, "old-secret-id")
		if err := os.WriteFile(bad.secretID, []byte("6a174c20-f6de-a53c-74d2-6018fcceff64"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := bad.take(t, s, cli.ExitOperator); !strings.Contains(out, "invalid role or secret ID") {
			t.Errorf("it said:\n%s", out)
		}
		unchanged(t)
	})
	t.Run("revoked token", func(t *testing.T) {
		token := filepath.Join(b.dir, "token")
		if err := os.WriteFile(token, []byte("hvs.revoked\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := strongroom(t.Context(), "snapshot", "take", "--config", b.config, "--state", b.takeState, "--address", vaultAddr(s), "--token-file", token)
		if code != cli.ExitOperator || !strings.Contains(out, "denied") || strings.Contains(out, "hvs.revoked") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		unchanged(t)
	})
	t.Run("killed in the middle of a snapshot", func(t *testing.T) {
		fill(t, s, 24, 400_000)
		killedInTheMiddle(t, s, b)
		unchanged(t)
	})
	t.Run("sealed", func(t *testing.T) {
		if err := vaulttest.API(s.Root).Sys().SealWithContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out := b.take(t, s, cli.ExitOperator); !strings.Contains(out, "sealed") {
			t.Errorf("it said:\n%s", out)
		}
		unchanged(t)
	})
	t.Run("down", func(t *testing.T) {
		if err := s.Process.Stop(); err != nil {
			t.Log(err)
		}
		b.take(t, s, cli.ExitFailed)
		unchanged(t)
	})
}

// killer kills Vault when the first bytes of a snapshot have come.
type killer struct {
	io.Writer
	kill func()
}

func (k *killer) Write(p []byte) (int, error) {
	if k.kill != nil {
		k.kill()
		k.kill = nil
	}
	return k.Writer.Write(p)
}

type dyingSource struct{ s *vaulttest.Server }

func (d dyingSource) Snapshot(ctx context.Context, w io.Writer) error {
	return d.s.Root.Snapshot(ctx, &killer{w, d.s.Process.Kill})
}

func killedInTheMiddle(t *testing.T, s *vaulttest.Server, b backupSite) {
	t.Helper()
	health, err := s.Root.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := snapshot.NewDir(b.disk)
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipient.Parse(b.recipient)
	if err != nil {
		t.Fatal(err)
	}
	_, err = snapshot.Take(t.Context(), snapshot.TakeOptions{
		Source: dyingSource{s}, Vault: snapshot.VaultInfo{ClusterID: health.ClusterID, Version: health.Version},
		Recipients: []recipient.Recipient{r}, Destinations: []snapshot.Destination{d}, StateDir: b.takeState,
	})
	if err == nil {
		t.Error("half a snapshot was stored")
	}
	t.Log(err)
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := s.WaitActive(ctx); err != nil {
		t.Fatal(err)
	}
}

// tree lists a folder's files with size and time.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		_, err = out.WriteString(strings.Join([]string{path, fi.ModTime().Format(time.RFC3339Nano), fi.Mode().String()}, " ") + "\n")
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return out.String()
}
