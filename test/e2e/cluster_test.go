package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/test/vaulttest"
)

// nodeRequest asks one node over its unix socket, follows no redirect, and
// gives the answer with its body.
func nodeRequest(t *testing.T, s *vaulttest.Server, method, path, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	resp, text, err := askNode(t.Context(), s, method, path, body, header)
	if err != nil {
		t.Fatal(err)
	}
	return resp, text
}

func askNode(ctx context.Context, s *vaulttest.Server, method, path, body string, header map[string]string) (*http.Response, string, error) {
	c := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", s.Layout.VaultSocket())
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://vault/v1/"+path, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("X-Vault-Token", s.RootToken)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

// readNode reads apikeys/PATH at one node. On a loaded machine raft elects anew
// now and then, and a node without a leader has no answer for a moment.
func readNode(t *testing.T, s *vaulttest.Server, path string) map[string]any {
	t.Helper()
	resp, text := nodeRequest(t, s, http.MethodGet, "apikeys/"+path, "", nil)
	for deadline := time.Now().Add(vaulttest.Patience); resp.StatusCode >= 500 && time.Now().Before(deadline); {
		<-time.After(50 * time.Millisecond)
		resp, text = nodeRequest(t, s, http.MethodGet, "apikeys/"+path, "", nil)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s at %s: %s: %s", path, s.Layout.Dir, resp.Status, text)
	}
	var answer struct {
		Data map[string]any `json:"data"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Data
}

// keyedCluster is three nodes with the engine and one key.
func keyedCluster(t *testing.T) *vaulttest.Cluster {
	t.Helper()
	c := vaulttest.NewCluster(t, 3)
	s := c.Leader()
	s.MountAPIKeys(t)
	tune := map[string]any{"passthrough_request_headers": []string{"If-None-Match"}, "allowed_response_headers": []string{"ETag"}}
	for _, w := range []struct {
		path string
		data map[string]any
	}{
		{"sys/mounts/apikeys/tune", tune},
		{"apikeys/providers/generated", map[string]any{"type": "generated"}},
		{"apikeys/keys/" + clientKey, map[string]any{"provider": "generated", "grace_period": "1h"}},
	} {
		if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), w.path, w.data); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Three nodes of one Vault. Only the leader runs the engine; a standby forwards
// to it, so whatever a client asks of any node is as fresh as the leader's.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := keyedCluster(t)
	t.Run("reads", func(t *testing.T) { clusterReads(t, c) })
	t.Run("verify", func(t *testing.T) { clusterVerify(t, c) })
	t.Run("rotation is seen at once", func(t *testing.T) { clusterRotation(t, c) })
	t.Run("waiting reads", func(t *testing.T) { clusterWaits(t, c) })
	t.Run("jobs", func(t *testing.T) { clusterJobs(t, c) })
	t.Run("app", func(t *testing.T) { clusterApps(t, c) })
	t.Run("step-down", func(t *testing.T) { clusterStepDown(t, c) })
	t.Run("epoch of its own", func(t *testing.T) { clusterEpoch(t, c) })
	t.Run("a copy's snapshot", func(t *testing.T) { clusterCopy(t, c) })
}

// A copy of the cluster on one machine, as in a rehearsal. As long as it answers its snapshot
// would be the end of the cluster, and is refused; afterwards it is restored as any.
func clusterCopy(t *testing.T, c *vaulttest.Cluster) {
	leader, _ := c.Settle()
	dir := t.TempDir()
	snap := func(s *vaulttest.Server, name string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if err := vaulttest.API(s.Root).Sys().RaftSnapshotWithContext(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		return file
	}
	restored := func(s *vaulttest.Server, file string) error {
		t.Helper()
		checked, err := restore.FromFile(t.Context(), file, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checked.Close() }()
		_, err = restore.Run(t.Context(), restore.Options{Snapshot: checked, Vault: s.Root, EpochFile: s.Layout.EpochFile(), Patience: vaulttest.ClusterPatience})
		return err
	}
	copied := vaulttest.New(t, vaulttest.Node{ID: "node-9", Keyset: leader.Keyset})
	if err := restored(copied, snap(leader, "cluster.snap")); !errors.Is(err, restore.ErrTokenGone) {
		t.Fatalf("into the copy: %v", err)
	}
	copied.Root.SetToken(leader.RootToken)
	file := snap(copied, "copy.snap")
	if err := restored(leader, file); !errors.Is(err, restore.ErrOtherAnswers) {
		t.Fatalf("while the copy answers: %v", err)
	}
	if err := copied.Set.Close(); err != nil {
		t.Fatal(err)
	}
	if err := restored(leader, file); err != nil {
		t.Fatalf("when it is gone: %v", err)
	}
	if _, standbys := c.Settle(); len(standbys) != 2 {
		t.Errorf("%d standbys", len(standbys))
	}
}

func clusterReads(t *testing.T, c *vaulttest.Cluster) {
	leader, standbys := c.Settle()
	if len(standbys) != 2 {
		t.Fatalf("%d standbys", len(standbys))
	}
	awaitOnlyEngine(t, c)
	want := readNode(t, leader, "creds/"+clientKey)
	etag := want["etag"].(string)
	for i, s := range c.Nodes {
		got := readNode(t, s, "creds/"+clientKey)
		for _, field := range []string{"key", "version", "etag", "last_vault_rotation", "next_rotation_time", "cache_ttl", "state"} {
			if got[field] != want[field] {
				t.Errorf("node %d: %s is %v, the leader says %v", i+1, field, got[field], want[field])
			}
		}
		resp, _ := nodeRequest(t, s, http.MethodGet, "apikeys/creds/"+clientKey, "", nil)
		if got := resp.Header.Get("ETag"); got != etag {
			t.Errorf("node %d: header ETag %s, want %s", i+1, got, etag)
		}
		resp, text := nodeRequest(t, s, http.MethodGet, "apikeys/creds/"+clientKey, "", map[string]string{"If-None-Match": etag})
		if resp.StatusCode != http.StatusNotModified || text != "" {
			t.Errorf("node %d: If-None-Match: %s %q", i+1, resp.Status, text)
		}
		resp, text = nodeRequest(t, s, http.MethodGet, "apikeys/creds/"+clientKey+"?if_version=1", "", nil)
		if resp.StatusCode != http.StatusNotModified || text != "" {
			t.Errorf("node %d: if_version: %s %q", i+1, resp.Status, text)
		}
		resp, text = nodeRequest(t, s, http.MethodGet, "apikeys/creds/none", "", nil)
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("node %d: a key that is not there: %s %q", i+1, resp.Status, text)
		}
		if st := readNode(t, s, "status"); st["active"] != true || fmt.Sprint(st["key_count"]) != "1" {
			t.Errorf("node %d: status %v", i+1, st)
		}
	}
	awaitOnlyEngine(t, c) // the reads started none
}

// verifyAt asks a node whether a presented key is valid.
func verifyAt(t *testing.T, s *vaulttest.Server, key string) string {
	t.Helper()
	r, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "apikeys/verify/"+clientKey, map[string]any{"key": key})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.Data["valid"], " ", r.Data["state"])
}

func clusterVerify(t *testing.T, c *vaulttest.Cluster) {
	_, standbys := c.Settle()
	old := readNode(t, standbys[0], "creds/"+clientKey)["key"].(string)
	rotateAt(t, standbys[0])
	key := readNode(t, standbys[1], "creds/"+clientKey)["key"].(string)
	for i, s := range c.Nodes {
		for presented, want := range map[string]string{key: "true current", old: "true grace", "canary-" + old: "false <nil>"} {
			if got := verifyAt(t, s, presented); got != want {
				t.Errorf("node %d says %q, want %q", i+1, got, want)
			}
		}
	}
}

// rotateAt rotates the key through a node and gives the new version.
func rotateAt(t *testing.T, s *vaulttest.Server) string {
	t.Helper()
	r, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "apikeys/rotate/"+clientKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.Data["version"])
}

// Whoever has the answer to a rotation, by whichever node, may tell a reader of
// any other node.
func clusterRotation(t *testing.T, c *vaulttest.Cluster) {
	seen := map[string]bool{}
	for _, by := range c.Nodes {
		version := rotateAt(t, by)
		if seen[version] {
			t.Errorf("version %s twice", version)
		}
		seen[version] = true
		for i, s := range c.Nodes {
			if got := fmt.Sprint(readNode(t, s, "creds/"+clientKey)["version"]); got != version {
				t.Errorf("node %d still gives version %s, it is %s", i+1, got, version)
			}
		}
	}
}

// A long poll at each node ends with the new version when there is one.
func clusterWaits(t *testing.T, c *vaulttest.Cluster) {
	leader, _ := c.Settle()
	before := fmt.Sprint(readNode(t, leader, "creds/"+clientKey)["version"])
	type answer struct {
		node, status int
		text         string
	}
	answers := make(chan answer, len(c.Nodes))
	for i, s := range c.Nodes {
		go func() {
			status, text, err := askNode(t.Context(), s, http.MethodGet, "apikeys/creds/"+clientKey+"?wait=60&if_version="+before, "", nil)
			if err != nil {
				text = err.Error()
				answers <- answer{i + 1, 0, text}
				return
			}
			answers <- answer{i + 1, status.StatusCode, text}
		}()
	}
	awaitWaiting(t, leader, len(c.Nodes))
	version := rotateAt(t, leader)
	told := time.Now()
	for range c.Nodes {
		a := <-answers
		var got struct {
			Data struct {
				Version json.Number `json:"version"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(a.text), &got); err != nil || a.status != http.StatusOK || got.Data.Version.String() != version {
			t.Errorf("node %d: status %d, version %s, want %s; %v", a.node, a.status, got.Data.Version, version, err)
		}
	}
	t.Logf("a reader that waited at each of %d nodes had version %s %v after the rotation's answer", len(c.Nodes), version, time.Since(told).Round(time.Millisecond))
}

// A step-down ends the leader's engine, waits included, before another begins.
func clusterStepDown(t *testing.T, c *vaulttest.Cluster) {
	leader, _ := c.Settle()
	before := readNode(t, leader, "creds/"+clientKey)
	if out, err := vaultCLI(t, leader, leader.RootToken, "operator", "step-down"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Leader(leader)
	c.Settle()
	awaitOnlyEngine(t, c)
	for i, s := range c.Nodes {
		if after := readNode(t, s, "creds/"+clientKey); after["key"] != before["key"] || after["version"] != before["version"] {
			t.Errorf("node %d: version %v before, %v after", i+1, before["version"], after["version"])
		}
	}
	rotateAt(t, leader)
}

// A node that was not given the cluster's epoch file serves what is there, and
// neither mints nor revokes until it has been put right.
func clusterEpoch(t *testing.T, c *vaulttest.Cluster) {
	leader, standbys := c.Settle()
	epoch, err := os.ReadFile(leader.Layout.EpochFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range standbys {
		if err := os.WriteFile(s.Layout.EpochFile(), []byte(`{"installation_id":"another","epoch":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := readNode(t, leader, "creds/"+clientKey)
	leader.Down(t)
	next, _ := c.Settle(leader)
	if after := readNode(t, next, "creds/"+clientKey); after["key"] != before["key"] {
		t.Error("a fenced node gives another key")
	}
	fence := readNode(t, next, "status")["fence"].(map[string]any)
	if reason, _ := fence["reason"].(string); fence["closed"] != true || !strings.Contains(reason, `this is "another"`) {
		t.Errorf("fence %v", fence)
	}
	_, err = vaulttest.API(next.Root).Logical().WriteWithContext(t.Context(), "apikeys/rotate/"+clientKey, nil)
	var refused *api.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusBadRequest || !strings.Contains(err.Error(), "fenced") {
		t.Errorf("rotate: %v", err)
	}
	// The cluster's file in place, the engine wants to be started once more.
	for _, s := range standbys {
		if err := os.WriteFile(s.Layout.EpochFile(), epoch, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leader.Up(t)
	c.Settle()
	if _, err := vaulttest.API(next.Root).Logical().WriteWithContext(t.Context(), "sys/plugins/reload/backend", map[string]any{"mounts": "apikeys/"}); err != nil {
		t.Fatal(err)
	}
	rotateAt(t, next)
}
