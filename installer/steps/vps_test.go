package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/payload"
)

// vps is a fresh Debian in memory, with the commands that the steps call.
type vps struct {
	*host.Memory
	id  *age.X25519Identity
	nft string // the rules in force
	// creds seals and opens; without a TPM, until told otherwise.
	creds *credtest.Machine
}

func newVPS(t *testing.T) *vps {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	m := host.NewMemory()
	v := &vps{Memory: m, id: id, creds: &credtest.Machine{}}
	for _, d := range []string{"/etc", "/etc/sysctl.d", "/etc/profile.d", "/etc/security", "/etc/security/limits.d", "/etc/systemd", "/etc/systemd/system",
		"/proc", "/proc/sys", "/proc/sys/fs", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/lib", "/var", "/var/lib", "/root"} {
		m.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}, Type: fs.ModeDir}}
	}
	for p, text := range map[string]string{
		"/etc/os-release":            "ID=debian\nVERSION_ID=\"12\"\n",
		"/proc/meminfo":              "MemTotal:        4012345 kB\n",
		"/proc/swaps":                "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n",
		"/proc/sys/fs/suid_dumpable": "2\n",
		"/proc/self":                 "",
		"/etc/fstab":                 "/dev/sda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n# /x none swap\n",
		"/root/vault":                "a Vault",
	} {
		m.Files[p] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o644}}, Data: []byte(text)}
	}
	m.Units["systemd-timesyncd.service"] = &host.Unit{Load: "loaded", Active: "inactive", Enabled: "disabled"}
	m.Commands = map[string]func(host.Command, []byte) (host.Output, error){
		"systemctl": answer("systemd 252 (252.39-1~deb12u2)\n"),
		"vault":     answer("Vault v2.2.2 (abc), built 2026-11-01\n"),
		"swapoff": func(host.Command, []byte) (host.Output, error) {
			m.Files["/proc/swaps"].Data = []byte("Filename\n")
			return host.Output{}, nil
		},
		"sysctl":        v.sysctl,
		"systemd-creds": v.runCreds,
		"nft":           v.nftables,
		"systemd-run":   v.run,
	}
	return v
}

func answer(s string) func(host.Command, []byte) (host.Output, error) {
	return func(host.Command, []byte) (host.Output, error) { return host.Output{Stdout: []byte(s)}, nil }
}

func (v *vps) sysctl(c host.Command, _ []byte) (host.Output, error) {
	key, value, _ := strings.Cut(c.Args[len(c.Args)-1], "=")
	v.Files["/proc/sys/"+strings.ReplaceAll(key, ".", "/")].Data = []byte(value + "\n")
	return host.Output{}, nil
}

// runCreds is systemd-creds of the machine that v.creds tells.
func (v *vps) runCreds(c host.Command, stdin []byte) (host.Output, error) {
	out, err := v.creds.Run(context.Background(), stdin, c.Args[1:]...)
	if err != nil {
		err = &host.ExitError{Command: c.String(), Code: 1, Stderr: err.Error()}
	}
	return host.Output{Stdout: out}, err
}

func (v *vps) nftables(c host.Command, _ []byte) (host.Output, error) {
	switch {
	case c.Args[1] == "delete":
		v.nft = ""
	case c.Args[1] == "-f":
		b, err := v.ReadFile(c.Args[2])
		if err != nil {
			return host.Output{}, err
		}
		v.nft = string(b)
	case c.Args[1] == "list" && v.nft == "":
		return host.Output{}, &host.ExitError{Command: c.String(), Code: 1, Stderr: "Error: No such file or directory"}
	}
	return host.Output{}, nil
}

// run arms a timer.
func (v *vps) run(host.Command, []byte) (host.Output, error) {
	v.Units[machine.UnitFirewallRollback+".timer"] = &host.Unit{Load: "loaded", Active: "active"}
	return host.Output{}, nil
}

// network is one where all is well, until told otherwise.
type network struct {
	inside []netip.Addr // of a network that the machine has besides
	points []netip.Addr
	err    error
	taken  []int
	caa    error
}

func (n network) Lookup(context.Context, string) ([]netip.Addr, error) { return n.points, n.err }
func (n network) CAA(_ context.Context, name string, ids []string) error {
	if n.caa != nil && name == "vault.example.com" && slices.Contains(ids, "letsencrypt.org") {
		return n.caa
	}
	return nil
}
func (n network) Local() ([]netip.Addr, error) {
	return append([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.5")}, n.inside...), nil
}
func (n network) Taken(_ string, port int) (bool, error) { return slices.Contains(n.taken, port), nil }

func (v *vps) env() *Env {
	cfg := config.Default()
	cfg.Domain = "vault.example.com"
	cfg.TLS.Mode = config.TLSInternal
	return &Env{
		Host: v.Host(), Config: cfg, Network: network{}, Rand: rand.NewChaCha8([32]byte{1}), Version: "1.2.3",
		Payload: payload.New(fstest.MapFS{
			"bin/strongroom":                   {Data: []byte("the appliance")},
			"bin/vault-plugin-secrets-apikeys": {Data: []byte("the plugin")},
		}),
		VaultBinary: "/root/vault", Recipients: []age.Recipient{v.id.Recipient()},
		Confirm: func(context.Context, config.Firewall, time.Duration) error { return nil },
		Vault:   func(string) (*vaultapi.Client, error) { return nil, errors.New("no Vault here") },
	}
}

func (v *vps) engine(e *Env, out *bytes.Buffer) *engine.Engine {
	return &engine.Engine{Steps: machineSteps(e), Out: out, Now: e.Host.Now}
}

// state is what must be the same however the way there was: contents that are
// made at random, and times, are left out.
func (v *vps) state() map[string]string {
	random := []string{machine.TLSDir, machine.CredentialDir, machine.EscrowDir, machine.EpochFile, machine.DrillKeyPub, machine.DrillSigningPub, machine.KeyringFile, machine.ManifestFile, machine.StartedFile}
	s := map[string]string{"nft": v.nft}
	for p, n := range v.Files {
		if strings.HasPrefix(p, machine.EscrowDir+"/check-") {
			continue // named after what is sealed; those of a killed run stay
		}
		content := string(n.Data)
		if slices.ContainsFunc(random, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") }) {
			content = "random"
		}
		s[p] = fmt.Sprintf("%s %s %s %q", n.Attr, n.Type, n.Target, content)
	}
	for name, u := range v.Units {
		if !strings.HasPrefix(name, machine.UnitFirewallRollback) {
			s["unit "+name] = u.Load + " " + u.Active + " " + u.Enabled
		}
	}
	for name, u := range v.Users {
		s["user "+name] = fmt.Sprintf("%+v", u)
	}
	return s
}

func (v *vps) openEscrow(t *testing.T, p string) []byte {
	t.Helper()
	n, ok := v.Files[p]
	if !ok {
		t.Fatalf("%s is not there", p)
	}
	if ext := path.Ext(p); ext != ".age" {
		t.Fatalf("%s: extension %q", p, ext)
	}
	return openAge(t, n.Data, v.id)
}
