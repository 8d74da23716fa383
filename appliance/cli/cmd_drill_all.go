package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/drill"
	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/access"
	"strongroom.example/config/machine"
)

type drillOptions struct {
	drillSource
	keys      drillKeys
	state     string
	escrowDir string
	rehearse  bool
	with      rehearseFlags
	json      bool
}

// rehearseFlags are the programs of an upgrade.
type rehearseFlags struct {
	vault, plugin, pluginVersion string
	tokenFile                    string
}

func drillCommand(version string) *cobra.Command {
	o := drillOptions{}
	o.version = version
	c := &cobra.Command{
		Use:   "drill",
		Short: "Prove that a backup restores: a cold rebuild, thrown away again",
		Long: `Fetches the newest verified snapshot from where backups go, opens it with the
drill's key, restores it into a scratch Vault that has no network and sees no
database, unseals that with the machine's master key, and checks what it holds:
the canary that was written before the snapshot, policies, mounts, auth methods,
an AppRole login, the apikeys engine, which must stay fenced. It measures RPO and
RTO and writes a signed report. Nothing scratch is left.

By hand it does all of that as root. The timer runs it every quarter as two units,
one that has the network and no key, one that has the keys and no network.

With --rehearse it goes on as an upgrade would: a new Vault on the same storage, a
new plugin beside the old one. What an upgrade will write anyway, such as changed
policies, is then only noted.

Exit codes: 0 passed; 3 a check failed, or the snapshot is damaged or not there;
4 you must act, as the message says; 1 it could not be done.`,
		Example: `  strongroom drill
  strongroom drill --rehearse --vault-binary ./vault-new --plugin-binary ./plugin-new --token-file token
  strongroom drill verify-report /var/lib/strongroom/drill/last.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return runDrill(c, o)
		},
	}
	o.drillSource.add(c)
	o.keys.add(c)
	f := c.Flags()
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.DrillState+")")
	f.StringVar(&o.escrowDir, "escrow", machine.EscrowDir, "the escrow's folder, whose record names the master key")
	f.BoolVar(&o.rehearse, "rehearse", false, "rehearse an upgrade: to this program alone, to --vault-binary, --plugin-binary or both")
	f.StringVar(&o.with.vault, "vault-binary", "", "with --rehearse: the new Vault's program")
	f.StringVar(&o.with.plugin, "plugin-binary", "", "with --rehearse: the new plugin's program")
	f.StringVar(&o.with.pluginVersion, "plugin-version", "", "with --plugin-binary: the new plugin's version (default: what it says itself)")
	f.StringVar(&o.with.tokenFile, "token-file", "", "with --plugin-binary: file with a Vault token of an administrator that is in the snapshot (default: $VAULT_TOKEN, else ~/.vault-token as vault login leaves it)")
	f.BoolVar(&o.json, "json", false, "print JSON, the report without its signature")
	c.AddCommand(drillFetchCommand(version), drillRunCommand(version), drillPrepareCommand(), verifyReportCommand())
	return c
}

func (o *drillOptions) validate() error {
	usage := func(format string, args ...any) error {
		return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...), Hint: "see strongroom drill --help"}
	}
	switch {
	case !o.rehearse && o.with != rehearseFlags{}:
		return usage("--vault-binary, --plugin-binary, --plugin-version and --token-file need --rehearse")
	case o.with.plugin == "" && (o.with.pluginVersion != "" || o.with.tokenFile != ""):
		return usage("--plugin-version and --token-file need --plugin-binary")
	}
	var vault os.FileInfo
	for _, program := range []struct{ name, path string }{{"--vault-binary", o.with.vault}, {"--plugin-binary", o.with.plugin}} {
		name, path := program.name, program.path
		if path == "" {
			continue
		}
		fi, err := os.Stat(path)
		switch {
		case err != nil:
			return usage("%s: %w", name, err)
		case !fi.Mode().IsRegular() || fi.Mode()&0o100 == 0:
			return usage("%s %q is not an executable file", name, path)
		case vault != nil && os.SameFile(vault, fi):
			return usage("--vault-binary %q and --plugin-binary %q are one file: a Vault and a plugin are two programs", o.with.vault, path)
		}
		vault = fi
	}
	return nil
}

func runDrill(c *cobra.Command, o drillOptions) error {
	spareMemory()
	ctx := c.Context()
	if os.Geteuid() != 0 {
		return &Error{Code: ExitOperator, Err: errors.New("a drill by hand needs root, to cut the scratch Vault off from the network"),
			Hint: "use sudo, or systemctl start strongroom-drill.service"}
	}
	state := stateDir(o.state, machine.DrillState)
	if err := os.MkdirAll(state, 0o750); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	state, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	run, fetch, err := o.prepare(c, state)
	if err != nil {
		if !o.rehearse && !o.chosen() {
			err = cannotBegin(state, err)
		}
		return drillError(err)
	}
	report, err := drill.FetchAndRun(ctx, fetch, run)
	return drillError(errors.Join(err, printReport(c, report, o.json)))
}

// prepare reads all that a drill needs.
func (o *drillOptions) prepare(c *cobra.Command, state string) (run drill.Options, fetch drill.FetchOptions, err error) {
	if run, err = o.keys.options(c, o.version, state); err != nil {
		return run, fetch, err
	}
	if run.EscrowKey, err = drill.EscrowedKey(o.escrowDir); err != nil {
		return run, fetch, escrowFault(err)
	}
	if run.Rehearse, err = o.rehearsal(c.Context()); err != nil {
		return run, fetch, err
	}
	if !o.json {
		run.Step = func(name string) { fmt.Fprintf(c.OutOrStdout(), "… %s\n", name) }
	}
	fetch, err = o.drillSource.options(c.Context(), state)
	return run, fetch, err
}

func printReport(c *cobra.Command, r *report.Report, asJSON bool) error {
	if r == nil {
		return nil
	}
	if asJSON {
		return printJSON(c, r)
	}
	_, err := fmt.Fprint(c.OutOrStdout(), r.Text())
	return err
}

// rehearsal is nil without --rehearse.
func (o *drillOptions) rehearsal(ctx context.Context) (*drill.Rehearsal, error) {
	if !o.rehearse {
		return nil, nil
	}
	h := &drill.Rehearsal{PluginVersion: o.with.pluginVersion}
	for _, program := range []struct {
		from string
		to   *string
	}{{o.with.vault, &h.Vault}, {o.with.plugin, &h.Plugin}} {
		if program.from == "" {
			continue
		}
		abs, err := filepath.Abs(program.from)
		if err != nil {
			return nil, err
		}
		*program.to = abs
	}
	if h.Plugin == "" {
		return h, nil
	}
	if h.PluginVersion == "" {
		var err error
		if h.PluginVersion, err = scratch.PluginVersion(ctx, h.Plugin); err != nil {
			return nil, &Error{Code: ExitUsage, Err: err, Hint: "give --plugin-binary the plugin's program, or --plugin-version where it does not tell its own"}
		}
	}
	var err error
	who := access.Options{TokenFile: o.with.tokenFile}
	if h.Token, err = who.Token(); errors.Is(err, access.ErrNoLogin) {
		return nil, drillError(fmt.Errorf("%w: none was given", drill.ErrNeedsToken))
	}
	return h, err
}
