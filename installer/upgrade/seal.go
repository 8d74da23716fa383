package upgrade

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"filippo.io/age"

	"strongroom/appliance/snapshot"
	"strongroom/installer/host"
)

// RehearsalCredential is the name under which the rehearsal finds its key: that
// of the drill's, whose code it runs.
const RehearsalCredential = "drill-key"

// SealTo gives the Seal of a real machine. The rehearsal's key is made for this
// one snapshot and kept sealed by the machine, so that no key of anybody's need
// be on it.
func SealTo(h *host.Host, version string, operator []snapshot.Recipient) func(context.Context, string, snapshot.VaultInfo) error {
	return func(ctx context.Context, file string, of snapshot.VaultInfo) error {
		if len(operator) == 0 {
			return fmt.Errorf("seal the snapshot: nobody could open it but this machine")
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		secret := []byte(id.String())
		defer clear(secret)
		out, err := h.Run(ctx, host.Command{
			Args: []string{"systemd-creds", "encrypt", "--name=" + RehearsalCredential, "-", "-"}, Stdin: bytes.NewReader(secret)})
		if err != nil {
			return fmt.Errorf("seal the rehearsal's key: %w", err)
		}
		if len(out.Stdout) == 0 || bytes.Contains(out.Stdout, secret) {
			return fmt.Errorf("seal the rehearsal's key: systemd-creds gave nothing that is encrypted")
		}
		if err := h.Write(RehearsalKey, bytes.NewReader(out.Stdout), host.Attr{Mode: 0o600}); err != nil {
			return err
		}
		own, err := snapshot.ParseRecipient(id.Recipient().String())
		if err != nil {
			return err
		}
		if err := mkdirs(h, SealedDir); err != nil {
			return err
		}
		dir, err := snapshot.NewDir(SealedDir)
		if err != nil {
			return err
		}
		_, err = snapshot.Take(ctx, snapshot.TakeOptions{
			Source: archive(file), Vault: of, Recipients: append([]snapshot.Recipient{own}, operator...),
			Destinations: []snapshot.Destination{dir}, StateDir: SealedDir, ToolVersion: version,
		})
		return err
	}
}

// archive is a snapshot that has been taken already.
type archive string

var _ snapshot.Source = archive("")

func (a archive) Snapshot(ctx context.Context, w io.Writer) error {
	f, err := os.Open(string(a))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		return err
	}
	return ctx.Err()
}
