package steps

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// settings writes the configuration files of the daemons, and what the operator
// decided, so that later runs need no flags.
type settings struct{ *Env }

func (settings) ID() string    { return "settings" }
func (settings) Title() string { return "configuration of Vault and front" }

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

func (s settings) Check(context.Context) (engine.Diff, error) {
	vault, err := config.RenderVault(s.vaultParams())
	if err != nil {
		return nil, err
	}
	front, err := config.RenderFront(s.frontParams())
	if err != nil {
		return nil, err
	}
	forVault, err := s.group(0o640, machine.UserVault)
	if err != nil {
		return nil, err
	}
	forFront, err := s.group(0o640, machine.UserFront)
	if err != nil {
		return nil, err
	}
	var c collect
	c.add(s.decided(false))
	// Whose data this machine's will be, before there is any.
	c.add(s.file(machine.ProductFile, bytesSource([]byte(s.Config.Vault.Product.Known()+"\n")), root(0o644)))
	c.add(s.file(machine.NodeFile, bytesSource([]byte(s.Config.Node.ID+"\n")), root(0o644)))
	c.add(s.file(machine.VaultHCL, bytesSource(vault), forVault))
	c.add(s.file(machine.FrontTOML, bytesSource(front), forFront))
	c.add(s.epoch())
	return c.done()
}

// decided wants the configuration to be kept, with each key that differs. The rules of
// the firewall are kept once they have proved not to lock the operator out, and those of
// before until then: a later run without flags goes by what is kept.
func (e *Env) decided(proven bool) (engine.Diff, error) {
	want := e.Config
	b, err := e.Host.ReadFile(machine.ConfigFile)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	was, bad := config.Parse(machine.ConfigFile, b)
	if there && bad == nil && !proven {
		want.Firewall = was.Firewall
	}
	text, err := config.Encode(want)
	if err != nil {
		return nil, err
	}
	diff, err := e.file(machine.ConfigFile, bytesSource(text), root(0o644))
	switch {
	case err != nil || len(diff) == 0:
		return nil, err
	case !there && proven:
		return nil, nil // a plan has told of it
	case !there:
		return diff, nil
	}
	if bad != nil {
		diff[0].Detail = []string{"what was there can't be read as a configuration"}
		return diff, nil
	}
	// Where a plan has told of the others already, only the firewall's are left.
	if proven {
		was, want = config.Appliance{Firewall: was.Firewall}, config.Appliance{Firewall: want.Firewall}
	}
	for _, c := range config.Changes(was, want) {
		diff[0].Detail = append(diff[0].Detail, c.String())
	}
	if proven && len(diff[0].Detail) == 0 {
		return nil, nil
	}
	return diff, nil
}

func (e *Env) vaultParams() config.VaultParams {
	credentials := machine.CredentialsOf(machine.UnitVault) + "/"
	p := config.VaultParams{
		Product:         e.Config.Vault.Product,
		NodeID:          e.Config.Node.ID,
		APIAddr:         "https://" + e.Config.Domain,
		ClusterAddr:     e.Config.Node.ClusterAddr,
		ClusterListen:   e.Config.Node.ClusterListen,
		StoragePath:     machine.RaftDir,
		PluginDir:       machine.PluginDir,
		SealSocket:      machine.KMSSocket,
		TCPAddress:      fmt.Sprintf("127.0.0.1:%d", machine.VaultPort),
		TLSCertFile:     credentials + machine.CredServerCrt,
		TLSKeyFile:      credentials + machine.CredServerKey,
		TLSClientCAFile: credentials + machine.CredCA,
		Socket:          machine.VaultSocket,
		// Its own group, since in its user namespace Vault knows no other; the
		// jobs that may use the socket are members of it.
		SocketUser:      machine.UserVault,
		SocketGroup:     machine.UserVault,
		AuditFiles:      auditFiles(),
		UI:              e.Config.Vault.UI,
		LogLevel:        e.Config.Vault.LogLevel,
		DefaultLeaseTTL: e.Config.Vault.DefaultLeaseTTL,
		MaxLeaseTTL:     e.Config.Vault.MaxLeaseTTL,
	}
	for _, peer := range e.Config.Node.Peers {
		p.Peers = append(p.Peers, config.VaultPeer{APIAddr: peer.APIAddr, CACertFile: peer.CACertFile, TLSServerName: peer.TLSServerName})
	}
	return p
}

func (e *Env) frontParams() config.FrontParams {
	return config.FrontParams{
		Names:        []string{e.Config.Domain},
		Storage:      machine.FrontData,
		TLS:          e.frontTLS(),
		Email:        e.Config.Email,
		UI:           e.Config.Vault.UI,
		Metrics:      machine.FrontMetrics,
		Authority:    machine.AuthoritySocket,
		VaultAddress: fmt.Sprintf("127.0.0.1:%d", machine.VaultPort),
		CAFile:       frontCredential(machine.CredCA),
		CertFile:     frontCredential(machine.CredFrontCrt),
		KeyFile:      frontCredential(machine.CredFrontKey),
	}
}

// epoch wants the file that tells the engine which installation it belongs to.
// One that is there is kept: only restore and upgrade change it.
func (s settings) epoch() (engine.Diff, error) {
	attr, err := s.group(0o640, machine.UserVault)
	if err != nil {
		return nil, err
	}
	b, err := s.Host.ReadFile(machine.EpochFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if _, err := restore.ParseEpoch(b); err != nil {
			return nil, operator("restore "+machine.EpochFile+" from a backup; without one remove it, and run `vault write -f apikeys/reconcile` afterwards",
				"%q is not an epoch file: %w", machine.EpochFile, err)
		}
		diff, err := s.file(machine.EpochFile, bytesSource(b), attr)
		// A restore changes it.
		s.want(machine.EpochFile, "", attr)
		return diff, err
	}
	return engine.Diff{{What: machine.EpochFile, To: "a new installation id, " + describe(attr), Apply: func(context.Context) error {
		id := make([]byte, 8)
		if _, err := io.ReadFull(s.Rand, id); err != nil {
			return fmt.Errorf("installation id: %w", err)
		}
		b, err := restore.Epoch{Installation: hex.EncodeToString(id), Epoch: 1}.Encode()
		if err != nil {
			return err
		}
		return s.Host.Write(machine.EpochFile, newReader(b), attr)
	}}}, nil
}
