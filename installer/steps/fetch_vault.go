package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"

	"strongroom/config"
	"strongroom/installer/engine"
)

// FetchVault downloads the configured release from HashiCorp, or its mirror,
// into a folder of its own; hc-install verifies its checksum and the checksums'
// PGP signature. remove removes the folder.
func FetchVault(ctx context.Context, want config.Vault) (file string, remove func() error, err error) {
	return fetchVault(ctx, want, "")
}

// fetchVault is FetchVault for releases that another armored OpenPGP key has
// signed than HashiCorp's.
func fetchVault(ctx context.Context, want config.Vault, key string) (file string, remove func() error, err error) {
	v, err := version.NewVersion(want.Version)
	if err != nil {
		return "", nil, fmt.Errorf("vault.version: %w", err)
	}
	dir, err := os.MkdirTemp("", "strongroom-vault-")
	if err != nil {
		return "", nil, fmt.Errorf("download Vault: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	ev := &releases.ExactVersion{Product: product.Vault, Version: v, InstallDir: dir, ApiBaseURL: want.Mirror, ArmoredPublicKey: key}
	if file, err = ev.Install(ctx); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			// hc-install 0.10 loses its own error about a checksum on the way
			// out, and then misses the program that it has not unpacked.
			err = errors.New("the archive was refused: its checksum does not match the signed one, or it holds no Vault")
		}
		err = &engine.Error{Code: engine.ExitFailed, Err: fmt.Errorf("download Vault %s: %w", v, err),
			Hint: "give a downloaded one with --vault-binary FILE"}
		return "", nil, errors.Join(err, remove())
	}
	return file, remove, nil
}
