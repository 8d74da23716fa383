// Package scratch runs a Vault of one's own in a folder: its KMS, Vault itself
// with the plugin at hand, and the front. The demo uses it, and whatever else
// needs a Vault for a while (a drill, a rehearsal, the tests).
//
// It is not the installed appliance, which systemd runs, but it is made of the
// same programs and the same configuration.
package scratch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/appliance/serve/localtls"
	"strongroom.example/config"
)

// Programs are the paths of the binaries.
type Programs struct {
	Strongroom string // this program: `kms` and `front` are run from it
	Vault      string
	Plugin     string
}

// Options of a scratch Vault.
type Options struct {
	Dir      string // absolute, there, empty, ours
	Programs Programs
	Keyset   *kms.Keyset
	// PluginDir, where not empty, is Vault's plugin directory in place of one of
	// its own with Programs.Plugin in it.
	PluginDir string
	// PluginFiles, where not empty, are copied into Vault's own plugin directory
	// in place of Programs.Plugin: name there to path of the file.
	PluginFiles map[string]string
	// FrontAddress is host:port on loopback, where the front will listen.
	FrontAddress string
	// Wrap goes before Vault's command line: what cuts it off from the network
	// (isolate.Command). Its last element stands for Vault's program.
	Wrap []string
	// NodeID names this node in raft; empty: "scratch", which is alone. Nodes of
	// one cluster have names of their own, and the Epoch of the first.
	NodeID string
	// Epoch is the content of the epoch file, where not empty, in place of a new
	// installation's.
	Epoch []byte
	// UI has Vault and the front serve Vault's web interface.
	UI bool
}

// Vault is a running scratch Vault.
type Vault struct {
	// Server is what Programs.Vault is.
	Server  config.Server
	Layout  Layout
	Process *proc.Child
	KMS     *proc.Child
	// TCPAddress is Vault's own listener, which only the front may use.
	TCPAddress string

	opts Options
	set  *proc.Set
}

// Start lays out the folder and starts KMS and Vault, which it leaves
// answering: uninitialised in a new folder.
func Start(ctx context.Context, set *proc.Set, o Options) (*Vault, error) {
	v := &Vault{Layout: Layout{o.Dir}, opts: o, set: set}
	var err error
	if v.Server, err = ServerOf(ctx, o.Programs.Vault); err != nil {
		return nil, err
	}
	if err := v.Layout.make(); err != nil {
		return nil, err
	}
	if err := v.writeFiles(); err != nil {
		return nil, err
	}
	if err := v.startKMS(ctx); err != nil {
		return nil, err
	}
	if err := v.startVault(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

// Local is a client over the unix socket, without a token.
func (v *Vault) Local() (*vaultapi.Client, error) {
	return vaultapi.New(vaultapi.Options{Address: "unix://" + v.Layout.VaultSocket()})
}

// ready waits for cond of a fresh client, or the end of the process.
func (v *Vault) ready(ctx context.Context, cond func(*vaultapi.Client, context.Context) error) error {
	c, err := v.Local()
	if err != nil {
		return err
	}
	return v.Process.WaitUp(ctx, func(ctx context.Context) error { return cond(c, ctx) })
}

// WaitActive returns once Vault is unsealed and active.
func (v *Vault) WaitActive(ctx context.Context) error {
	return v.ready(ctx, (*vaultapi.Client).WaitActive)
}

func (v *Vault) writeFiles() error {
	bundle, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		return err
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	v.TCPAddress = "127.0.0.1:" + ports[0]
	l := v.Layout
	hcl, err := config.RenderVault(config.VaultParams{
		Product:         v.Server.Product,
		UI:              v.opts.UI,
		NodeID:          cmp.Or(v.opts.NodeID, "scratch"),
		APIAddr:         "https://" + v.opts.FrontAddress,
		ClusterAddr:     "https://127.0.0.1:" + ports[1],
		ClusterListen:   "127.0.0.1:" + ports[1],
		StoragePath:     l.Raft(),
		PluginDir:       cmp.Or(v.opts.PluginDir, l.Plugins()),
		SealSocket:      l.KMSSocket(),
		TCPAddress:      v.TCPAddress,
		TLSCertFile:     l.tls("server.crt"),
		TLSKeyFile:      l.tls("server.key"),
		TLSClientCAFile: l.LinkCA(),
		Socket:          l.VaultSocket(),
		SocketUser:      strconv.Itoa(os.Getuid()),
		SocketGroup:     strconv.Itoa(os.Getgid()),
	})
	if err != nil {
		return err
	}
	epoch := v.opts.Epoch
	if len(epoch) == 0 {
		if epoch, err = newEpoch(); err != nil {
			return err
		}
	}
	if err := v.copyPlugins(); err != nil {
		return err
	}
	clientCrt, clientKey := l.LinkClient()
	for _, f := range []struct {
		path string
		data []byte
		perm os.FileMode
	}{
		{l.LinkCA(), bundle.CA, 0o600},
		{l.tls("server.crt"), bundle.ServerCrt, 0o600},
		{l.tls("server.key"), bundle.ServerKey, 0o600},
		{clientCrt, bundle.ClientCrt, 0o600},
		{clientKey, bundle.ClientKey, 0o600},
		{l.EpochFile(), epoch, 0o600},
		{l.VaultConfig(), hcl, 0o600},
	} {
		if err := atomicfile.Write(f.path, f.data, f.perm); err != nil {
			return err
		}
	}
	return nil
}

// newEpoch is what keeps the engine of one installation from acting on the
// keys of another: a new id for each new Vault.
func newEpoch() ([]byte, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return nil, fmt.Errorf("make installation id: %w", err)
	}
	return json.Marshal(map[string]any{"installation_id": hex.EncodeToString(id), "epoch": 1})
}

func (v *Vault) startKMS(ctx context.Context) error {
	key, err := v.opts.Keyset.Marshal()
	if err != nil {
		return fmt.Errorf("hand the master key to the KMS: %w", err)
	}
	defer clear(key)
	v.KMS, err = v.set.Start(proc.Spec{
		Name: "kms",
		Path: v.opts.Programs.Strongroom,
		Args: []string{"kms", "--socket", v.Layout.KMSSocket(), "--key-file", "-"},
		// Caddy, in the same program, complains where there is no home.
		Env: []string{"XDG_CONFIG_HOME=" + v.Layout.Run()},
		// A pipe: the key is on no disk and in no argument.
		Stdin:   bytes.NewReader(key),
		LogFile: v.Layout.Log("kms"),
	})
	if err != nil {
		return err
	}
	return v.KMS.WaitUp(ctx, func(ctx context.Context) error { return waitSocket(ctx, v.Layout.KMSSocket()) })
}

func (v *Vault) startVault(ctx context.Context) error {
	l := v.Layout
	var err error
	command := []string{v.opts.Programs.Vault}
	if n := len(v.opts.Wrap); n > 0 {
		command = append(slices.Clone(v.opts.Wrap[:n-1]), v.opts.Programs.Vault)
	}
	v.Process, err = v.set.Start(proc.Spec{
		Name: "vault",
		Path: command[0],
		Args: append(slices.Clone(command[1:]), "server", "-config="+l.VaultConfig()),
		Env: []string{
			"PATH=/usr/bin:/bin",
			"TMPDIR=" + l.Run(),
			// The plugin's sockets, so that even a killed Vault leaves them here.
			"VAULT_PLUGIN_TMPDIR=" + l.Run(),
			"STRONGROOM_EPOCH_FILE=" + l.EpochFile(),
		},
		LogFile: l.Log("vault"),
		Restart: true,
	})
	if err != nil {
		return err
	}
	return v.ready(ctx, (*vaultapi.Client).WaitListening)
}

// waitSocket returns once something accepts on the unix socket at path.
func waitSocket(ctx context.Context, path string) error {
	var d net.Dialer
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %q: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// The ports that freePorts gives lie below those that Linux gives to whoever asks
// for any (32768 to 60999, ip-sysctl(7): ip_local_port_range). So nobody gets one
// by chance between the look at it and its use.
const firstPort, lastPort = 20000, 31999

// freePorts are TCP ports on 127.0.0.1 that nobody listened on just now. All
// are held at once, so that they differ.
func freePorts(n int) ([]string, error) {
	var ports []string
	var held []net.Listener
	var errs []error
	for tries := 0; len(ports) < n; tries++ {
		k, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort+1))
		if err != nil {
			errs = append(errs, err)
			break
		}
		port := strconv.FormatInt(firstPort+k.Int64(), 10)
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if errors.Is(err, syscall.EADDRINUSE) && tries < 1000 {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("find a free port: %w", err))
			break
		}
		held = append(held, ln)
		ports = append(ports, port)
	}
	for _, ln := range held {
		errs = append(errs, ln.Close())
	}
	return ports, errors.Join(errs...)
}

// FreeAddress is a 127.0.0.1:PORT that nobody listened on just now.
func FreeAddress() (string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	return "127.0.0.1:" + ports[0], nil
}
