package steps

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// What was settled when Vault was initialised is held against what is in force: Vault's
// own word, or else what was written down with the data. A kept configuration that says
// otherwise is no excuse, and the old value is always taken.
func TestImmutable(t *testing.T) {
	raft := func(ids ...string) func(*jobWorld) {
		return func(w *jobWorld) {
			var servers []map[string]any
			for _, id := range ids {
				servers = append(servers, map[string]any{"node_id": id})
			}
			w.vault.answer = func(_ *http.Request, p string) (int, any) {
				switch p {
				case "sys/storage/raft/configuration":
					return http.StatusOK, map[string]any{"data": map[string]any{"config": map[string]any{"servers": servers}}}
				case "sys/seal-status":
					return http.StatusOK, json.RawMessage(`{"type":"transit","sealed":false,"n":5,"t":3}`)
				}
				return 0, nil
			}
		}
	}
	silent := func(e *Env) { e.Vault = newVPS(t).env().Vault }
	for _, c := range []struct {
		name   string
		world  func(*jobWorld)
		change func(*Env)
		want   string // of the refusal; "" for none
	}{
		{"as it is", raft("node-1"), func(*Env) {}, ""},
		{"another node", raft("node-1"), func(e *Env) { e.Config.Node.ID = "node-2" }, `node.id is "node-2", and this Vault's data is of node "node-1"`},
		{"put back, after the configuration kept another", raft("node-1"), func(e *Env) {
			e.Host.FS.(*host.Memory).Files[machine.ConfigFile] = &host.Node{Data: []byte("[node]\nid = \"node-2\"\n")}
		}, ""},
		{"one of several", raft("node-1", "node-2"), func(e *Env) { e.Config.Node.ID = "node-2" }, ""},
		{"none of several", raft("node-1", "node-2"), func(e *Env) { e.Config.Node.ID = "node-3" }, `of node "node-1, node-2"`},
		{"Vault is away, and it was written down", raft(), func(e *Env) {
			silent(e)
			e.Config.Node.ID = "node-2"
			e.Host.FS.(*host.Memory).Files[machine.NodeFile] = &host.Node{Data: []byte("node-1\n")}
		}, `of node "node-1"`},
		{"Vault is away, and an earlier version has written its configuration alone", raft(), func(e *Env) {
			silent(e)
			e.Config.Node.ID = "node-2"
			e.Host.FS.(*host.Memory).Files[machine.VaultHCL] = &host.Node{Data: []byte("storage \"raft\" {\n  node_id = \"node-1\"\n}\n")}
		}, `of node "node-1"`},
		{"Vault is away, and nothing is known", raft(), silent, ""},
		{"no data", raft("node-1"), func(e *Env) {
			delete(e.Host.FS.(*host.Memory).Files, machine.RaftDir+"/vault.db")
			e.Config.Node.ID = "node-2"
		}, ""},
		{"shares", raft("node-1"), func(e *Env) { e.Config.Escrow.Shares = 7 }, "escrow.shares is 7, and in force is 5"},
		{"threshold", raft("node-1"), func(e *Env) { e.Config.Escrow.Threshold = 2 }, "escrow.threshold is 2, and in force is 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newJobWorld(t)
			e := w.env()
			if diff, err := (jobs{e}).Check(t.Context()); err != nil {
				t.Fatal(err)
			} else {
				for _, change := range diff {
					if err := change.Apply(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, p := range []string{machine.VaultData, machine.RaftDir} {
				w.Files[p] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
			}
			w.Files[machine.RaftDir+"/vault.db"] = &host.Node{}
			c.world(w)
			c.change(e)
			err := preflight{e}.immutable(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
			if c.want == "" {
				return
			}
			var fe *fault.Error
			if _, err := (preflight{e}).Check(t.Context()); !errors.As(err, &fe) || fe.Code != fault.Operator || !strings.Contains(err.Error(), c.want) {
				t.Errorf("preflight: %v", err)
			}
		})
	}
}
