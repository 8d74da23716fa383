package steps

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// vaultProgram installs Vault itself: a file that the operator gives, or the
// configured release from HashiCorp, whose checksums and their PGP signature
// hc-install verifies.
type vaultProgram struct{ *Env }

func (vaultProgram) ID() string    { return "vault-program" }
func (vaultProgram) Title() string { return "Vault's program" }

func (s vaultProgram) Check(ctx context.Context) (engine.Diff, error) {
	if s.VaultBinary != "" {
		return s.given(ctx)
	}
	want := s.Config.Vault.Server()
	there, err := s.exists(machine.VaultProgram)
	switch {
	case err != nil:
		return nil, err
	case there:
		got, err := ServerOf(ctx, s.Host, want.Product, machine.VaultProgram)
		if err != nil || got == want {
			return nil, err
		}
		// Another version is an upgrade, which wants its rehearsal.
		return nil, operator("set vault.version to "+got.Version+", or upgrade as docs/upgrade.md says",
			"%s is installed and %s is configured", got, want.Version)
	case want.Product == config.ProductOpenBao:
		return nil, operator(noOpenBaoHint, "%w", errNoOpenBao)
	}
	return engine.Diff{{What: machine.VaultProgram, To: want.String() + " from HashiCorp, signature verified", Slow: true, Apply: s.download}}, nil
}

// given is for a server that the operator brings.
func (s vaultProgram) given(ctx context.Context) (engine.Diff, error) {
	v, err := GivenServer(ctx, s.Host, s.Config.Vault, s.VaultBinary, s.VaultSHA256)
	if err != nil {
		return nil, err
	}
	old, err := v.Old()
	if err != nil {
		return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("%q: %w", s.VaultBinary, err)}
	}
	if old && !s.Config.Vault.AllowOld {
		return nil, operator("give a newer one, or insist with --allow-old-vault",
			"%q is %s, below %s, the oldest version without known faults", s.VaultBinary, v, v.Product.Floor())
	}
	src, err := hostSource(s.Host, s.VaultBinary)
	if err != nil {
		return nil, err
	}
	if s.VaultSHA256 != "" && !strings.EqualFold(src.sum, s.VaultSHA256) {
		return nil, fmt.Errorf("%q has changed since it was looked at", s.VaultBinary)
	}
	if err := s.replaceable(src); err != nil {
		return nil, err
	}
	return s.file(machine.VaultProgram, src, root(0o755))
}

// replaceable refuses to put another program in the place of one that Vault is in use
// with: only an upgrade tries it first, and has a way back. What the machine was
// installed with may be put back.
func (s vaultProgram) replaceable(src source) error {
	inUse, err := s.VaultInUse()
	if err != nil || !inUse || s.Upgrading {
		return err
	}
	now, err := s.sum(machine.VaultProgram)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now == src.sum {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := ReadManifest(s.Host)
	if err != nil {
		return err
	}
	if m != nil && slices.ContainsFunc(m.Files, func(f ManifestFile) bool { return f.Path == machine.VaultProgram && f.SHA256 == src.sum }) {
		return nil
	}
	return operator("upgrade as docs/upgrade.md says: strongroom-installer upgrade --vault-binary "+s.VaultBinary,
		"%q is another program than the Vault that is in use here, and only an upgrade tries it first; nothing has been changed", s.VaultBinary)
}

// download brings the release and puts it in place in one rename.
func (s vaultProgram) download(ctx context.Context) error {
	file, remove, err := fetchVault(ctx, s.Config.Vault, s.releaseKey, cmp.Or(s.downloadDir, machine.DownloadDir))
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return errors.Join(err, remove())
	}
	err = s.Host.Write(machine.VaultProgram, f, root(0o755))
	return errors.Join(err, f.Close(), remove())
}

// hostSource is a file that lies on the machine already.
func hostSource(h *host.Host, path string) (source, error) {
	f, err := h.Open(path)
	if err != nil {
		return source{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return source{}, fmt.Errorf("read %q: %w", path, err)
	}
	is := hex.EncodeToString(sum.Sum(nil))
	return source{size: n, sum: is, open: func() (io.ReadCloser, error) {
		f, err := h.Open(path)
		if err != nil {
			return nil, err
		}
		return &verified{ReadCloser: f, path: path, want: is, sum: sha256.New()}, nil
	}}, nil
}
