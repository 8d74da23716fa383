package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// credentialDir is where an installed appliance keeps its encrypted credentials.
const credentialDir = "/etc/strongroom/credentials"

// sealedCredential opens a credential of an installed appliance for root, as
// systemd does for a unit: so that a job can be run by hand. Its content goes
// through a pipe and nowhere else.
func sealedCredential(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil || os.Geteuid() != 0 {
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("credential %q: %w", name, err)
		}
		return nil, fmt.Errorf("credential %q: systemd passes none ($CREDENTIALS_DIRECTORY is not set)", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, stderr bytes.Buffer
	c := exec.CommandContext(ctx, "systemd-creds", "decrypt", "--name="+name, path, "-")
	c.Stdout, c.Stderr = &out, &stderr
	if err := c.Run(); err != nil {
		clear(out.Bytes())
		return nil, fmt.Errorf("credential %q: systemd-creds: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return out.Bytes(), nil
}
