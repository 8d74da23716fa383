package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// kv reads and writes secret/ as root.
func putSecret(t *testing.T, c *vaultapi.Client, path, value string) {
	t.Helper()
	if _, err := vaulttest.API(c).KVv2("secret").Put(t.Context(), path, map[string]any{"value": value}); err != nil {
		t.Fatal(err)
	}
}

// secret is the value at path, or "" when there is none.
func secret(t *testing.T, c *vaultapi.Client, path string) string {
	t.Helper()
	s, err := vaulttest.API(c).KVv2("secret").Get(t.Context(), path)
	if err != nil {
		if strings.Contains(err.Error(), "secret not found") {
			return ""
		}
		t.Fatal(err)
	}
	v, _ := s.Data["value"].(string)
	return v
}

func tokenFile(t *testing.T, b backupSite, token string) string {
	t.Helper()
	path := filepath.Join(b.dir, "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (b backupSite) restore(t *testing.T, v *scratch.Vault, token string, want int, args ...string) string {
	t.Helper()
	return mustRun(t, want, append([]string{"restore", "--config", b.config, "--address", "unix://" + v.Layout.VaultSocket(),
		"--token-file", tokenFile(t, b, token), "--identity", b.identity, "--keep-dir", b.replace,
		"--epoch-file", v.Layout.EpochFile(), "--work-dir", b.dir}, args...)...)
}

func epochOf(t *testing.T, v *scratch.Vault) float64 {
	t.Helper()
	data, err := os.ReadFile(v.Layout.EpochFile())
	if err != nil {
		t.Fatal(err)
	}
	var e struct{ Epoch float64 }
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	return e.Epoch
}

// The whole way: a snapshot in S3, changes after it, back to it, and the engine
// acts again only after it has reconciled.
func TestSnapshotRestore(t *testing.T) {
	s := vaulttest.New(t)
	ctx := t.Context()
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	s.MountAPIKeys(t)
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(ctx, "apikeys/providers/generated", map[string]any{"type": "generated"}); err != nil {
		t.Fatal(err)
	}
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(ctx, "apikeys/keys/app/prod/own", map[string]any{"provider": "generated"}); err != nil {
		t.Fatal(err)
	}
	putSecret(t, s.Root, "app/one", "old")
	s3, _ := startS3(t)
	b := newSite(t, s, s3)
	b.take(t, s, cli.ExitOK)
	b.verify(t, cli.ExitOK)

	putSecret(t, s.Root, "app/one", "new")
	putSecret(t, s.Root, "app/two", "later")
	before := tree(t, b.dir+"/disk")

	// Looking changes nothing, and nobody to ask is a no.
	out := b.restore(t, s.Vault, s.RootToken, cli.ExitOK, "--dry-run")
	for _, want := range []string{"checked wholly", "raise the epoch", "loses"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %q:\n%s", want, out)
		}
	}
	b.restore(t, s.Vault, s.RootToken, cli.ExitOperator)
	if secret(t, s.Root, "app/one") != "new" || epochOf(t, s.Vault) != 1 {
		t.Fatal("a plan changed something")
	}

	out = b.restore(t, s.Vault, s.RootToken, cli.ExitOK, "--yes")
	t.Log(out)
	if got := secret(t, s.Root, "app/one"); got != "old" {
		t.Errorf("app/one is %q, want old", got)
	}
	if got := secret(t, s.Root, "app/two"); got != "" {
		t.Errorf("app/two is %q, want nothing", got)
	}
	if got := epochOf(t, s.Vault); got != 2 {
		t.Errorf("epoch %v, want 2", got)
	}
	for _, want := range []string{"kept ", "restored", "reconciled apikeys/: 1 keys", "0 problems; it had waited behind its fence"} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
	r, err := vaulttest.API(s.Root).Logical().ReadWithContext(ctx, "apikeys/reconcile")
	if err != nil || r.Data["fenced"] != false {
		t.Errorf("the engine is still fenced: %v, %v", r, err)
	}
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(ctx, "apikeys/rotate/app/prod/own", nil); err != nil {
		t.Errorf("rotate after the restore: %v", err)
	}
	if after := tree(t, b.dir+"/disk"); after != before {
		t.Error("a restore changed the backups")
	}

	// What was replaced can be brought back the same way.
	out = mustRun(t, cli.ExitOK, "snapshot", "list", "--dir", b.replace)
	id := strings.Fields(strings.Split(out, "\n")[1])
	b.restore(t, s.Vault, s.RootToken, cli.ExitOK, "--yes", "--no-keep", "--dir", b.replace, "--id", id[len(id)-2])
	if got := secret(t, s.Root, "app/two"); got != "later" {
		t.Errorf("app/two is %q, want later", got)
	}
}

// startWithKey starts an initialised Vault as the installer does on a new
// machine: an old master key, and storage of its own.
func startWithKey(t *testing.T, s *vaulttest.Server) (*scratch.Vault, *vaultapi.Client, string) {
	t.Helper()
	set := proc.NewSet()
	dir := vaulttest.Dir(t)
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	front, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	v, err := scratch.Start(ctx, set, scratch.Options{Dir: dir, Programs: vaulttest.Programs(t), Keyset: s.Keyset, FrontAddress: front})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Local()
	if err != nil {
		t.Fatal(err)
	}
	init, err := c.Init(ctx, vaultapi.InitRequest{RecoveryShares: 1, RecoveryThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(init.RootToken)
	if err := v.WaitActive(ctx); err != nil {
		t.Fatal(err)
	}
	return v, c, init.RootToken
}

// A new machine with the escrowed master key takes the old one's place; one
// with another key is refused and stays what it was.
func TestSnapshotRestoreOntoANewMachine(t *testing.T) {
	old := vaulttest.New(t)
	if err := old.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	putSecret(t, old.Root, "app/one", "kept")
	b := newSite(t, old, "")
	b.take(t, old, cli.ExitOK)
	b.verify(t, cli.ExitOK)

	t.Run("another master key", func(t *testing.T) {
		other := vaulttest.New(t)
		if err := other.Root.EnableKV2(t.Context(), "secret"); err != nil {
			t.Fatal(err)
		}
		putSecret(t, other.Root, "app/mine", "mine")
		out := b.restore(t, other.Vault, other.RootToken, cli.ExitOperator, "--yes")
		if !strings.Contains(out, "another master key") || strings.Contains(out, "\nrestored") {
			t.Errorf("it said:\n%s", out)
		}
		if secret(t, other.Root, "app/mine") != "mine" || epochOf(t, other.Vault) != 1 {
			t.Error("the refused restore changed something")
		}
		noTokenLeft(t, other)
	})
	t.Run("the escrowed master key", func(t *testing.T) {
		v, c, token := startWithKey(t, old)
		out := b.restore(t, v, token, cli.ExitOperator, "--yes")
		if !strings.Contains(out, "\nrestored") || !strings.Contains(out, "log in to it") {
			t.Errorf("it said:\n%s", out)
		}
		c.SetToken(old.RootToken)
		if got := secret(t, c, "app/one"); got != "kept" {
			t.Errorf("app/one is %q, want kept", got)
		}
	})
}

// Stock tools on both sides: their file with our command, our file with theirs.
func TestSnapshotRestoreStock(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	b := newSite(t, s, "")
	putSecret(t, s.Root, "app/one", "first")
	stock := filepath.Join(b.dir, "stock.snap")
	if out, err := vaultCLI(t, s, s.RootToken, "operator", "raft", "snapshot", "save", stock); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	putSecret(t, s.Root, "app/one", "second")
	b.take(t, s, cli.ExitOK)
	putSecret(t, s.Root, "app/one", "third")

	noEpoch := []string{"--yes", "--no-keep", "--epoch-file", filepath.Join(b.dir, "none")}
	b.restore(t, s.Vault, s.RootToken, cli.ExitOK, append(noEpoch, "--file", stock)...)
	if got := secret(t, s.Root, "app/one"); got != "first" {
		t.Errorf("after our restore of their file: %q", got)
	}
	files, err := filepath.Glob(filepath.Join(b.disk, "*", "*.snap.age"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	b.restore(t, s.Vault, s.RootToken, cli.ExitOK, append(noEpoch, "--file", files[0])...)
	if got := secret(t, s.Root, "app/one"); got != "second" {
		t.Errorf("after a restore of our file without its manifest: %q", got)
	}
	t.Run("bad files", func(t *testing.T) { badFiles(t, s, b, stock, files[0], noEpoch) })

	putSecret(t, s.Root, "app/one", "fourth")
	plain := filepath.Join(b.dir, "plain.snap")
	if err := os.WriteFile(plain, decryptNewest(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := vaultCLI(t, s, s.RootToken, "operator", "raft", "snapshot", "restore", plain); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := waitSecret(ctx, t, s, "app/one", "second"); err != nil {
		t.Error(err)
	}
}

// waitSecret waits for a restore that was begun elsewhere.
func waitSecret(ctx context.Context, t *testing.T, s *vaulttest.Server, path, want string) error {
	t.Helper()
	for {
		if err := s.WaitActive(ctx); err != nil {
			return err
		}
		got, err := vaulttest.API(s.Root).KVv2("secret").Get(ctx, path)
		if err == nil && got.Data["value"] == want {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// badFiles are refused before anything changes.
func badFiles(t *testing.T, s *vaulttest.Server, b backupSite, stock, ours string, flags []string) {
	for _, from := range []string{stock, ours} {
		whole, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{
			"cut": whole[:len(whole)-1], "long": append(append([]byte{}, whole...), 0),
			"other": append(append([]byte{}, whole[:len(whole)/2]...), append([]byte{whole[len(whole)/2] ^ 1}, whole[len(whole)/2+1:]...)...),
			"empty": nil,
		} {
			bad := filepath.Join(b.dir, "bad")
			if err := os.WriteFile(bad, data, 0o600); err != nil {
				t.Fatal(err)
			}
			out := b.restore(t, s.Vault, s.RootToken, cli.ExitDrift, append(flags, "--file", bad)...)
			if strings.Contains(out, "Steps") {
				t.Errorf("%s %s: planned:\n%s", name, from, out)
			}
		}
	}
	if got := secret(t, s.Root, "app/one"); got != "second" {
		t.Errorf("a bad file changed app/one to %q", got)
	}
}

// startShamir starts a stock Vault with raft storage that is unsealed by hand,
// and gives its root token and its only unseal key.
func startShamir(t *testing.T) (c *vaultapi.Client, addr, root, key string) {
	t.Helper()
	dir := vaulttest.Dir(t)
	data := filepath.Join(dir, "raft")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	cluster, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "v.sock")
	hcl := fmt.Sprintf("storage \"raft\" {\n path = %q\n node_id = \"n1\"\n performance_multiplier = 1\n}\nlistener \"unix\" {\n address = %q\n}\nlistener \"tcp\" {\n address = %q\n cluster_address = %q\n tls_disable = true\n}\napi_addr = \"http://%s\"\ncluster_addr = \"https://%s\"\ndisable_mlock = true\n", data, sock, tcp, cluster, tcp, cluster)
	file := filepath.Join(dir, "vault.hcl")
	if err := os.WriteFile(file, []byte(hcl), 0o600); err != nil {
		t.Fatal(err)
	}
	set := proc.NewSet()
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := set.Start(proc.Spec{Name: "vault", Path: vaulttest.Bin(t, "vault"), LogFile: filepath.Join(dir, "log"), Args: []string{"server", "-config=" + file}}); err != nil {
		t.Fatal(err)
	}
	addr = "unix://" + sock
	if c, err = vaultapi.New(vaultapi.Options{Address: addr}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := c.WaitListening(ctx); err != nil {
		t.Fatal(err)
	}
	init, err := vaulttest.API(c).Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	unseal(t, c, init.KeysB64[0])
	c.SetToken(init.RootToken)
	if err := c.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	return c, addr, init.RootToken, init.KeysB64[0]
}

func unseal(t *testing.T, c *vaultapi.Client, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if s, err := vaulttest.API(c).Sys().UnsealWithContext(ctx, key); err != nil || s.Sealed {
		t.Fatalf("unseal: %+v, %v", s, err)
	}
	if err := c.WaitActive(ctx); err != nil {
		t.Fatal(err)
	}
}

// A Vault that is unsealed by hand takes another one's snapshot only by force,
// and opens then with the other's key.
func TestSnapshotRestoreForced(t *testing.T) {
	from, _, fromRoot, fromKey := startShamir(t)
	to, toAddr, toRoot, toKey := startShamir(t)
	putSecret(t, from, "app/one", "theirs")
	putSecret(t, to, "app/one", "mine")
	dir := t.TempDir()
	file, token := filepath.Join(dir, "their.snap"), filepath.Join(dir, "token")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(from.Snapshot(t.Context(), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte(toRoot), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"restore", "--yes", "--no-keep", "--address", toAddr, "--token-file", token, "--file", file, "--epoch-file", filepath.Join(dir, "none"), "--patience", "1m"}
	out := mustRun(t, cli.ExitOperator, args...)
	if !strings.Contains(out, "another master key") || strings.Contains(out, "\nrestored") || secret(t, to, "app/one") != "mine" {
		t.Fatalf("without force:\n%s", out)
	}
	out = mustRun(t, cli.ExitOperator, append(args, "--force")...)
	if !strings.Contains(out, "\nrestored") || !strings.Contains(out, "unseal it with the keys of the snapshot") {
		t.Fatalf("by force:\n%s", out)
	}
	// Its own key is of no use any more.
	if s, err := vaulttest.API(to).Sys().UnsealWithContext(t.Context(), toKey); err == nil && !s.Sealed {
		t.Fatal("the replaced Vault's key opens the snapshot")
	}
	unseal(t, to, fromKey)
	to.SetToken(fromRoot)
	if got := secret(t, to, "app/one"); got != "theirs" {
		t.Errorf("app/one is %q", got)
	}
}
