package steps

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

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
		return s.checkFile(ctx)
	}
	want := s.Config.Vault.Version
	there, err := s.exists(machine.VaultProgram)
	if err != nil {
		return nil, err
	}
	c := engine.Change{What: machine.VaultProgram, To: "Vault " + want + " from HashiCorp, signature verified", Slow: true, Apply: s.download}
	if there {
		got, err := VaultVersion(ctx, s.Host, machine.VaultProgram)
		if err != nil {
			return nil, err
		}
		if got == want {
			return nil, nil
		}
		// Another version is an upgrade, which wants its rehearsal.
		return nil, operator("set vault.version to "+got+", or upgrade as docs/upgrade.md says",
			"Vault %s is installed and %s is configured", got, want)
	}
	return engine.Diff{c}, nil
}

// checkFile is for a Vault that the operator brings.
func (s vaultProgram) checkFile(ctx context.Context) (engine.Diff, error) {
	v, err := VaultVersion(ctx, s.Host, s.VaultBinary)
	if err != nil {
		return nil, &fault.Error{Code: fault.Usage, Err: err, Hint: "give --vault-binary a Vault for this machine"}
	}
	old, err := config.Server{Product: config.ProductVault, Version: v}.Old()
	if err != nil {
		return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("%q: %w", s.VaultBinary, err)}
	}
	if old && !s.Config.Vault.AllowOld {
		return nil, operator("give a newer one, or insist with --allow-old-vault",
			"%q is Vault %s, below %s, the oldest version without known faults", s.VaultBinary, v, config.VaultFloor)
	}
	src, err := hostSource(s.Host, s.VaultBinary)
	if err != nil {
		return nil, err
	}
	return s.file(machine.VaultProgram, src, root(0o755))
}

// VaultVersion asks the program itself. Another server than Vault is refused: its
// storage is another's, too.
func VaultVersion(ctx context.Context, r host.Runner, program string) (string, error) {
	out, err := r.Run(ctx, host.Command{Args: []string{program, "version"}})
	if err != nil {
		return "", fmt.Errorf("%q doesn't tell its version: %w", program, err)
	}
	s, err := config.ParseServer(string(out.Stdout))
	if err != nil {
		return "", fmt.Errorf("%q is no Vault: %w", program, err)
	}
	if s.Product != config.ProductVault {
		return "", fmt.Errorf("%q is %s, and no Vault: neither reads the other's storage", program, s)
	}
	return s.Version, nil
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
	return source{size: n, sum: hex.EncodeToString(sum.Sum(nil)), open: func() (io.ReadCloser, error) { return h.Open(path) }}, nil
}
