package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/hashicorp/go-version"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

// Plan is what an upgrade would change.
type Plan struct {
	From, To Versions
	// Differs is false where the machine is as the new installer wants it.
	Differs bool
}

// Plan prints what would change, and changes nothing.
func (u *Upgrade) Plan(ctx context.Context) (Plan, error) {
	var p Plan
	var err error
	if p.From, err = u.installed(ctx); err != nil {
		return p, err
	}
	if p.To, err = u.target(ctx); err != nil {
		return p, err
	}
	if err := possible(p.From, p.To); err != nil {
		return p, err
	}
	u.say("%-12s %-34s %s", "", "installed", "new")
	for _, row := range []struct{ what, from, fromSum, to, toSum string }{
		{"strongroom", p.From.Strongroom, p.From.StrongroomSHA256, p.To.Strongroom, p.To.StrongroomSHA256},
		{"plugin", p.From.Plugin, p.From.PluginSHA256, p.To.Plugin, p.To.PluginSHA256},
		{u.Env.Config.Vault.Product.String(), p.From.Vault, p.From.VaultSHA256, p.To.Vault, p.To.VaultSHA256},
	} {
		to := "as it is"
		if row.fromSum != row.toSum {
			p.Differs = true
			to = fmt.Sprintf("%s (sha256 %.12s)", row.to, row.toSum)
		}
		u.say("%-12s %-34s %s", row.what, fmt.Sprintf("%s (sha256 %.12s)", row.from, row.fromSum), to)
	}
	u.say("")
	u.Env.Upgrading = true
	e := engine.Engine{Steps: u.Steps(u.Env), Out: u.Out, Now: u.Env.Host.Now}
	_, err = e.Plan(ctx)
	if errors.Is(err, engine.ErrDiffers) {
		p.Differs = true
		return p, nil
	}
	return p, err
}

// installed looks at the machine.
func (u *Upgrade) installed(ctx context.Context) (Versions, error) {
	var v Versions
	h := u.Env.Host
	program := path.Join(machine.BinDir, machine.ProgramName)
	if _, err := h.Stat(program); errors.Is(err, fs.ErrNotExist) {
		return v, &fault.Error{Code: fault.Operator, Err: fmt.Errorf("nothing is installed here: %q is not there", program),
			Hint: "install first: strongroom-installer install --help"}
	}
	out, err := h.Run(ctx, host.Command{Args: []string{program, "--version"}})
	if err != nil {
		// A program that doesn't start is a reason to upgrade, not to refuse.
		v.Strongroom = "(does not start)"
	} else if f := strings.Fields(string(out.Stdout)); len(f) >= 2 {
		v.Strongroom = f[1]
	}
	if v.StrongroomSHA256, err = h.Sum(program); err != nil {
		return v, err
	}
	server, err := steps.ServerOf(ctx, h, u.Env.Config.Vault.Product, machine.VaultProgram)
	if err != nil {
		return v, err
	}
	v.Vault = server.Version
	if v.VaultSHA256, err = h.Sum(machine.VaultProgram); err != nil {
		return v, err
	}
	pinned, running, err := u.Vault.Mounted(ctx)
	if err != nil {
		return v, err
	}
	if v.Plugin = pinned; pinned == "" {
		v.Plugin = running
	}
	file := path.Join(machine.PluginDir, machine.PluginFile(strings.TrimPrefix(v.Plugin, "v")))
	v.PluginSHA256, err = h.Sum(file)
	return v, err
}

// possible refuses what an upgrade can't do.
func possible(from, to Versions) error {
	older := func(what, from, to string) error {
		a, errA := version.NewVersion(from)
		b, errB := version.NewVersion(to)
		if errA != nil || errB != nil || !b.LessThan(a) {
			return nil // what has no order is no downgrade
		}
		return &fault.Error{Code: fault.Usage, Err: fmt.Errorf("%s %s is installed, and %s is older", what, from, to),
			Hint: "a newer program's storage can't be read by an older one: install the older version on a new machine and restore a snapshot of its time"}
	}
	if err := errors.Join(older("plugin", from.Plugin, to.Plugin), older("Vault", from.Vault, to.Vault)); err != nil {
		return err
	}
	if from.Plugin == to.Plugin && from.PluginSHA256 != to.PluginSHA256 {
		return &fault.Error{Code: fault.Usage,
			Err:  fmt.Errorf("this installer carries another plugin of the same version %s: one file name can't hold both", to.Plugin),
			Hint: "build it with another VERSION"}
	}
	return nil
}

// spare is left over on the disk in any case, in bytes.
const spare = 256 << 20

// room refuses an upgrade that would fill the disk: the programs twice, the
// storage and its snapshot.
func (u *Upgrade) room(p Plan) error {
	need := uint64(spare)
	for _, f := range []string{path.Join(machine.BinDir, machine.ProgramName), machine.VaultProgram, machine.VaultProgram} {
		if info, err := u.Env.Host.Stat(f); err == nil {
			need += 2 * uint64(info.Size)
		}
	}
	size, err := host.TreeSize(u.Env.Host, machine.RaftDir)
	if err != nil {
		return err
	}
	need += 3 * size
	if err := u.Env.Host.Mkdir(Dir, host.Attr{Mode: 0o700}); err != nil {
		return err
	}
	for _, d := range []string{Dir, machine.LibDir} {
		_, free, err := u.Env.Host.Space(d)
		if err != nil {
			return err
		}
		if free < need {
			return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("%q has %d MiB free, and the upgrade with its way back needs %d", d, free>>20, need>>20),
				Hint: "make room; nothing has been changed"}
		}
	}
	return nil
}
