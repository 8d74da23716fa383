package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/doctor"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type doctorOptions struct {
	lookOptions
	version  string
	fix, yes bool
	evidence bool
	noSave   bool
	network  string // file of doctor network
	timeout  time.Duration

	// unsurveyed is why the file could not be used.
	unsurveyed error
	asked      *vaultapi.Client
}

func doctorCommand(version string) *cobra.Command {
	o := doctorOptions{version: version}
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the machine against the hardening checklist",
		Long: `Examines the machine: the items of the hardening checklist, the escrow, drift
from what the installer wrote, and the units. For each it shows what was looked
at, what was seen, a verdict, and what to do.

A pass means that everything was seen. What could not be looked at, for want of
a login or of root's rights, is skipped, with the reason.

--fix puts right what can be put right without risk (modes, owners, swap, kernel
settings, timers, the firewall's own rules), shows it first and asks.

As root it keeps its report in /var/lib/strongroom/doctor/last.json, for status
and metrics. It exits with 3 if an item failed, and if one about security saw
nothing at all.`,
		Example: `  strongroom doctor
  strongroom doctor --evidence
  strongroom doctor --fix
  strongroom doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDoctor(c, &o) },
	}
	o.add(c)
	f := c.Flags()
	f.BoolVar(&o.fix, "fix", false, "put right what is safe to, after showing it")
	f.BoolVarP(&o.yes, "yes", "y", false, "with --fix: do not ask")
	f.BoolVar(&o.evidence, "evidence", false, "show the evidence of the items that passed, too")
	f.BoolVar(&o.noSave, "no-save", false, "do not keep the report")
	f.StringVar(&o.network, "network", "", "file of \"strongroom doctor network\", for a doctor that has no network itself")
	c.AddCommand(doctorNetworkCommand(), doctorFirewallCommand(), doctorUnfinishedCommand())
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this time")
	return c
}

func runDoctor(c *cobra.Command, o *doctorOptions) error {
	switch {
	case o.yes && !o.fix:
		return &Error{Code: ExitUsage, Err: errors.New("--yes says nothing without --fix")}
	case o.fix && o.json:
		return &Error{Code: ExitUsage, Err: errors.New("--fix and --json: one of them"), Hint: "run strongroom doctor --fix, then strongroom doctor --json"}
	case o.fix && o.network != "":
		return &Error{Code: ExitUsage, Err: errors.New("--fix and --network: one of them"), Hint: "--network is what the timer's unit uses"}
	case o.fix && os.Geteuid() != 0:
		return &Error{Code: ExitUsage, Err: errors.New("--fix: not root")}
	}
	ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
	defer cancel()
	s, logout, err := o.subject(ctx)
	if err != nil {
		return err
	}
	defer logout()
	r := doctor.Examine(ctx, s)
	if o.fix {
		if r, err = o.mend(ctx, c, s, r); err != nil {
			return err
		}
	}
	if err := errors.Join(o.print(c, r), o.save(r)); err != nil {
		return err
	}
	return o.judge(s, r)
}

// judge says how the examination ends: with what is wrong, or with why too little
// was seen.
func (o *doctorOptions) judge(s doctor.Subject, r doctor.Report) error {
	incomplete := o.incomplete(s)
	switch blind := r.Blind(); {
	case r.Failed():
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d of %d items failed", r.Count(evidence.Fail), len(r.Items)), Hint: "each has its remedy above"}
	case len(blind) > 0:
		err := fmt.Errorf("nothing was seen of %d of %d items: %s", len(blind), len(r.Items), strings.Join(blind, ", "))
		return &Error{Code: ExitDrift, Err: errors.Join(err, incomplete), Hint: "each has the reason above: run it as root, with a login to Vault"}
	}
	return incomplete
}

// incomplete keeps the timer's doctor from being content with what it could not
// see for a reason that somebody must remove. A person sees it in the report.
func (o *doctorOptions) incomplete(s doctor.Subject) error {
	switch {
	case o.network == "":
		return nil
	case o.unsurveyed != nil:
		return &Error{Code: ExitFailed, Err: fmt.Errorf("--network: %w", o.unsurveyed), Hint: "systemctl status strongroom-doctor-net"}
	case s.NoConfig != nil:
		return &Error{Code: ExitUsage, Err: s.NoConfig, Hint: "what needs the configuration was not examined"}
	}
	return nil
}

func (o *doctorOptions) subject(ctx context.Context) (doctor.Subject, func(), error) {
	client, err := o.client()
	if err != nil {
		return doctor.Subject{}, nil, err
	}
	o.asked = client
	s := doctor.Subject{
		Machine: doctor.OSMachine{}, Front: doctor.HTTPSFront{Address: o.front}, Vault: doctor.RealVault{Client: client},
		Places: evidence.Below(o.state), DrillKey: machine.DrillSigningPub, Mount: o.mount, Version: o.version,
	}
	s.Config, s.NoConfig = config.Load(o.config)
	if o.network != "" {
		data, err := credential.Read(credential.Path(o.network))
		if err == nil {
			s.Machine, s.Front, err = doctor.Surveyed(s.Machine, data)
		}
		if err != nil {
			// The rest is examined all the same.
			o.unsurveyed = err
			s.Machine, s.Front = doctor.Unsurveyed(doctor.OSMachine{}, err)
		}
	}
	s.NoLogin = o.login(ctx, client)
	// A token that is not ended here ends by itself in minutes.
	return s, func() { _ = o.session.End(ctx) }, nil
}

// mend shows what can be put right, asks, does it, and examines again.
func (o *doctorOptions) mend(ctx context.Context, c *cobra.Command, s doctor.Subject, r doctor.Report) (doctor.Report, error) {
	fixes, out := r.Fixes(), c.OutOrStdout()
	if len(fixes) == 0 {
		fmt.Fprintln(out, "Nothing that --fix could put right.")
		return r, nil
	}
	fmt.Fprintf(out, "To put right (%d):\n", len(fixes))
	for _, f := range fixes {
		fmt.Fprintf(out, "  %-15s %s\n", f.Item, f.What)
	}
	if !o.yes {
		if err := agree(ctx, c.InOrStdin(), out); err != nil {
			return r, err
		}
	}
	for _, f := range fixes {
		if err := f.Apply(ctx, s.Machine); err != nil {
			fmt.Fprintf(out, "  ✗ %s\n", err)
			continue
		}
		fmt.Fprintf(out, "  ✓ %s\n", f.What)
	}
	fmt.Fprintln(out)
	if s.NoLogin != nil && slices.ContainsFunc(fixes, func(f doctor.Fix) bool { return f.Item == "units" }) {
		s.NoLogin = o.loginAgain(ctx)
	}
	// What could not be put right shows in the second examination.
	return doctor.Examine(ctx, s), nil
}

// loginAgain is for a Vault that the fixes have just started: it needs a moment
// to unseal, and what only it can tell would not be examined.
func (o *doctorOptions) loginAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := o.login(ctx, o.asked)
		if err == nil || !mayYetCome(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// mayYetCome says whether a login failed as it does while Vault starts: no
// connection yet, or sealed.
func mayYetCome(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) || vaultapi.IsUnavailable(err)
}

// agree asks a person.
func agree(ctx context.Context, in io.Reader, out io.Writer) error {
	fmt.Fprint(out, "Do it? [y/N] ")
	line, err := askLine(ctx, in)
	fmt.Fprintln(out)
	if err != nil {
		return err
	}
	switch strings.ToLower(line) {
	case "y", "yes":
		return nil
	}
	return &Error{Code: ExitOperator, Err: errors.New("nothing has been changed"), Hint: "say --yes where nobody can be asked"}
}

func (o *doctorOptions) print(c *cobra.Command, r doctor.Report) error {
	if o.json {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.Render(c.OutOrStdout(), doctor.Style{Colour: terminal(c.OutOrStdout()).colour, Evidence: o.evidence})
}

// save keeps the report where status and metrics look; by root only.
func (o *doctorOptions) save(r doctor.Report) error {
	if o.noSave || os.Geteuid() != 0 {
		return nil
	}
	dir := filepath.Join(o.state, "doctor")
	// The unit has it made; by hand there may be none yet. A machine without
	// the appliance gets none.
	if _, err := os.Stat(o.state); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("keep the report: %w", err)
	}
	return r.Save(dir)
}

// doctorNetworkCommand is the half of the timer's doctor that has a network; it
// is not for people.
func doctorNetworkCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:    "network FILE",
		Short:  "Note down what can be seen of the network",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := config.Load(file)
			if err != nil {
				// The sockets and the firewall can be looked at without it; the
				// doctor tells of it.
				journal(c, journalWarning, "%v: the front is not asked", err)
				a.Domain = ""
			}
			ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
			defer cancel()
			n := doctor.Survey(ctx, doctor.OSMachine{}, doctor.HTTPSFront{Address: evidence.FrontAddress}, a.Domain)
			return n.Save(args[0])
		},
	}
	c.Flags().StringVar(&file, "config", machine.ConfigFile, "configuration file of the appliance")
	return c
}
