package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/command"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/appliance/watch/status"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// lookOptions are what status and doctor share: where things are.
type lookOptions struct {
	vault         vaultAccess
	session       access.Session
	config, state string
	front         string
	mount         string
	json          bool
}

func (o *lookOptions) add(c *cobra.Command) {
	f := c.Flags()
	o.vault.Machine = access.Role{ID: machine.CredDoctorRoleID, Secret: machine.CredDoctorSecretID}
	o.vault.add(f)
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file of the appliance")
	f.StringVar(&o.state, "states", machine.StateDir, "folder with the jobs' states")
	f.StringVar(&o.front, "front", evidence.FrontAddress, "where the front answers, host:port")
	f.StringVar(&o.mount, "mount", machine.MountKeys, "mount of the engine for API keys")
	f.BoolVar(&o.json, "json", false, "print JSON")
}

type statusOptions struct {
	lookOptions
	watch    bool
	interval time.Duration
}

func statusCommand() *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the state of everything on one screen",
		Long: `Shows seal, raft, version, certificate, last verified backup, last drill, escrow,
last doctor, and which API keys rotate when in the next 90 days.

It logs in as --token-file says; else as root by the doctor's own AppRole; else with
VAULT_TOKEN or what "vault login" has left. Without a login it shows what it can and says what
is missing. Colours are for terminals only, and never with NO_COLOR set.

It exits with 0 whatever it shows: for a verdict ask "strongroom doctor".`,
		Example: `  strongroom status
  strongroom status --watch
  strongroom status --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runStatus(c, &o) },
	}
	o.add(c)
	c.Flags().BoolVar(&o.watch, "watch", false, "show it again and again, until Ctrl-C")
	c.Flags().DurationVar(&o.interval, "interval", 5*time.Second, "between two looks of --watch, at least 1s")
	return c
}

func runStatus(c *cobra.Command, o *statusOptions) error {
	tty := terminal(c.OutOrStdout())
	switch {
	case o.watch && (o.json || !tty.is):
		return &Error{Code: ExitUsage, Err: errors.New("--watch redraws a terminal, which is not there"), Hint: "leave out --watch, and --json with it"}
	case o.interval < time.Second:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--interval %v: must be 1s at least", o.interval)}
	}
	client, err := o.client()
	if err != nil {
		return err
	}
	ctx := c.Context()
	s := o.sources(client)
	s.NoLogin = o.login(ctx, client)
	defer func() { _ = o.session.End(ctx) }() // it ends by itself in minutes
	if !o.watch {
		return printStatus(c.OutOrStdout(), status.Gather(ctx, s), o.json, tty)
	}
	return watch(ctx, c.OutOrStdout(), o, client, s)
}

func (o *lookOptions) sources(client *vaultapi.Client) status.Sources {
	s := status.Sources{Vault: client, Mount: o.mount, Front: o.front, Places: evidence.Below(o.state), Now: time.Now, Sealing: sealing,
		MasterKey: func() ([]byte, error) { return atomicfile.ReadSmall(machine.MasterKeyFile, 1<<20) }}
	a, err := config.Load(o.config)
	if a.Domain == "" && err == nil {
		err = fmt.Errorf("%q names no domain", o.config)
	}
	s.Domain, s.NoDomain = a.Domain, err
	return s
}

// sealing is why this machine's KMS does not run, if systemd cannot open its
// master key.
func sealing(ctx context.Context) error {
	if err := command.New(ctx, "systemctl", "--quiet", "is-active", machine.UnitKMS).Run(); err == nil {
		return nil
	}
	return evidence.ReadSealing(ctx, func(ctx context.Context, args ...string) ([]byte, error) {
		return command.New(ctx, args[0], args[1:]...).Output()
	}, credential.LockoutLeft)
}

// client connects without a token, so that health can be read in any case.
func (o *lookOptions) client() (*vaultapi.Client, error) {
	c, err := o.vault.Client()
	if err != nil {
		return nil, err
	}
	// Somebody is waiting, or a timer comes again.
	return c.Once(20 * time.Second), nil
}

// login makes client somebody. An error says why it is nobody; it is not fatal.
func (o *lookOptions) login(ctx context.Context, client *vaultapi.Client) (err error) {
	o.session, err = o.vault.Login(ctx, client)
	return loginProblem(err)
}

// loginProblem is why nobody is logged in, with what to do, on one line.
func loginProblem(err error) error {
	var known *Error
	if errors.As(err, &known) && known.Hint != "" {
		return fmt.Errorf("%w (%s)", err, known.Hint)
	}
	return err
}

func printStatus(w io.Writer, r status.Report, asJSON bool, tty terminalState) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.Render(w, status.Style{Colour: tty.colour, Width: tty.width})
}

// watch redraws until ctx ends. A token that has come to its end is renewed by
// another login.
func watch(ctx context.Context, w io.Writer, o *statusOptions, client *vaultapi.Client, s status.Sources) error {
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	made := time.Now()
	for {
		// The doctor's tokens last ten minutes.
		if o.session.Own() && time.Since(made) > 5*time.Minute || s.NoLogin != nil {
			_ = o.session.End(ctx) // it ends by itself in minutes
			client.SetToken("")
			s.NoLogin, made = o.login(ctx, client), time.Now()
		}
		var b bytes.Buffer
		if err := printStatus(&b, status.Gather(ctx, s), false, terminal(w)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		// One write, from the top: it does not flicker. What was longer before
		// is cleared line by line and below.
		screen := append([]byte("\x1b[H"), bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\x1b[K\n"))...)
		if _, err := w.Write(append(screen, "\x1b[J"...)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// terminalState is what may be drawn on.
type terminalState struct {
	is, colour bool
	width      int // columns, 0 if unknown
}

// terminal looks at where output goes. https://no-color.org
func terminal(w io.Writer) terminalState {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return terminalState{}
	}
	t := terminalState{is: true, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		t.width = min(width, 120)
	}
	return t
}
