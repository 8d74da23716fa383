package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/vault/api"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/cli"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// backupSite is where a test's snapshots go and who may read them.
type backupSite struct {
	dir                             string // of all below
	config                          string
	bucket, disk                    string
	identity                        string // file
	recipient                       string
	roleID, secretID                string // files
	takeState, verifyState, replace string
}

// strongroom runs the command line in this process and gives its exit code and
// all that it printed.
func strongroom(ctx context.Context, args ...string) (int, string) {
	c := cli.New("e2e")
	var buf bytes.Buffer
	c.SetOut(&buf)
	c.SetErr(&buf)
	c.SetArgs(args)
	code := cli.Report(&buf, c.ExecuteContext(ctx))
	return code, buf.String()
}

// mustRun runs the command line and wants an exit code.
func mustRun(t *testing.T, want int, args ...string) string {
	t.Helper()
	code, out := strongroom(t.Context(), args...)
	if code != want {
		t.Fatalf("strongroom %s: exit code %d, want %d:\n%s", strings.Join(args, " "), code, want, out)
	}
	return out
}

// startS3 starts a real S3 server with an empty bucket "backups".
func startS3(t *testing.T) (addr string, set *proc.Set) {
	t.Helper()
	dir := vaulttest.Dir(t)
	addr, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	set = proc.NewSet()
	t.Cleanup(func() { _ = set.Close() })
	child, err := set.Start(proc.Spec{
		Name: "versitygw", Path: vaulttest.Bin(t, "versitygw"), LogFile: filepath.Join(dir, "log"),
		Args: []string{"--port", addr, "--quiet", "posix", data},
		Env:  []string{"ROOT_ACCESS_KEY_ID=test-access", "ROOT_SECRET_ACCESS_KEY=test-secret-key"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := child.WaitUp(ctx, func(ctx context.Context) error { return waitTCP(ctx, addr) }); err != nil {
		t.Fatal(err)
	}
	c, err := minio.New(addr, &minio.Options{Creds: credentials.NewStaticV4("test-access", "test-secret-key", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.MakeBucket(ctx, "backups", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return addr, set
}

func waitTCP(ctx context.Context, addr string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// newSite makes an AppRole that can only take snapshots, keys, a directory and
// a bucket, and writes the configuration.
func newSite(t *testing.T, s *vaulttest.Server, s3 string) backupSite {
	t.Helper()
	dir := vaulttest.Dir(t)
	b := backupSite{
		dir: dir, config: filepath.Join(dir, "appliance.toml"), disk: filepath.Join(dir, "disk"),
		identity: filepath.Join(dir, "identity"), roleID: filepath.Join(dir, "role-id"), secretID: filepath.Join(dir, "secret-id"),
		takeState: filepath.Join(dir, "take"), verifyState: filepath.Join(dir, "verify"), replace: filepath.Join(dir, "replaced"),
	}
	for _, d := range []string{b.disk, b.takeState, b.verifyState, b.replace} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b.recipient = id.Recipient().String()
	conf := "[backup]\nrecipients = [\"" + b.recipient + "\"]\nfiles = []\n[[backup.to]]\ntype = \"dir\"\npath = \"" + b.disk + "\"\n"
	if s3 != "" {
		b.bucket = "s3:" + s3 + "/backups"
		conf += "[[backup.to]]\ntype = \"s3\"\nendpoint = \"http://" + s3 + "\"\nbucket = \"backups\"\ncredentials = \"" + filepath.Join(dir, "s3") + "\"\n"
	}
	roleID, secretID := snapshotRole(t, s)
	for name, text := range map[string]string{
		b.identity: id.String() + "\n", b.config: conf, b.roleID: roleID, b.secretID: secretID,
		filepath.Join(dir, "s3"): "access_key = \"test-access\"\nsecret_key = \"test-secret-key\"\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// snapshotRole makes the AppRole of the installed snapshot job.
func snapshotRole(t *testing.T, s *vaulttest.Server) (roleID, secretID string) {
	t.Helper()
	ctx, v := t.Context(), vaulttest.API(s.Root)
	if err := v.Sys().PutPolicyWithContext(ctx, config.PolicySnapshot, config.Policies()[config.PolicySnapshot]); err != nil {
		t.Fatal(err)
	}
	auths, err := v.Sys().ListAuthWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if auths["approle/"] == nil {
		if err := v.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
			t.Fatal(err)
		}
	}
	role := "auth/approle/role/strongroom-snapshot"
	if _, err := v.Logical().WriteWithContext(ctx, role, map[string]any{"token_policies": config.PolicySnapshot, "token_ttl": "10m"}); err != nil {
		t.Fatal(err)
	}
	r, err := v.Logical().ReadWithContext(ctx, role+"/role-id")
	if err != nil {
		t.Fatal(err)
	}
	sid, err := v.Logical().WriteWithContext(ctx, role+"/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Data["role_id"].(string), sid.Data["secret_id"].(string)
}

func vaultAddr(s *vaulttest.Server) string { return "unix://" + s.Layout.VaultSocket() }

func (b backupSite) take(t *testing.T, s *vaulttest.Server, want int, args ...string) string {
	t.Helper()
	return mustRun(t, want, append([]string{"snapshot", "take", "--config", b.config, "--state", b.takeState,
		"--address", vaultAddr(s), "--role-id-file", b.roleID, "--secret-id-file", b.secretID}, args...)...)
}

func (b backupSite) verify(t *testing.T, want int, args ...string) string {
	t.Helper()
	return mustRun(t, want, append([]string{"snapshot", "verify", "--config", b.config, "--state", b.verifyState,
		"--take-state", b.takeState, "--identity", b.identity}, args...)...)
}

// vaultCLI runs the stock vault program.
func vaultCLI(t *testing.T, s *vaulttest.Server, token string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(vaulttest.Bin(t, "vault"), args...)
	cmd.Env = []string{"VAULT_ADDR=" + vaultAddr(s), "VAULT_TOKEN=" + token, "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// fill writes n secrets of size bytes each, so that a snapshot has a body.
func fill(t *testing.T, s *vaulttest.Server, n, size int) {
	t.Helper()
	kv := vaulttest.API(s.Root).KVv2("secret")
	for i := range n {
		b := make([]byte, size/2)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), "fill/"+string(rune('a'+i%26))+hex.EncodeToString(b[:4]), map[string]any{"v": hex.EncodeToString(b)}); err != nil {
			t.Fatal(err)
		}
	}
}
