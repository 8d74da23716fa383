package upgrade

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
	"strongroom.example/installer/host"
)

// Copy is the encrypted copy of Vault's data, and what opens it for the
// rehearsal: a key that is made for this one snapshot and only ever in memory.
type Copy struct {
	Host    *host.Host
	Version string // the installer's
	// Operator can open the snapshot too.
	Operator []recipient.Recipient
	// Token is an administrator's, which moves the copy's mounts.
	Token string
	Out   io.Writer

	// Vault writes the canary.
	Vault snapshot.Writer

	id     *age.X25519Identity
	canary *snapshot.Canary
}

// Mark implements Upgrade.Mark: it writes the canary that every drill looks for.
func (c *Copy) Mark(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	c.canary, err = snapshot.WriteCanary(ctx, snapshot.CanaryOptions{Vault: c.Vault, Host: name, Now: c.Host.Now})
	return err
}

// Seal implements Upgrade.Seal.
func (c *Copy) Seal(ctx context.Context, file string, of snapshot.VaultInfo) error {
	if len(c.Operator) == 0 {
		return errors.New("seal the snapshot: nobody could open it")
	}
	var err error
	if c.id, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	own, err := recipient.Parse(c.id.Recipient().String())
	if err != nil {
		return err
	}
	if err := mkdirs(c.Host, SealedDir); err != nil {
		return err
	}
	dir, err := snapshot.NewDir(SealedDir)
	if err != nil {
		return err
	}
	_, err = snapshot.Take(ctx, snapshot.TakeOptions{
		Source: archive(file), Vault: of, Recipients: append([]recipient.Recipient{own}, c.Operator...),
		Destinations: []snapshot.Destination{dir}, StateDir: SealedDir, ToolVersion: c.Version, Canary: c.canary,
	})
	return err
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

// Rehearse implements Upgrade.Rehearse: the new strongroom restores the copy
// where it can reach nothing, with the Vault that is installed, and goes on to
// the new programs.
func (c *Copy) Rehearse(ctx context.Context, r *Record, p Programs) error {
	if err := mkdirs(c.Host, rehearsalDir); err != nil {
		return err
	}
	// Also where only this program is new: a plain drill would take the policies
	// that the upgrade has yet to write for a fault.
	args := []string{p.Strongroom, "drill", "--rehearse", "--vault", machine.VaultProgram, "--dir", SealedDir, "--unverified",
		"--take-state", SealedDir, "--state", rehearsalDir, "--identity", "/dev/stdin"}
	_, plugin, vault := r.changes()
	env := []string{"HOME=/root"}
	if vault {
		args = append(args, "--vault-binary", p.Vault)
	}
	if plugin {
		// In the environment, which only root can read, and gone with the drill:
		// its input is taken by the key.
		env = append(env, "VAULT_TOKEN="+c.Token)
		args = append(args, "--plugin-binary", p.Plugin, "--plugin-version", strings.TrimPrefix(r.To.Plugin, "v"))
	}
	secret := []byte(c.id.String() + "\n")
	defer clear(secret)
	out, err := c.Host.Run(ctx, host.Command{Args: args, Stdin: bytes.NewReader(secret), Env: env})
	if err == nil {
		return nil
	}
	for line := range strings.Lines(string(out.Stdout)) {
		fmt.Fprint(c.Out, "    ", line)
	}
	var exit *host.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("strongroom drill ended with code %d: %s", exit.Code, strings.TrimSpace(exit.Stderr))
	}
	return err
}

// FrontAt gives an Upgrade.Front that asks the machine's own front, by its
// name, whether Vault is active. Its certificate must be for the name; who has
// signed it is the clients' affair.
func FrontAt(domain, addr string) func(context.Context) error {
	client := &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			},
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS12,
				// VerifyConnection takes its place.
				InsecureSkipVerify: true,
				VerifyConnection: func(s tls.ConnectionState) error {
					return nameFits(s.PeerCertificates, domain)
				},
			},
		},
	}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+domain+"/v1/sys/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("the front: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the front answers %s to a question for Vault's health", resp.Status)
		}
		return nil
	}
}

func nameFits(chain []*x509.Certificate, domain string) error {
	if len(chain) == 0 {
		return errors.New("the front has no certificate")
	}
	return chain[0].VerifyHostname(domain)
}
