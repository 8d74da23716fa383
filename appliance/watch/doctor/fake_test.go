package doctor

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// box is a machine, its front and its Vault, all in memory.
type box struct {
	now      time.Time
	files    map[string]*node
	commands map[string]func(args []string) (string, error) // by their first words
	units    map[string]map[string]string
	hellos   map[uint16]tls.ConnectionState // by the highest version offered
	answers  map[string]Answer
	health   evidence.Health
	keys     evidence.Keys
	vault    map[string]map[string]any
	lists    map[string][]string
	tokens   map[string]map[string]any
	// ran are the commands that fixes gave.
	ran []string
}

type node struct {
	Info
	data string
	err  error
}

var (
	_ Machine = (*box)(nil)
	_ Front   = (*box)(nil)
	_ Vault   = (*box)(nil)
)

func (b *box) Now() time.Time   { return b.now }
func (b *box) Hostname() string { return "vps" }
func (b *box) Self() int        { return 4000 }

func (b *box) node(p string) (*node, error) {
	n, ok := b.files[p]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return n, n.err
}

func (b *box) ReadFile(p string) ([]byte, error) {
	n, err := b.node(p)
	if err != nil {
		return nil, err
	}
	return []byte(n.data), nil
}

func (b *box) Stat(p string) (Info, error) {
	n, err := b.node(p)
	if err != nil {
		return Info{}, err
	}
	return n.Info, nil
}

func (b *box) ReadDir(p string) ([]string, error) {
	n, err := b.node(p)
	if err != nil {
		return nil, err
	}
	if n.Type != fs.ModeDir {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrInvalid}
	}
	var names []string
	for f := range b.files {
		if path.Dir(f) == p && f != p {
			names = append(names, path.Base(f))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (b *box) Sum(p string) (string, error) {
	data, err := b.ReadFile(p)
	if err != nil {
		return "", err
	}
	return sum(string(data)), nil
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func (b *box) Run(_ context.Context, args ...string) ([]byte, error) {
	line := strings.Join(args, " ")
	if strings.HasPrefix(line, "systemctl show") {
		u, ok := b.units[args[len(args)-1]]
		if !ok {
			return []byte("LoadState=not-found\nUnitFileState=\nActiveState=inactive\n"), nil
		}
		var out strings.Builder
		// As systemctl does, what is asked for, empty where there is none.
		for _, a := range args {
			if k, ok := strings.CutPrefix(a, "--property="); ok {
				fmt.Fprintf(&out, "%s=%s\n", k, u[k])
			}
		}
		return []byte(out.String()), nil
	}
	for _, prefix := range slices.Backward(slices.Sorted(maps.Keys(b.commands))) {
		if strings.HasPrefix(line, prefix) {
			b.ran = append(b.ran, line)
			out, err := b.commands[prefix](args)
			return []byte(out), err
		}
	}
	return nil, fmt.Errorf("program %q: %w", args[0], fs.ErrNotExist)
}

func (b *box) Stream(ctx context.Context, to io.Writer, args ...string) error {
	out, err := b.Run(ctx, args...)
	if _, werr := to.Write(out); werr != nil {
		return werr
	}
	return err
}

func (b *box) SetMode(p string, mode fs.FileMode) error {
	n, err := b.node(p)
	if err != nil {
		return err
	}
	n.Mode = mode
	return nil
}

func (b *box) SetOwner(p string, uid, gid int) error {
	n, err := b.node(p)
	if err != nil {
		return err
	}
	n.UID, n.GID = uid, gid
	return nil
}

func (b *box) Replace(p string, data []byte) error {
	n, err := b.node(p)
	if err != nil {
		return err
	}
	n.data = string(data)
	return nil
}

func (b *box) Hello(_ context.Context, _ string, _, highest uint16) (tls.ConnectionState, error) {
	s, ok := b.hellos[highest]
	switch {
	case b.hellos == nil:
		return s, errors.New("connection refused")
	case !ok:
		return s, errVersions
	}
	return s, nil
}

func (b *box) Get(_ context.Context, _, p string) (Answer, error) {
	if a, ok := b.answers[p]; ok {
		return a, nil
	}
	return Answer{Status: http.StatusForbidden, Body: `{"errors":["` + config.RefusedSystem + `"]}`}, nil
}

func (b *box) Health(context.Context) (evidence.Health, error)           { return b.health, nil }
func (b *box) Keys(context.Context, string) (evidence.Keys, error)       { return b.keys, nil }
func (b *box) List(_ context.Context, p string) ([]string, error)        { return b.lists[p], nil }
func (b *box) Token(_ context.Context, a string) (map[string]any, error) { return b.tokens[a], nil }
func (b *box) Read(_ context.Context, p string, _ map[string][]string) (map[string]any, error) {
	return b.vault[p], nil
}

func (b *box) file(p string, mode fs.FileMode, uid, gid int, data string) {
	b.files[p] = &node{Info: Info{Mode: mode, UID: uid, GID: gid, Size: int64(len(data))}, data: data}
}

func (b *box) dir(p string, mode fs.FileMode, uid, gid int) {
	b.files[p] = &node{Info: Info{Mode: mode, Type: fs.ModeDir, UID: uid, GID: gid}}
}

// The accounts of the box.
const (
	vaultID = 996
	frontID = 995
)

const socketHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// tableLine is one of /proc/net.
func tableLine(addr, state string, uid int) string {
	return fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000 %5d        0 1 1 0 100 0 0 10 0\n", addr, state, uid)
}

// tcp6 sockets on any address.
func any6(port int, state string, uid int) string {
	return tableLine(fmt.Sprintf("00000000000000000000000000000000:%04X", port), state, uid)
}

func values[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // as Vault's client does
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// firewallFile is what the installer writes for loadedTable.
func firewallFile(t *testing.T) string {
	t.Helper()
	b, err := config.RenderFirewall(config.FirewallParams{
		SSHPort: 22, SSHFrom: []string{"0.0.0.0/0", "::/0"}, VaultPort: 8200, ClusterPort: 8201, Peers: []string{"10.0.0.2", "fd00::2"},
		VaultUID: vaultID, FrontUID: frontID, VaultOut: []int{443, 3306, 5432}, FrontOut: []int{80, 443},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// loadedTable is what nft 1.0.6 prints when firewallFile is in force.
func loadedTable(t *testing.T) string {
	t.Helper()
	return loadedBy(t, "1.0.6")
}

// loadedBy is what a version of nft prints then.
func loadedBy(t *testing.T, version string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "ruleset-"+version+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// firstIn puts an expression before all others of a chain.
func firstIn(t *testing.T, chain, expr string) string {
	t.Helper()
	table := loadedTable(t)
	mark := fmt.Sprintf(`{"rule":{"family":"inet","table":"strongroom","chain":%q,`, chain)
	if !strings.Contains(table, mark) {
		t.Fatalf("no rule in the chain %s", chain)
	}
	return strings.Replace(table, mark, mark+`"expr":[`+expr+`]}},`+mark, 1)
}

const sshdSettings = "permitrootlogin without-password\npubkeyauthentication yes\npasswordauthentication no\nkbdinteractiveauthentication no\npermitemptypasswords no\n"

// vaultConfig is what the installer writes.
func vaultConfig(t *testing.T) string {
	t.Helper()
	b, err := config.RenderVault(config.VaultParams{
		APIAddr: "https://vault.example.com", ClusterAddr: "https://127.0.0.1:8201", StoragePath: machine.RaftDir, PluginDir: machine.PluginDir,
		SealSocket: "/run/strongroom-kms/kms.sock", TLSCertFile: "/c/server.crt", TLSKeyFile: "/c/server.key", TLSClientCAFile: "/c/ca.crt",
		Socket: "/run/vault/vault.sock", SocketUser: machine.UserVault, SocketGroup: machine.UserVault,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// says is a command that prints something.
func says(text string) func([]string) (string, error) {
	return func([]string) (string, error) { return text, nil }
}
