package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// firewall puts the rules in force, and takes them back by itself unless they
// are confirmed: a timer of systemd's, which outlives this program and its
// connection, is armed first.
type firewall struct{ *Env }

func (firewall) ID() string    { return "firewall" }
func (firewall) Title() string { return "firewall" }

const candidate = machine.NftablesCandidate

// undoPatience is how long taking rules back may last.
const undoPatience = 30 * time.Second

// Ports that the daemons may connect to: https for both; the databases that
// Vault makes users in; http for the certificate authority's OCSP and CRLs.
var (
	vaultOut = []int{443, 3306, 5432}
	frontOut = []int{80, 443}
)

func (s firewall) Check(ctx context.Context) (engine.Diff, error) {
	var c collect
	c.add(s.inForce(ctx))
	// Behind the rules: what did not prove itself is not kept.
	c.add(s.decided(true))
	return c.done()
}

func (s firewall) inForce(ctx context.Context) (engine.Diff, error) {
	if !s.Config.Firewall.Manage {
		return s.leave(ctx)
	}
	rules, err := s.rules()
	if errors.Is(err, host.ErrNotFound) {
		return engine.Diff{{What: machine.NftablesConf, To: "rules for both directions", Apply: func(context.Context) error { return err }}}, nil
	}
	if err != nil {
		return nil, err
	}
	u, err := s.Host.Unit(ctx, machine.UnitFirewall)
	if err != nil {
		return nil, err
	}
	diff, err := s.file(machine.NftablesConf, bytesSource(rules), root(0o644))
	if err != nil {
		return nil, err
	}
	for i := range diff {
		diff[i].To = fmt.Sprintf("rules for both directions; SSH at port %d from %v; taken back after %v unless confirmed",
			s.Config.Firewall.SSHPort, s.Config.Firewall.SSHFrom, s.Config.Firewall.ConfirmWithin)
		diff[i].Apply = func(ctx context.Context) error { return s.replace(ctx, rules) }
	}
	if len(diff) == 0 && u.Active == "active" {
		if diff, err = s.table(ctx); err != nil {
			return nil, err
		}
	}
	if u.Enabled != "enabled" {
		diff = append(diff, engine.Change{What: machine.UnitFirewall, From: u.Enabled, To: "enabled at boot",
			Apply: func(ctx context.Context) error { return s.Host.Enable(ctx, machine.UnitFirewall) }})
	}
	if u.Active != "active" {
		diff = append(diff, engine.Change{What: machine.UnitFirewall, From: u.Active, To: "started",
			Apply: func(ctx context.Context) error { return s.Host.Start(ctx, machine.UnitFirewall) }})
	}
	return diff, nil
}

// leave takes away what is in force of ours, where nftables is the operator's from now
// on: our rules would go on to refuse what his let in. The file goes with the leftovers.
func (s firewall) leave(ctx context.Context) (engine.Diff, error) {
	var diff engine.Diff
	u, err := s.Host.Unit(ctx, machine.UnitFirewall)
	if err != nil {
		return nil, err
	}
	if u.Active == "active" || u.Enabled == "enabled" {
		diff = append(diff, engine.Change{What: machine.UnitFirewall, From: u.Active + ", " + u.Enabled, To: "stopped and disabled: firewall.manage is false",
			Apply: func(ctx context.Context) error {
				if err := s.disarm(ctx); err != nil {
					return err
				}
				return s.Host.Retire(ctx, machine.UnitFirewall)
			}})
	}
	there, err := s.exists(machine.NftablesConf)
	if err != nil || !there && len(diff) == 0 {
		return diff, err // there never was anything of ours
	}
	_, err = s.Host.Run(ctx, host.Command{Args: []string{"nft", "list", "table", "inet", machine.FirewallTable}})
	var exit *host.ExitError
	if errors.As(err, &exit) || errors.Is(err, host.ErrNotFound) {
		return diff, nil // it isn't there
	}
	if err != nil {
		return nil, err
	}
	return append(diff, engine.Change{What: "table inet " + machine.FirewallTable, From: "in force", To: "removed: firewall.manage is false",
		Apply: func(ctx context.Context) error {
			_, err := s.Host.Run(ctx, host.Command{Args: []string{"nft", "list", "table", "inet", machine.FirewallTable}})
			if errors.As(err, &exit) {
				return nil // the unit's stop has taken it away
			}
			_, err = s.Host.Run(ctx, host.Command{Args: []string{"nft", "delete", "table", "inet", machine.FirewallTable}})
			return err
		}}), nil
}

// table wants the rules that were loaded to be there still: whatever flushes the
// whole ruleset takes ours with it, and the unit stays active.
func (s firewall) table(ctx context.Context) (engine.Diff, error) {
	_, err := s.Host.Run(ctx, host.Command{Args: []string{"nft", "list", "table", "inet", machine.FirewallTable}})
	var exit *host.ExitError
	if !errors.As(err, &exit) {
		return nil, err
	}
	return engine.Diff{{What: "table inet " + machine.FirewallTable, From: "flushed by somebody", To: "restarted",
		Apply: func(ctx context.Context) error {
			_, err := s.Host.Run(ctx, host.Command{Args: []string{"nft", "-f", machine.NftablesConf}})
			return err
		}}}, nil
}

func (s firewall) rules() ([]byte, error) {
	vault, err := s.Host.User(machine.UserVault)
	if err != nil {
		return nil, err
	}
	front, err := s.Host.User(machine.UserFront)
	if err != nil {
		return nil, err
	}
	p := config.FirewallParams{
		SSHPort: s.Config.Firewall.SSHPort, SSHFrom: s.Config.Firewall.SSHFrom,
		VaultPort: machine.VaultPort, ClusterPort: machine.ClusterPort,
		VaultUID: vault.UID, FrontUID: front.UID,
		VaultOut: append(slices.Clone(vaultOut), s.Config.Firewall.DatabasePorts...), FrontOut: append(slices.Clone(frontOut), s.Config.TLS.ACME.Ports()...),
	}
	if addr, err := netip.ParseAddrPort(s.Config.Node.ClusterListen); err == nil {
		p.ClusterPort = int(addr.Port())
	}
	for _, peer := range s.Config.Node.Peers {
		// Peers by name are let in by the operator's own rules: a name in a
		// rule would be looked up once and never again.
		if u, err := url.Parse(peer.APIAddr); err == nil {
			if _, err := netip.ParseAddr(u.Hostname()); err == nil {
				p.Peers = append(p.Peers, u.Hostname())
			}
		}
	}
	return config.RenderFirewall(p)
}

// replace loads rules. Until the rename at its end the file on disk, which the
// next boot loads, is the old one.
func (s firewall) replace(ctx context.Context, rules []byte) error {
	if err := s.Host.Write(candidate, bytes.NewReader(rules), root(0o644)); err != nil {
		return err
	}
	if _, err := s.Host.Run(ctx, host.Command{Args: []string{"nft", "-c", "-f", candidate}}); err != nil {
		return errors.Join(fmt.Errorf("nft refuses the rules: %w", err), s.Host.Remove(candidate))
	}
	restore := []string{"nft", "delete", "table", "inet", machine.FirewallTable}
	if _, err := s.Host.Stat(machine.NftablesConf); err == nil {
		restore = []string{"nft", "-f", machine.NftablesConf}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.disarm(ctx); err != nil {
		return err
	}
	within := s.Config.Firewall.ConfirmWithin
	arm := append([]string{"systemd-run", "--quiet", "--collect", "--unit=" + machine.UnitFirewallRollback,
		fmt.Sprintf("--on-active=%d", int(within/time.Second)), "--timer-property=AccuracySec=1s", "--"}, restore...)
	if _, err := s.Host.Run(ctx, host.Command{Args: arm}); err != nil {
		return fmt.Errorf("arm the rollback: %w", err)
	}
	if _, err := s.Host.Run(ctx, host.Command{Args: []string{"nft", "-f", candidate}}); err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
		defer cancel()
		return errors.Join(fmt.Errorf("load the rules: %w", err), s.disarm(back))
	}
	if err := s.Confirm(ctx, s.Config.Firewall, within); err != nil {
		// Also where the operator has stopped the run instead of answering.
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
		defer cancel()
		_, undo := s.Host.Run(back, host.Command{Args: restore})
		if undo != nil {
			// The timer is left, to try it again.
			return operator("wait until the timer has taken them back, then look with: nft list ruleset",
				"the new firewall rules could not be taken back: %w", errors.Join(err, undo))
		}
		return operator("correct [firewall] in the configuration, then run the same command again",
			"the new firewall rules are taken back: %w", errors.Join(err, s.disarm(back)))
	}
	// They are proven: an interrupt comes too late.
	ctx = context.WithoutCancel(ctx)
	// The timer and the candidate go before the commit point: a kill in between
	// loads the rules once more at the next run.
	if err := errors.Join(s.disarm(ctx), s.Host.Remove(candidate)); err != nil {
		return err
	}
	// Commit point: from here on the rules outlive a boot.
	return s.Host.Write(machine.NftablesConf, bytes.NewReader(rules), root(0o644))
}

// disarm stops the rollback, if it is armed.
func (s firewall) disarm(ctx context.Context) error {
	u, err := s.Host.Unit(ctx, machine.UnitFirewallRollback+".timer")
	if err != nil || u.Load != "loaded" {
		return err
	}
	return s.Host.Stop(ctx, machine.UnitFirewallRollback+".timer")
}
