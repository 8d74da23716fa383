package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/recipient"
	"strongroom.example/installer/cloudinit"
)

type cloudInitOptions struct {
	options
	url    string
	sha256 string
}

func cloudInitCommand(version string) *cobra.Command {
	o := cloudInitOptions{options: options{version: version}}
	c := &cobra.Command{
		Use:   "cloud-init",
		Short: "Print user data by which a new machine installs itself",
		Long: `Prints cloud-init user data, at most 32 KiB as Hetzner allows, by which a new
machine downloads this installer from --url, checks its SHA-256, and installs
unattended with the configuration. It tries again every minute until that has
worked, so the domain may point to the machine later.

There is no secret in it: everybody on the machine, and the provider, can read
user data. What needs one (a bucket's credentials, say) is refused, and is added
on the machine afterwards. The escrow goes to escrow.recipients or, where none
are named, to the SSH keys that the provider puts into root's authorized_keys.

It needs neither root nor the machine.`,
		Example: "  ./" + program + " cloud-init appliance.toml \\\n      --url https://downloads.example.com/" + program + " >user-data",
		RunE: func(c *cobra.Command, _ []string) error {
			o.from(c)
			// Nothing is asked: the output goes to a file.
			o.yes = true
			return o.print(c)
		},
	}
	f := c.Flags()
	f.StringVar(&o.url, "url", "", "https URL from which the machine gets the installer")
	f.StringVar(&o.sha256, "sha256", "", "SHA-256 that is checked first, of the installer (default: of this program itself)")
	f.StringVar(&o.config, "config", "", "configuration file of the appliance")
	about(c, &o.config)
	f.StringVar(&o.domain, "domain", "", "the name under which Vault is reached")
	f.StringVar(&o.email, "email", "", "address for the certificate authority")
	f.StringVar(&o.tls, "tls", "", "where the certificate comes from: acme or internal")
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, the escrow, repeatable: "+recipient.Forms+", or a file of them")
	return c
}

func (o *cloudInitOptions) print(c *cobra.Command) error {
	if o.url == "" {
		return usage(c, errors.New("--url is required: where does the machine get the installer?"))
	}
	cfg := config.Default()
	var data []byte
	if o.config != "" {
		var err error
		if data, err = config.Read(o.config); err != nil {
			return configError(err)
		}
		if cfg, err = config.Parse(o.config, data); err != nil {
			return err
		}
	}
	if err := o.override(&cfg); err != nil {
		return err
	}
	if err := cfg.Validate(o.config, data); err != nil {
		return err
	}
	sum := strings.TrimSpace(o.sha256)
	if sum == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("this program's own file: %w", err)
		}
		if sum, err = vaultapi.SHA256File(self); err != nil {
			return err
		}
	}
	out, err := cloudinit.UserData(cloudinit.Params{URL: o.url, SHA256: sum, Config: cfg, Version: o.version})
	if err != nil {
		return &fault.Error{Code: fault.Usage, Err: err, Hint: "nothing was printed"}
	}
	_, err = o.out.Write(out)
	return err
}
