package steps

import (
	"context"
	"errors"
	"fmt"
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
	v, err := version.NewVersion(want.Version)
	if err != nil {
		return "", nil, fmt.Errorf("vault.version: %w", err)
	}
	dir, err := os.MkdirTemp("", "strongroom-vault-")
	if err != nil {
		return "", nil, fmt.Errorf("download Vault: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	ev := &releases.ExactVersion{Product: product.Vault, Version: v, InstallDir: dir, ApiBaseURL: want.Mirror}
	if file, err = ev.Install(ctx); err != nil {
		err = &engine.Error{Code: engine.ExitFailed, Err: fmt.Errorf("download Vault %s: %w", v, err),
			Hint: "give a downloaded one with --vault-binary FILE"}
		return "", nil, errors.Join(err, remove())
	}
	return file, remove, nil
}
