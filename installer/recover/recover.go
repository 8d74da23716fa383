package recover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/steps"
)

// patience is how long Vault may take to be there, or to be active again with
// the snapshot.
const patience = 10 * time.Minute

// Recovery is one machine's rebuilding. Its steps go between those of an
// installation.
type Recovery struct {
	Env    *steps.Env
	Found  *Found
	Escrow *Opened
	// Root is the folder that files are unpacked under, "/" but in tests.
	Root string
	// State is where the recovery is; see Begin.
	State *State
}

// Begin gives the state of the recovery that is under way here, or of a new
// one. It refuses a machine that has a Vault already, and what could not be
// brought to an end.
func Begin(env *steps.Env, state *State, found *Found, opened *Opened) (*Recovery, error) {
	if found != nil {
		if err := found.Manifest.Server().SameProduct(env.Config.Vault.Server()); err != nil {
			return nil, steps.Operator("name the snapshot's product in the configuration (vault.product) or with --product, and give its program; nothing has been changed", err)
		}
	}
	if found != nil && steps.NewerVersion(found.Manifest.ToolVersion, env.Version) {
		return nil, steps.Operator("use the installer of that version, or a newer one; nothing has been changed",
			fmt.Errorf("the snapshot is version %s's, and this installer is version %s: its engine could not read what a newer one has written", found.Manifest.ToolVersion, env.Version))
	}
	if state == nil {
		has, err := env.HasVault()
		if err != nil {
			return nil, err
		}
		if has {
			return nil, steps.Operator("to bring a snapshot back into it: strongroom restore. Where nobody needs what is in it: strongroom-installer uninstall --purge first",
				errors.New("there is a Vault on this machine already"))
		}
		state = &State{Format: stateFormat, Began: env.Host.Now().UTC(), ID: found.Manifest.ID, From: found.Destination.Name(), TakenAt: found.Manifest.TakenAt}
	}
	if len(opened.Shares) == 0 && len(opened.Admins) == 0 && env.AdminToken == "" {
		return nil, steps.Operator("give the whole folder of the escrow, or the token of an administrator of then in VAULT_TOKEN or by --token-file", ErrNoWayIn)
	}
	return &Recovery{Env: env, Found: found, Escrow: opened, Root: "/", State: state}, nil
}

// Steps are those of an installation, with those of the recovery among them.
func (r *Recovery) Steps() ([]engine.Step, error) {
	all := steps.All(r.Env)
	for _, add := range []struct {
		before string
		more   []engine.Step
	}{
		// The accounts and folders are there, no daemon is.
		{"system", []engine.Step{filesStep{r}}},
		{"master-key", []engine.Step{keyStep{r}}},
		// The daemons run, and the firewall lets the engine reach its providers.
		{"initialise", []engine.Step{emptyStep{r}, snapshotStep{r}, rootStep{r}, engineStep{r}}},
		{"timers", []engine.Step{endStep{r}}},
	} {
		var err error
		if all, err = steps.Before(all, add.before, add.more...); err != nil {
			return nil, err
		}
	}
	if f := (certificateStep{r}); f.needed() {
		return steps.Before(all, "preflight", f)
	}
	return all, nil
}

// look is Vault as it is now.
type look struct {
	c           *vaultapi.Client
	initialised bool
	active      bool
	cluster     string
}

// look waits for a Vault that is initialised to become active, as it does after
// a start. One that doesn't answer is not there yet.
func (r *Recovery) look(ctx context.Context) (look, error) {
	c, err := r.Env.Vault("")
	if err != nil {
		return look{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not done within a minute"))
	defer cancel()
	if err := c.WaitListening(ctx); err != nil {
		return look{}, fmt.Errorf("vault does not answer: %w", err)
	}
	h, err := c.Health(ctx)
	if err != nil {
		return look{}, err
	}
	l := look{c: c, initialised: h.Initialized}
	if !h.Initialized {
		return l, nil
	}
	if err := c.WaitActive(ctx); err != nil {
		// For a storage that an interrupted restore has left, that is final.
		return l, nil
	}
	if h, err = c.Health(ctx); err != nil {
		return l, err
	}
	l.active, l.cluster = true, h.ClusterID
	return l, nil
}

// restored says whether Vault's storage is the snapshot's.
func (r *Recovery) restored(l look) bool {
	return l.active && l.cluster == r.Found.Manifest.ClusterID
}

// Summary says what came back and what was lost.
func (s *State) Summary(w io.Writer) {
	fmt.Fprintf(w, "\nRecovered from %s, taken %s.\n", s.ID, s.TakenAt.Format(time.RFC3339))
	fmt.Fprintf(w, "Lost: what was written to Vault after that, at most the %s until this recovery began.\n", s.Began.Sub(s.TakenAt).Round(time.Second))
	fmt.Fprintf(w, "Time from the recovery's first look to a finished Vault: %s.\n", s.Finished.Sub(s.Began).Round(time.Second))
	for _, e := range s.Engines {
		fmt.Fprintf(w, "API keys at %s: %d, %d checked at their providers, %d renewed since the snapshot's are not the newest.\n", e.Mount, e.Keys, e.Checked, e.Renewed)
		for key, p := range e.Problems {
			fmt.Fprintf(w, "  ✗ %s: %s\n", key, p)
		}
		if !e.Done {
			fmt.Fprintf(w, "  The engine stays fenced: it reads, and rotates nothing, until this ends with done=true:\n    vault write -f %sreconcile\n", e.Mount)
		}
	}
	fmt.Fprintln(w, "The old machine must never run again: it has the same secrets, and its jobs' logins are revoked.")
}

// Err is an operator's error where an engine is still fenced.
func (s *State) Err() error {
	for _, e := range s.Engines {
		if !e.Done {
			return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("recovered; at %s %w", e.Mount, restore.ErrProblems),
				Hint: "look at the keys above, then: vault write -f " + e.Mount + "reconcile"}
		}
	}
	return nil
}

// confirm records that the escrow has proved itself: it came from elsewhere and
// has rebuilt this machine.
func (r *Recovery) confirm(now time.Time) error {
	for _, f := range r.Escrow.Files {
		if f.Plain == nil {
			continue
		}
		key := ""
		if f.Name == masterKeyFile {
			key = r.Escrow.MasterKey.Fingerprint()
		}
		if err := escrow.Record(r.path(machine.EscrowDir), f.Name, escrow.ByRestore, key, now); err != nil {
			return err
		}
	}
	return nil
}

// path is where a file of the machine lies for those who don't go through Env.
func (r *Recovery) path(p string) string {
	if r.Root == "/" {
		return p
	}
	return r.Root + p
}
