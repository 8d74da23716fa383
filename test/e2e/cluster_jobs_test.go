package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/cli"
	"strongroom.example/appliance/watch/doctor"
	"strongroom.example/appliance/watch/status"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// The timers' jobs run on every node: on a standby they do the leader's work
// nowhere, say so, and leave a state that nobody takes for a fault.
func clusterJobs(t *testing.T, c *vaulttest.Cluster) {
	leader, standbys := c.Settle()
	standby := standbys[0]
	b := newSite(t, leader, "")
	b.takeState, b.verifyState = filepath.Join(b.dir, "snapshot"), filepath.Join(b.dir, "verify")
	if err := os.Mkdir(b.takeState, 0o700); err != nil {
		t.Fatal(err)
	}

	// What a job without the look beforehand would meet: Vault never forwards
	// this path. It redirects to the leader's own address, and the client over
	// the unix socket takes that for what it is, no snapshot.
	resp, text := nodeRequest(t, standby, http.MethodGet, "sys/storage/raft/snapshot", "", nil)
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") == "" || text != "" {
		t.Errorf("snapshot at a standby: %s, %d bytes", resp.Status, len(text))
	}
	var got bytes.Buffer
	if err := standby.Root.Snapshot(t.Context(), &got); err == nil || got.Len() > 0 {
		t.Errorf("a snapshot of %d bytes from a standby, %v", got.Len(), err)
	}

	out := b.take(t, standby, cli.ExitOK)
	if !strings.Contains(out, "standby: the leader takes the snapshots") {
		t.Errorf("take on a standby:\n%s", out)
	}
	if files := tree(t, b.disk); files != "" {
		t.Errorf("a standby stored\n%s", files)
	}
	if s, err := snapshot.LoadTakeState(b.takeState); err != nil || s.Standby == nil || s.Failure != nil {
		t.Errorf("state %+v, %v", s, err)
	}
	for verb, args := range map[string][]string{
		"verifies": {"verify", "--state", b.verifyState, "--identity", b.identity},
		"prunes":   {"prune"},
	} {
		args = append([]string{"snapshot", args[0], "--config", b.config, "--take-state", b.takeState, "--unless-standby"}, args[1:]...)
		if out := mustRun(t, cli.ExitOK, args...); !strings.Contains(out, "standby: the leader "+verb) {
			t.Errorf("%s:\n%s", verb, out)
		}
	}
	standbyIsWell(t, standby, b)
	clusterMetrics(t, standby, b.dir)

	// The same job on the leader takes one, and forgets that it stood aside.
	out = b.take(t, leader, cli.ExitOK)
	if s, err := snapshot.LoadTakeState(b.takeState); err != nil || s.Standby != nil || !strings.Contains(out, "taken ") {
		t.Errorf("state %+v, %v\n%s", s, err, out)
	}
	b.verify(t, cli.ExitOK)
}

// standbyIsWell looks at a standby with status and doctor, whose job has stood
// aside.
func standbyIsWell(t *testing.T, s *vaulttest.Server, b backupSite) {
	t.Helper()
	args := []string{"--address", vaultAddr(s), "--config", b.config, "--states", b.dir, "--front", "127.0.0.1:1", "--token-file", lookToken(t, s.RootToken)}
	out := mustRun(t, cli.ExitOK, append([]string{"status"}, args...)...)
	for _, want := range []string{"✓ Vault        unsealed, standby · 1.21.1 · 3 raft nodes", "✓ Backup       the leader takes them; this node stood aside", "✓ API keys     1 key"} {
		if !strings.Contains(out, want) {
			t.Errorf("status on a standby lacks %q:\n%s", want, out)
		}
	}
	var r status.Report
	text := mustRun(t, cli.ExitOK, append([]string{"status", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Keys == nil || r.Keys.Count != 1 || r.Raft == nil || !r.Vault.Standby {
		t.Errorf("%v: %s", err, text)
	}
	_, text = strongroom(t.Context(), append([]string{"doctor", "--json", "--no-save"}, args...)...)
	var d doctor.Report
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&d); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	i, _ := d.Item("backup-drill")
	if all, err := json.Marshal(i); err != nil || !strings.Contains(string(all), "the leader of the cluster takes the backups") || strings.Contains(string(all), "no backup was ever") {
		t.Errorf("doctor on a standby: %s, %v", all, err)
	}
}

const clusterAppsConf = `
manifest = "cluster"
[[app]]
name = "shop"
[[app.environment]]
name    = "production"
secrets = ["database-url"]
[[app.environment.key]]
name            = "billing"
provider        = "generated"
rotation_period = "90d"
`

// app apply writes KV, policies and AppRoles through whichever node it is given,
// and the other nodes know of it at once.
func clusterApps(t *testing.T, c *vaulttest.Cluster) {
	leader, standbys := c.Settle()
	ctx, v := t.Context(), vaulttest.API(leader.Root)
	if err := leader.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	for name, text := range config.Policies() {
		if err := v.Sys().PutPolicyWithContext(ctx, name, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Sys().EnableAuthWithOptionsWithContext(ctx, "userpass", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		t.Fatal(err)
	}
	site := &appSite{Server: standbys[0], dir: vaulttest.Dir(t)}
	site.config = filepath.Join(site.dir, "apps.toml")
	site.write(t, clusterAppsConf)
	site.admin = site.token(t, "admin", config.PolicyAdmin)

	out := site.app(t, cli.ExitOK, "apply")
	if !strings.Contains(out, "to create") {
		t.Errorf("applied:\n%s", out)
	}
	// Again through each node: nothing to do.
	for _, s := range c.Nodes {
		site.Server = s
		if out := site.app(t, cli.ExitOK, "plan"); !strings.Contains(out, "0 to create, 0 to change, 0 to remove") {
			t.Errorf("planned again:\n%s", out)
		}
	}
	// What was made works at nodes that did not make it: a secret id from one, a
	// login at the next, a read with that token at the third.
	role := "auth/approle/role/shop-production"
	id, err := vaulttest.API(c.Nodes[0].Root).Logical().ReadWithContext(ctx, role+"/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := vaulttest.API(c.Nodes[0].Root).Logical().WriteWithContext(ctx, role+"/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vaulttest.API(c.Nodes[1].Root).KVv2("secret").Put(ctx, "shop/production/database-url", map[string]any{"value": "stored-at-node-2"}); err != nil {
		t.Fatal(err)
	}
	for i := range c.Nodes {
		at, then := c.Nodes[i].Client(t, ""), c.Nodes[(i+1)%len(c.Nodes)].Client(t, "")
		if err := at.LoginAppRole(ctx, id.Data["role_id"].(string), secret.Data["secret_id"].(string)); err != nil {
			t.Fatal(err)
		}
		then.SetToken(at.Token())
		got, err := vaulttest.API(then).KVv2("secret").Get(ctx, "shop/production/database-url")
		if err != nil || got.Data["value"] != "stored-at-node-2" {
			t.Errorf("a token from node %d reads at the next %v, %v", i+1, got, err)
		}
		key, err := vaulttest.API(then).Logical().ReadWithContext(ctx, "apikeys/creds/shop/production/billing")
		if err != nil || key == nil || key.Data["key"] == "" {
			t.Errorf("a token from node %d reads at the next the key %v, %v", i+1, key, err)
		}
		if err := at.RevokeSelf(ctx); err != nil {
			t.Error(err)
		}
		if _, err := vaulttest.API(then).KVv2("secret").Get(ctx, "shop/production/database-url"); err == nil {
			t.Errorf("a token that node %d has revoked still reads at the next", i+1)
		}
	}
}

// clusterMetrics has the daemon of a standby tell of its own Vault, and by the
// leader of the keys.
func clusterMetrics(t *testing.T, standby *vaulttest.Server, states string) {
	t.Helper()
	roleID, secretID := monitorRole(t, standby, vaulttest.Dir(t))
	addr, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	child, err := standby.Set.Start(proc.Spec{
		Name: "metrics", Path: vaulttest.Bin(t, "strongroom"), LogFile: standby.Layout.Log("metrics"),
		Args: []string{"metrics", "--listen", addr, "--domain", "127.0.0.1", "--states", states, "--audit-logs", filepath.Dir(standby.Layout.Audit("x")),
			"--address", vaultAddr(standby), "--role-id-file", roleID, "--secret-id-file", secretID,
			"--front", "127.0.0.1:1", "--front-socket", standby.Layout.FrontMetrics()},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := child.WaitUp(ctx, func(ctx context.Context) error { return waitTCP(ctx, addr) }); err != nil {
		t.Fatal(err)
	}
	// A part that takes longer than five seconds is left out of one scrape, and
	// told in the next.
	lacking := func() (lacks []string, text string) {
		text = scrape(t, "http://"+addr+"/metrics")
		for _, want := range []string{"\nstrongroom_vault_standby 1\n", "\nstrongroom_vault_up 1\n", "\nstrongroom_snapshot_standby 1\n", "apikeys"} {
			if !strings.Contains(text, want) {
				lacks = append(lacks, want)
			}
		}
		return lacks, text
	}
	for lacks, text := lacking(); len(lacks) > 0; lacks, text = lacking() {
		select {
		case <-ctx.Done():
			t.Fatalf("metrics of a standby lack %q:\n%s", lacks, text)
		case <-time.After(200 * time.Millisecond):
		}
	}
	// Vault's telemetry is the standby's own: it answers itself.
	if vault := scrape(t, "http://"+addr+"/vault"); !strings.Contains(vault, "\nvault_") || strings.Contains(vault, `vault_core_active{cluster="strongroom"} 1`) {
		t.Error("the telemetry is not a standby's")
	}
	if err := child.Stop(); err != nil {
		t.Error(err)
	}
}
