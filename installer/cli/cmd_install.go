package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/payload"
	"strongroom.example/installer/steps"
)

// options of plan and install.
type options struct {
	version     string
	config      string
	domain      string
	email       string
	tls         string
	vaultBinary string
	vaultSHA256 string
	product     string
	allowOld    bool
	recipients  []string
	sshPort     int
	sshFrom     []string
	noFirewall  bool
	skipDNS     bool
	remake      bool
	backupKeys  string
	tokenFile   string
	setAside    string
	yes         bool

	in       io.Reader
	out      io.Writer
	terminal bool
	changed  func(flag string) bool
}

const whatItDoes = `It checks the machine; makes the users; installs the appliance, the plugin and
Vault; switches swap and core dumps off; makes the master key and writes it to
an escrow that only your own keys open; writes the configuration, the units and
the firewall rules; starts everything; initialises Vault, sets up two audit
devices, the engines at apikeys/ and secret/, policies, a first administrator
and a login for each of the appliance's own jobs; revokes the root token; starts
the timers; and, where the configuration names a place for backups, takes the
first snapshot, reads it back, restores it for a test, and looks the whole
machine over.

The escrow is encrypted to --recipient, or to the ssh-ed25519 and ssh-rsa keys
that may log in to this machine. So are backups whose table [backup] names no
recipients.

Once the root token is gone, changes inside Vault need an administrator's token:
what vault login has left, the environment variable VAULT_TOKEN, or a file named
by --token-file.`

func (o *options) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "configuration file of the appliance (default: "+machine.ConfigFile+" of an earlier run, where there is one)")
	f.StringVar(&o.domain, "domain", "", "the name under which Vault is reached")
	f.StringVar(&o.email, "email", "", "address for the certificate authority")
	f.StringVar(&o.tls, "tls", "", "where the certificate comes from: acme, internal or files (see appliance.toml)")
	f.StringVar(&o.product, "product", "", "whose server: vault (default), or openbao, which is given by --vault-binary")
	f.Var(pathFlag{&o.vaultBinary}, "vault-binary", "the new Vault's program, in place of a downloaded release")
	f.StringVar(&o.vaultSHA256, "sha256", "", "SHA-256 that is checked first, of the --vault-binary")
	f.BoolVar(&o.allowOld, "allow-old-vault", false, "accept a Vault below "+config.VaultFloor)
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, the escrow, repeatable: "+recipient.Forms+", or a file of them")
	f.IntVar(&o.sshPort, "ssh-port", 0, "where sshd listens (default 22)")
	f.StringArrayVar(&o.sshFrom, "ssh-from", nil, "address range that may use SSH, repeatable (default: all)")
	f.BoolVar(&o.noFirewall, "no-firewall", false, "leave nftables alone")
	f.Var(pathFlag{&o.backupKeys}, "backup-credentials", "file with access_key and secret_key of the bucket for backups; it is sealed, and can be deleted afterwards")
	f.StringVar(&o.tokenFile, "token-file", "", tokenFileHelp)
	f.BoolVar(&o.remake, "remake-credentials", false, "make sealed credentials anew that this machine can never open again; the master key comes first, by strongroom kms import")
	f.StringVar(&o.setAside, "set-aside", "", "the domain: Vault's storage here, that nobody can open, is moved aside and a new one begun")
	f.BoolVar(&o.skipDNS, "skip-dns-check", false, "don't ask whether the domain points to this machine")
}

func planCommand(version string) *cobra.Command {
	o := options{version: version}
	c := &cobra.Command{
		Use:   "plan",
		Short: "Print what install would change, and change nothing",
		Long:  "Prints what install would change, and changes nothing. Exit code 3: there are\ndifferences.\n\n" + whatItDoes,
		RunE: func(c *cobra.Command, _ []string) error {
			o.from(c)
			return o.run(c.Context(), c, func(ctx context.Context, env *steps.Env) error {
				e := engine.Engine{Steps: steps.All(env), Out: o.out, Now: time.Now}
				_, err := e.Plan(ctx)
				return err
			})
		},
	}
	o.flags(c)
	about(c, &o.config)
	return c
}

func installCommand(version string) *cobra.Command {
	o := options{version: version}
	c := &cobra.Command{
		Use:     "install",
		Short:   "Make this machine a Vault, or bring it back to what it should be",
		Long:    "Makes this machine a Vault, or brings it back to what it should be. It may be\nstopped anywhere and run again.\n\n" + whatItDoes,
		Example: "  sudo ./" + program + " install --domain vault.example.com --tls internal",
		RunE: func(c *cobra.Command, _ []string) error {
			o.from(c)
			return o.run(c.Context(), c, o.install)
		},
	}
	o.flags(c)
	about(c, &o.config)
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return c
}

// about lets the configuration be given as the argument.
func about(c *cobra.Command, to *string) {
	argument.One(c, "FILE", "config", to)
	c.Args = args(c.Args)
}

func (o *options) from(c *cobra.Command) {
	o.in, o.out = c.InOrStdin(), c.OutOrStdout()
	f, ok := o.in.(*os.File)
	o.terminal = ok && isTerminal(f)
	o.changed = func(flag string) bool { return c.Flags().Changed(flag) }
}

// run prepares what the steps are told and calls do.
func (o *options) run(ctx context.Context, c *cobra.Command, do func(context.Context, *steps.Env) error) error {
	if os.Geteuid() != 0 {
		return &fault.Error{Code: fault.Usage, Err: errors.New("not root"), Hint: "run it with sudo"}
	}
	cfg, err := o.load(c)
	if err != nil {
		return err
	}
	return o.with(ctx, cfg, do)
}

// with calls do with what the steps are told, for this configuration.
func (o *options) with(ctx context.Context, cfg config.Appliance, do func(context.Context, *steps.Env) error) error {
	h, closing, err := host.Open(ctx)
	if err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "this machine must be run by systemd"}
	}
	defer closing()
	account := accountName()
	notes, err := nameRecipients(h, &cfg, account)
	if err != nil {
		return &fault.Error{Code: fault.Usage, Err: err, Hint: "name the keys that may open the escrow with --recipient"}
	}
	for _, n := range notes {
		fmt.Fprintln(o.out, "note:", n)
	}
	to, _, err := steps.Recipients(h, cfg.Escrow.Recipients, account)
	if err != nil {
		return &fault.Error{Code: fault.Usage, Err: err}
	}
	admin, err := o.adminToken(ctx, newClient)
	if err != nil {
		return err
	}
	if o.setAside != "" && o.setAside != cfg.Domain {
		return &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--set-aside %q is not this machine's domain", o.setAside), Hint: "nothing has been changed"}
	}
	var reachable func(config.Firewall) error
	if o.yes {
		// Nobody will be asked, so what will be asked of the machine can be asked at once.
		reachable = func(w config.Firewall) error {
			return letsIn(w, sshSession(), os.Getenv("SUDO_USER"), steps.OSNetwork{Resolver: net.DefaultResolver})
		}
	}
	given := steps.SealSecrets(&cfg, o.backupKeys)
	return do(ctx, &steps.Env{
		Host: h, Config: cfg, Payload: payload.Embedded(), Network: steps.OSNetwork{Resolver: net.DefaultResolver},
		Rand: rand.Reader, Version: o.version, VaultBinary: o.vaultBinary, VaultSHA256: o.vaultSHA256, Recipients: to, SkipDNS: o.skipDNS, Remake: o.remake, SetAside: o.setAside,
		Session: sshSession(), Given: given, AdminToken: admin, Confirm: o.confirmFirewall, Reachable: reachable, Probe: probePlace,
		Vault: newClient,
	})
}

// probePlace asks a place for backups for what nobody has stored there.
func probePlace(ctx context.Context, to config.BackupTo, read func(string) ([]byte, error)) error {
	_, err := snapshot.NewPlace(to, read).List(ctx, "strongroom-probe/")
	return err
}

// load reads the configuration, puts the flags over it, and asks for what is
// still missing.
func (o *options) load(c *cobra.Command) (config.Appliance, error) {
	cfg := config.Default()
	file := o.config
	var data []byte
	if file == "" {
		if _, err := os.Stat(machine.ConfigFile); err == nil {
			file = machine.ConfigFile
		} else if !errors.Is(err, fs.ErrNotExist) {
			return cfg, err
		}
	}
	if file != "" {
		var err error
		if data, err = config.Read(file); err != nil {
			return cfg, configError(err)
		}
		if cfg, err = config.Parse(file, data); err != nil {
			if err := o.override(&cfg); err != nil {
				return cfg, err
			}
			return cfg, allFaults(err, cfg, file, data, o.backupKeys)
		}
	}
	if err := o.override(&cfg); err != nil {
		return cfg, err
	}
	if err := steps.CheckSHA256(o.vaultSHA256, o.vaultBinary); err != nil {
		return cfg, usage(c, err)
	}
	if o.vaultBinary != "" {
		var err error
		if cfg.Vault.Version, err = o.given(c.Context(), cfg); err != nil {
			return cfg, err
		}
	}
	if err := o.ask(c.Context(), &cfg); err != nil {
		return cfg, err
	}
	return cfg, validate(cfg, file, data, o.backupKeys)
}

// given is the version of the server's program that the operator brings.
func (o *options) given(ctx context.Context, cfg config.Appliance) (string, error) {
	if !slices.Contains(config.Products(), string(cfg.Vault.Product)) {
		return cfg.Vault.Version, nil // which Validate refuses
	}
	h := &host.Host{FS: host.OSFS{Root: "/"}, Runner: host.OSRunner{}}
	s, err := steps.GivenServer(ctx, h, cfg.Vault, o.vaultBinary, o.vaultSHA256)
	return s.Version, err
}

// validate is Validate, but that a bucket without credentials is served by
// --backup-credentials.
func validate(cfg config.Appliance, file string, data []byte, backupKeys string) error {
	if backupKeys != "" {
		steps.SealSecrets(&cfg, backupKeys)
	}
	return cfg.Validate(file, data)
}

// allFaults adds to what Parse has found what is wrong beside it, so that the
// operator need not run into one after the other. Of a file that is no TOML
// nothing was understood, so nothing else is said of it.
func allFaults(err error, cfg config.Appliance, file string, data []byte, backupKeys string) error {
	var found, more config.Faults
	if !errors.As(err, &found) || len(found) == 1 && found[0].Field == "" {
		return err
	}
	if errors.As(validate(cfg, file, data, backupKeys), &more) {
		found = append(found, more...)
		slices.SortStableFunc(found, func(a, b config.Fault) int { return cmp.Compare(a.Line, b.Line) })
	}
	return found
}

// nameRecipients writes into the configuration, and so into the machine's, who
// can open the escrow where nobody is named: who could on an earlier run, or else
// who may log in as account. Otherwise it would be whoever runs the installer
// next. They open the backups, too, where nobody is named: those that only this
// machine can open burn with it. notes tell of keys that were passed over.
func nameRecipients(h *host.Host, cfg *config.Appliance, account string) (notes []string, err error) {
	earlier, err := earlierRecipients(h)
	if err != nil {
		return nil, err
	}
	if len(cfg.Escrow.Recipients) == 0 {
		cfg.Escrow.Recipients = earlier
	}
	if len(cfg.Escrow.Recipients) == 0 {
		if cfg.Escrow.Recipients, notes, err = steps.LoginKeys(h, account); err != nil {
			return nil, err
		}
	}
	if len(cfg.Backup.To) > 0 && len(cfg.Backup.Recipients) == 0 {
		cfg.Backup.Recipients = cfg.Escrow.Recipients
	}
	if len(earlier) > 0 && slices.Equal(cfg.Backup.Recipients, earlier) && !slices.Equal(cfg.Escrow.Recipients, earlier) {
		// An installation had named them there, and one of their keys may be lost.
		cfg.Backup.Recipients = cfg.Escrow.Recipients
		notes = append(notes, "backups were for who could open the escrow, and are for who can open it now")
	}
	return notes, nil
}

// earlierRecipients are those that the machine's own configuration names.
func earlierRecipients(h *host.Host) ([]string, error) {
	b, err := h.ReadFile(machine.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(machine.ConfigFile, b)
	return cfg.Escrow.Recipients, err
}

// override puts the flags that were given over the file.
func (o *options) override(cfg *config.Appliance) error {
	if o.changed("recipient") {
		keys, err := recipient.FromArgs(o.recipients)
		if err != nil {
			return &fault.Error{Code: fault.Usage, Err: err, Hint: "--recipient takes " + recipient.Forms + ", or a file with such lines"}
		}
		cfg.Escrow.Recipients = nil
		for _, k := range keys {
			cfg.Escrow.Recipients = append(cfg.Escrow.Recipients, k.Line)
		}
	}
	for flag, set := range map[string]func(){
		"domain": func() { cfg.Domain = o.domain },
		"email":  func() { cfg.Email = o.email },
		"tls":    func() { cfg.TLS.Mode = o.tls },
		"product": func() {
			if p := config.Product(o.product); !cfg.Vault.Product.Is(p) {
				cfg.Vault.Product, cfg.Vault.Version = p, p.Release()
			}
		},
		"allow-old-vault": func() { cfg.Vault.AllowOld = o.allowOld },
		"ssh-port":        func() { cfg.Firewall.SSHPort = o.sshPort },
		"ssh-from":        func() { cfg.Firewall.SSHFrom = o.sshFrom },
		"no-firewall":     func() { cfg.Firewall.Manage = !o.noFirewall },
	} {
		if o.changed(flag) {
			set()
		}
	}
	return nil
}
