package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/serve/front"
	"strongroom.example/config/machine"
)

// The credentials that hold a certificate of the operator's own.
const (
	certificateCredential = "tls.crt"
	certificateKey        = "tls.key"
)

func frontCertificateCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "certificate",
		Short: "Hand the front a renewed certificate of your own",
		Long: `Reads the systemd credentials tls.crt and tls.key, checks that they belong
together, cover the front's names and are valid now, and writes them into the
one file that the front reads. The front takes it over within seconds, without
a restart.

strongroom-front-certificate.service runs it whenever one of your files changes.
A pair that does not fit ends it with exit code 1, as between the two writes of a
renewal, and systemd tries again; after a minute of that, or where the pair would
not do for clients, the exit code is 4. What is served stays as it was.`,
		Example: "  systemctl start strongroom-front-certificate",
		RunE:    func(c *cobra.Command, _ []string) error { return runFrontCertificate(c, file, time.Now()) },
	}
	argument.One(c, "FILE", "config", &file)
	c.Flags().StringVar(&file, "config", machine.FrontTOML, "configuration file of the front")
	return c
}

// runFrontCertificate ends with ExitFailed where, and only where, systemd shall
// try again.
func runFrontCertificate(c *cobra.Command, file string, now time.Time) error {
	cfg, err := frontConfig(c, file)
	if err != nil {
		return err
	}
	changed, err := takeCertificate(cfg, now)
	if errors.Is(err, front.ErrPair) {
		const hint = "tls.cert_file and tls.key_file in appliance.toml name the files; write both, PEM, the certificate with its chain"
		again, nerr := front.RenewalUnderWay(cfg, now)
		if again {
			return &Error{Code: ExitFailed, Err: err, Hint: hint}
		}
		return &Error{Code: ExitOperator, Err: errors.Join(err, nerr), Hint: hint}
	}
	err = errors.Join(err, front.RenewalOver(cfg))
	switch {
	case errors.Is(err, front.ErrCertificate):
		return &Error{Code: ExitOperator, Err: err, Hint: "the certificate of before is served on: renew it for the name in appliance.toml"}
	case err != nil:
		return &Error{Code: ExitOperator, Err: err, Hint: "the certificate of before is served on"}
	}
	if changed {
		fmt.Fprintln(c.OutOrStdout(), "Another certificate is handed to the front.")
	} else {
		fmt.Fprintln(c.OutOrStdout(), "The front has this certificate already.")
	}
	return nil
}

func takeCertificate(cfg front.Config, now time.Time) (bool, error) {
	cert, err := credential.Read(certificateCredential)
	if err != nil {
		return false, err
	}
	key, err := credential.Read(certificateKey)
	if err != nil {
		return false, err
	}
	defer clear(key)
	return front.TakeCertificate(cfg, cert, key, now)
}
