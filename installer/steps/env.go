// Package steps are the parts of the installation, one file each, in the order
// of All. Each looks at the machine, says what differs, and can change it.
//
// They hold no state of their own between runs: a step that was killed anywhere
// finds out from the machine where it was.
package steps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/payload"
)

// Env is what the steps are told.
type Env struct {
	Host    *host.Host
	Config  config.Appliance
	Payload payload.Payload
	Network Network
	Journal *engine.Journal
	Rand    io.Reader
	// Version is the installer's, and so the plugin's.
	Version string
	// VaultBinary is a server to install in place of a downloaded one, and VaultSHA256
	// its sum; empty: anything that is of the configured product.
	VaultBinary, VaultSHA256 string
	// Given are files of the operator's, by the credential that is made of each;
	// see SealSecrets.
	Given map[string]string
	// AdminToken is an administrator's, for changes in a Vault that is there;
	// may be empty.
	AdminToken string
	// Recipients get the escrow.
	Recipients []age.Recipient
	// Remake has credentials made anew that can never be opened again.
	Remake bool
	// Session is the SSH session that this runs in, as SSH_CONNECTION tells it
	// (ssh(1)); empty for none.
	Session string
	// SkipDNS leaves out the question whether the domain points here.
	SkipDNS bool
	// Confirm returns nil when new firewall rules have proved not to lock the
	// operator out, and an error at the latest after within.
	Confirm func(ctx context.Context, w config.Firewall, within time.Duration) error
	// Upgrading: programs in use may be replaced, since they are kept and were tried.
	Upgrading bool
	// SetAside is the domain where the operator has said so that Vault's storage, which
	// nobody can open any more, is to be set aside.
	SetAside string
	// Notes are what the operator should read at the end.
	Notes []string
	// Reachable, if set, says beforehand what Confirm would find without a person.
	Reachable func(w config.Firewall) error
	// Probe, if set, asks a place for backups whether it takes us, with what read gives for
	// its credentials.
	Probe func(ctx context.Context, to config.BackupTo, read func(name string) ([]byte, error)) error
	// Vault connects to the machine's own Vault.
	Vault func(token string) (*vaultapi.Client, error)

	// releaseKey is what Vault's releases are signed with; empty: HashiCorp's.
	releaseKey string
	// downloadDir is where Vault is unpacked; empty: the constant of that name.
	downloadDir string
	// way is how this machine seals; empty until it was asked.
	way credential.Way
	// wanted are the files of the steps that have been checked, for the manifest.
	wanted map[string]ManifestFile
	// known are the sums of large files.
	known map[string]string
}

// Network is what preflight asks of the network.
type Network interface {
	// Lookup gives a name's addresses, from the resolver.
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
	// CAA is nil unless the CAA records of a name keep each of these identities
	// from issuing for it: then it is dnscheck.ErrCAA.
	CAA(ctx context.Context, name string, identities []string) error
	// Local gives this machine's addresses.
	Local() ([]netip.Addr, error)
	// Taken says whether somebody listens on the port; network is tcp or udp.
	Taken(network string, port int) (bool, error)
}

// All are the steps in order.
func All(e *Env) []engine.Step {
	return []engine.Step{
		preflight{e},
		accounts{e},
		folders{e},
		places{e},
		system{e},
		ssh{e},
		programs{e},
		pages{e},
		vaultProgram{e},
		sealing{e},
		masterKey{e},
		jobKeys{e},
		linkCertificates{e},
		settings{e},
		unitFiles{e},
		services{e},
		firewall{e},
		initialise{e},
		vaultSetup{e},
		jobs{e},
		rootToken{e},
		timers{e},
		leftovers{e},
		manifest{e},
		firstSnapshot{e},
		firstDrill{e},
	}
}

// operator makes an error that a person must act on.
func operator(hint, format string, args ...any) error {
	return &fault.Error{Code: fault.Operator, Err: fmt.Errorf(format, args...), Hint: hint}
}

// nobody is the owner while the account has yet to be made, as plan finds it.
const nobody = -1

// root gives attributes with root as the owner.
func root(mode fs.FileMode) host.Attr { return host.Attr{Mode: mode} }

// group gives attributes with root as the owner and name's own group.
func (e *Env) group(mode fs.FileMode, name string) (host.Attr, error) {
	g, err := e.Host.Group(name)
	if errors.Is(err, host.ErrNotFound) {
		return host.Attr{Mode: mode, GID: nobody}, nil
	}
	return host.Attr{Mode: mode, GID: g.GID}, err
}

func describe(a host.Attr) string {
	if a.GID == nobody {
		return fmt.Sprintf("mode %04o", a.Mode)
	}
	return fmt.Sprintf("mode %04o, owner %d:%d", a.Mode, a.UID, a.GID)
}

// dir wants a folder with exactly these attributes.
func (e *Env) dir(path string, a host.Attr) (engine.Diff, error) {
	info, err := e.Host.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return nil, err
	case !missing && info.Type != fs.ModeDir:
		return nil, operator("move it away, then run the same command again", "%q is there and is not a folder", path)
	case !missing && info.Attr == a:
		return nil, nil
	}
	c := engine.Change{What: path, To: "folder, " + describe(a)}
	if !missing {
		c.From = "folder, " + describe(info.Attr)
	}
	c.Apply = func(context.Context) error { return e.Host.Mkdir(path, a) }
	return engine.Diff{c}, nil
}

// source is a file's wanted content.
type source struct {
	size int64
	sum  string // SHA-256, hex
	open func() (io.ReadCloser, error)
}

func bytesSource(b []byte) source {
	sum := sha256.Sum256(b)
	return source{
		size: int64(len(b)),
		sum:  hex.EncodeToString(sum[:]),
		open: func() (io.ReadCloser, error) { return io.NopCloser(newReader(b)), nil },
	}
}

// file wants a file with exactly this content and these attributes.
func (e *Env) file(path string, s source, a host.Attr) (engine.Diff, error) {
	e.want(path, s.sum, a)
	c := engine.Change{What: path, To: fmt.Sprintf("%d bytes, sha256 %.12s, %s", s.size, s.sum, describe(a))}
	c.Apply = func(context.Context) error {
		r, err := s.open()
		if err != nil {
			return err
		}
		defer r.Close()
		return e.Host.Write(path, r, a)
	}
	info, err := e.Host.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return engine.Diff{c}, nil
	case err != nil:
		return nil, err
	case info.Type == fs.ModeDir:
		return nil, operator("move it away, then run the same command again", "%q is a folder where a file belongs", path)
	case info.Type != 0:
		c.From = "not a regular file"
		return engine.Diff{c}, nil
	}
	sum := ""
	if info.Size == s.size {
		if sum, err = e.Host.Sum(path); err != nil {
			return nil, err
		}
	}
	if sum != s.sum {
		c.From = fmt.Sprintf("%d bytes of other content", info.Size)
		return engine.Diff{c}, nil
	}
	if info.Attr != a {
		c.From, c.To = describe(info.Attr), describe(a)
		c.Apply = func(context.Context) error { return e.Host.SetAttr(path, a) }
		return engine.Diff{c}, nil
	}
	return nil, nil
}

// exists says whether there is anything at path.
func (e *Env) exists(path string) (bool, error) {
	_, err := e.Host.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// collect joins what several wishes found.
type collect struct {
	diff engine.Diff
	err  error
}

func (c *collect) add(d engine.Diff, err error) {
	c.diff = append(c.diff, d...)
	c.err = errors.Join(c.err, err)
}

func (c *collect) done() (engine.Diff, error) {
	if c.err != nil {
		return nil, c.err
	}
	return c.diff, nil
}
