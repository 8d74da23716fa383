package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// vaultParams is a complete set with defaults left out.
func vaultParams() VaultParams {
	return VaultParams{
		APIAddr:         "https://vault.example.com",
		ClusterAddr:     "https://127.0.0.1:8201",
		StoragePath:     "/var/lib/vault/raft",
		PluginDir:       "/usr/local/lib/strongroom/plugins",
		SealSocket:      "/run/strongroom-kms/kms.sock",
		TLSCertFile:     "/etc/vault/tls/listener.crt",
		TLSKeyFile:      "/etc/vault/tls/listener.key",
		TLSClientCAFile: "/etc/vault/tls/front-ca.crt",
		Socket:          "/run/vault/vault.sock",
		SocketUser:      "vault",
		SocketGroup:     "strongroom",
	}
}

func TestRenderVaultGolden(t *testing.T) {
	withPeers := vaultParams()
	withPeers.NodeID = "node-2"
	withPeers.UI = true
	withPeers.Peers = []VaultPeer{
		{APIAddr: "https://10.0.0.1:8200", CACertFile: "/etc/vault/tls/ca.crt",
			ClientCertFile: "/etc/vault/tls/c.crt", ClientKeyFile: "/etc/vault/tls/c.key", TLSServerName: "node-1.internal"},
		{APIAddr: "https://10.0.0.3:8200"},
	}
	bao := vaultParams()
	bao.Product = ProductOpenBao
	machines := bao
	machines.AuditFiles = map[string]string{"audit-2": "/var/log/vault/audit-2.log", "audit-1": "/var/log/vault/audit-1.log"}
	for name, p := range map[string]VaultParams{"single": vaultParams(), "peers": withPeers, "openbao": bao, "openbao_audit": machines} {
		t.Run(name, func(t *testing.T) {
			got, err := RenderVault(p)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "vault_"+name+".hcl")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("differs from %s; if meant, run with -update\n%s", golden, got)
			}
		})
	}
}

func TestRenderVaultParsesBack(t *testing.T) {
	p := vaultParams()
	// As odd as a path may be: everything HCL treats specially.
	p.StoragePath = `/srv/a "b" \c ${d} $${e} {f/ü`
	p.Peers = []VaultPeer{{APIAddr: "https://10.0.0.1:8200"}, {APIAddr: "https://10.0.0.2:8200"}}
	b, err := RenderVault(p)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		DisableMlock *bool  `hcl:"disable_mlock"`
		APIAddr      string `hcl:"api_addr"`
		Storage      []struct {
			Type      string `hcl:",key"`
			Path      string `hcl:"path"`
			NodeID    string `hcl:"node_id"`
			RetryJoin []struct {
				Leader string `hcl:"leader_api_addr"`
			} `hcl:"retry_join"`
		} `hcl:"storage"`
		Listener []struct {
			Type          string `hcl:",key"`
			RequireClient bool   `hcl:"tls_require_and_verify_client_cert"`
			SocketMode    string `hcl:"socket_mode"`
			SocketUser    string `hcl:"socket_user"`
			SocketGroup   string `hcl:"socket_group"`
			ReadTimeout   string `hcl:"http_read_timeout"`
		} `hcl:"listener"`
		Seal []struct {
			Type    string `hcl:",key"`
			Address string `hcl:"address"`
		} `hcl:"seal"`
	}
	if err := hcl.Decode(&got, string(b)); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if got.DisableMlock == nil || !*got.DisableMlock {
		t.Error("disable_mlock is not explicit")
	}
	if len(got.Storage) != 1 || got.Storage[0].Path != p.StoragePath || got.Storage[0].NodeID != "node-1" {
		t.Errorf("storage = %+v, want path %q", got.Storage, p.StoragePath)
	}
	if n := len(got.Storage[0].RetryJoin); n != 2 {
		t.Errorf("%d retry_join blocks, want 2", n)
	}
	if len(got.Listener) != 2 || got.Listener[0].Type != "tcp" || !got.Listener[0].RequireClient {
		t.Errorf("listeners = %+v", got.Listener)
	}
	if l := got.Listener[1]; l.SocketMode != "0660" || l.SocketUser != "vault" || l.SocketGroup != "strongroom" {
		t.Errorf("unix listener = %+v: Vault ignores mode, user and group unless all are set", l)
	}
	// As long as a snapshot may be under way (take, verify, restore); the front's stays short.
	if got.Listener[0].ReadTimeout != "" || got.Listener[1].ReadTimeout != "4h" {
		t.Errorf("read timeouts %q and %q", got.Listener[0].ReadTimeout, got.Listener[1].ReadTimeout)
	}
	if got.Seal[0].Address != "unix:///run/strongroom-kms/kms.sock" {
		t.Errorf("seal address = %q", got.Seal[0].Address)
	}
}

func TestRenderVaultRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*VaultParams)
		want   string
	}{
		"empty storage":       {func(p *VaultParams) { p.StoragePath = "" }, "StoragePath: is empty"},
		"relative storage":    {func(p *VaultParams) { p.StoragePath = "raft" }, `StoragePath: "raft" is not an absolute path`},
		"unclean path":        {func(p *VaultParams) { p.PluginDir = "/a/../b" }, `PluginDir: "/a/../b" is not a clean path`},
		"control character":   {func(p *VaultParams) { p.TLSKeyFile = "/a\nb" }, "TLSKeyFile: \"/a\\nb\" holds control"},
		"not UTF-8":           {func(p *VaultParams) { p.TLSKeyFile = "/a\xff" }, "TLSKeyFile"},
		"public listener":     {func(p *VaultParams) { p.TCPAddress = "0.0.0.0:8200" }, "TCPAddress: \"0.0.0.0:8200\" is not on loopback"},
		"listener by name":    {func(p *VaultParams) { p.TCPAddress = "localhost:8200" }, "TCPAddress"},
		"port zero":           {func(p *VaultParams) { p.TCPAddress = "127.0.0.1:0" }, "TCPAddress"},
		"plain api addr":      {func(p *VaultParams) { p.APIAddr = "http://v" }, "APIAddr"},
		"address template":    {func(p *VaultParams) { p.APIAddr = "https://{{GetPrivateIP}}" }, "APIAddr"},
		"password in URL":     {func(p *VaultParams) { p.ClusterAddr = "https://a:b@v:8201" }, "ClusterAddr"},
		"long socket":         {func(p *VaultParams) { p.Socket = "/" + strings.Repeat("s", 107) }, "Socket"},
		"no socket user":      {func(p *VaultParams) { p.SocketUser = "" }, "SocketUser: is empty"},
		"node id with space":  {func(p *VaultParams) { p.NodeID = "node 1" }, "NodeID"},
		"default above max":   {func(p *VaultParams) { p.DefaultLeaseTTL = 48 * time.Hour }, "DefaultLeaseTTL"},
		"unknown level":       {func(p *VaultParams) { p.LogLevel = "loud" }, `LogLevel: "loud" is none of`},
		"another product":     {func(p *VaultParams) { p.Product = "consul" }, "Product: "},
		"peer without URL":    {func(p *VaultParams) { p.Peers = []VaultPeer{{}} }, "Peers[0].APIAddr: is empty"},
		"peer's half of pair": {func(p *VaultParams) { p.Peers = []VaultPeer{{APIAddr: "https://v", ClientCertFile: "/c"}} }, "Peers[0].ClientCertFile"},
	} {
		t.Run(name, func(t *testing.T) {
			p := vaultParams()
			c.change(&p)
			b, err := RenderVault(p)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want one with %q", err, c.want)
			}
			if b != nil {
				t.Error("gave a configuration beside the error")
			}
		})
	}
}

func TestRenderVaultReportsAllFaults(t *testing.T) {
	_, err := RenderVault(VaultParams{})
	if err == nil {
		t.Fatal("no error for empty parameters")
	}
	for _, f := range []string{"StoragePath", "PluginDir", "SealSocket", "TLSCertFile", "TLSKeyFile", "TLSClientCAFile", "Socket", "SocketUser", "SocketGroup", "APIAddr", "ClusterAddr"} {
		if !strings.Contains(err.Error(), f+": ") {
			t.Errorf("%s is not reported in: %v", f, err)
		}
	}
}

func FuzzHCLValue(f *testing.F) {
	for _, s := range []string{"", "a", `"`, `\`, "${", "}${\"", "$${x}", "\n", "ü", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := hclValue(s)
		if err != nil {
			return
		}
		var got struct {
			A string `hcl:"a"`
			B string `hcl:"b"`
		}
		if err := hcl.Decode(&got, "a = "+q+"\nb = \"x\"\n"); err != nil {
			// NUL, BOM and private-use characters are refused by HCL's
			// scanner; checkPath and checkName keep them out.
			if strings.ContainsAny(s, "\x00\ufeff\ue123") {
				return
			}
			t.Fatalf("%q as %s: %v", s, q, err)
		}
		if got.A != s || got.B != "x" {
			t.Fatalf("%q came back as %q, %q", s, got.A, got.B)
		}
	})
}
