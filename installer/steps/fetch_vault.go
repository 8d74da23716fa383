package steps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// FetchVault downloads the configured release from HashiCorp, or its mirror,
// into a folder of its own; hc-install verifies its checksum and the checksums'
// PGP signature. remove removes the folder. Only one may go on at a time, which
// the installer's lock sees to.
func FetchVault(ctx context.Context, want config.Vault) (file string, remove func() error, err error) {
	return fetchVault(ctx, want, "", machine.DownloadDir)
}

// fetchVault is FetchVault for releases that another armored OpenPGP key has
// signed than HashiCorp's, into dir. That is a fixed folder on the disk, since
// /tmp may be memory, which archive and program would fill, and so that what a
// killed run left there goes with the next.
func fetchVault(ctx context.Context, want config.Vault, key, dir string) (file string, remove func() error, err error) {
	v, err := version.NewVersion(want.Version)
	if err != nil {
		return "", nil, fmt.Errorf("vault.version: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	if err := errors.Join(remove(), os.MkdirAll(filepath.Dir(dir), 0o755), os.Mkdir(dir, 0o700)); err != nil {
		return "", nil, fmt.Errorf("download Vault: %w", err)
	}
	restore, err := temporaryFiles(dir)
	if err != nil {
		return "", nil, errors.Join(err, remove())
	}
	defer restore()
	ev := &releases.ExactVersion{Product: product.Vault, Version: v, InstallDir: dir, ApiBaseURL: want.Mirror, ArmoredPublicKey: key}
	if file, err = ev.Install(ctx); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			// hc-install 0.10 loses its own error about a checksum on the way
			// out, and then misses the program that it has not unpacked.
			err = errors.New("the archive was refused: its checksum does not match the signed one, or it holds no Vault")
		}
		err = &fault.Error{Code: fault.Failed, Err: fmt.Errorf("download Vault %s: %w", v, err),
			Hint: "give a downloaded one with --vault-binary FILE"}
		return "", nil, errors.Join(err, remove())
	}
	return file, remove, nil
}

// FetchVaultTo is FetchVault into a file, which must not be there yet. A host that
// has not answered at all after within is not waited for.
func FetchVaultTo(ctx context.Context, want config.Vault, file string, within time.Duration) error {
	return fetchVaultTo(ctx, want, "", file, within)
}

func fetchVaultTo(ctx context.Context, want config.Vault, key, file string, within time.Duration) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Code: fault.Usage, Err: errors.Join(fmt.Errorf("%q is there already", file), err), Hint: "name a file that is not"}
	}
	if err := answers(ctx, want, within); err != nil {
		return &fault.Error{Code: fault.Failed, Err: fmt.Errorf("download Vault %s: %w", want.Version, err)}
	}
	got, remove, err := fetchVault(ctx, want, key, file+".download")
	if err != nil {
		return err
	}
	return errors.Join(atomicfile.Copy(got, file, 0o755), remove())
}

// answers asks the host for anything.
func answers(ctx context.Context, want config.Vault, within time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %s", within))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, cmp.Or(want.Mirror, "https://releases.hashicorp.com")+"/vault/"+want.Version+"/index.json", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// temporaryFiles has this process make its temporary files in dir, as hc-install
// does with the archive and takes no other folder for it.
func temporaryFiles(dir string) (restore func(), err error) {
	const name = "TMPDIR"
	old, set := os.LookupEnv(name)
	if err := os.Setenv(name, dir); err != nil {
		return nil, err
	}
	return func() {
		if set {
			_ = os.Setenv(name, old) // fails on bad names only
		} else {
			_ = os.Unsetenv(name)
		}
	}, nil
}
