package steps

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// Ctrl-C in place of an answer takes the rules back at once.
func TestFirewallStoppedAtTheQuestion(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	ctx, stop := context.WithCancel(t.Context())
	var inForce string
	e.Confirm = func(ctx context.Context, _ config.Firewall, _ time.Duration) error {
		inForce = v.nft
		stop()
		return ctx.Err()
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if inForce == "" || v.nft != "" {
		t.Error("the rules were not in force, or were not taken back")
	}
	if u := v.Units[machine.UnitFirewallRollback+".timer"]; u != nil && u.Active == "active" {
		t.Error("the rollback is still armed")
	}
}

// Rules that can't be taken back leave the timer armed.
func TestFirewallUndoFails(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		v.Commands["nft"] = func(host.Command, []byte) (host.Output, error) { return host.Output{}, errors.New("busy") }
		return errors.New("no")
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err == nil {
		t.Error("no error")
	}
	if u := v.Units[machine.UnitFirewallRollback+".timer"]; u == nil || u.Active != "active" {
		t.Error("nothing takes the rules back any more")
	}
}

func TestFirewallNotConfirmed(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	var inForce string
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		inForce = v.nft
		if v.Units[machine.UnitFirewallRollback+".timer"].Active != "active" {
			t.Error("the rollback isn't armed while the rules wait for their confirmation")
		}
		return errors.New("no answer within 2m")
	}
	var out bytes.Buffer
	_, err := v.engine(e, &out).Install(t.Context())
	var ee *fault.Error
	if !errors.As(err, &ee) || ee.Code != fault.Operator || !strings.Contains(err.Error(), "no answer within 2m") {
		t.Errorf("error = %v", err)
	}
	if inForce == "" || v.nft != "" {
		t.Error("the rules were not in force, or were not taken back")
	}
	if _, ok := v.Files[machine.NftablesConf]; ok {
		t.Error("rules that were not confirmed will be loaded at the next boot")
	}
	// Later ones that aren't confirmed fall back to the old ones.
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error { return nil }
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := v.nft
	e.Config.Firewall.SSHPort = 2222
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error { return errors.New("no") }
	if _, err := v.engine(e, &out).Install(t.Context()); err == nil {
		t.Error("no error")
	}
	if v.nft != old || string(v.Files[machine.NftablesConf].Data) != old {
		t.Error("the old rules are not back")
	}
}

func TestFirewallLetsVaultReachDatabases(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.Config.Firewall.DatabasePorts = []int{25060, 5432}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules, err := (firewall{e}).rules(); err != nil || !bytes.Contains(rules, []byte("{ 443, 3306, 5432, 25060 }")) {
		t.Errorf("%v, the rules:\n%s", err, rules)
	}
}

// TestFirewallFlushed is about what `nft flush ruleset` does, as nftables.service
// begins.
func TestFirewallFlushed(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff, err := (firewall{v.env()}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("diff = %v, %v", diff, err)
	}
	old := v.nft
	v.nft = ""
	e := v.env()
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		return errors.New("nobody is to be asked")
	}
	diff, err := firewall{e}.Check(t.Context())
	if err != nil || len(diff) != 1 || diff[0].What != "table inet strongroom" || diff[0].To != "restarted" {
		t.Fatalf("diff = %v, %v", diff, err)
	}
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v.nft != old || old == "" {
		t.Error("the rules are not back")
	}
}

// nftables.service, started by hand, flushes all tables: it is told to have ours
// loaded again, as long as they are the installer's affair.
func TestFirewallAfterNftables(t *testing.T) {
	v := newVPS(t)
	file := machine.DropInPath(machine.UnitNftables, "strongroom")
	for _, managed := range []bool{true, false, true} {
		e := v.env()
		e.Config.Firewall.Manage = managed
		var out bytes.Buffer
		if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there := v.Files[file] != nil; there != managed {
			t.Fatalf("managed %t, drop-in %t", managed, there)
		}
	}
	if text := string(v.Files[file].Data); !strings.Contains(text, "\nExecStartPost=-/bin/sh -c 'systemctl --quiet is-enabled strongroom-firewall.service && systemctl --no-block reload-or-restart strongroom-firewall.service'\n") {
		t.Errorf("drop-in: %q", text)
	}
}

func TestFirewallUnmanaged(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.Config.Firewall.Manage = false
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v.nft != "" || v.Files[machine.NftablesConf] != nil {
		t.Error("rules were loaded")
	}
}

// Rules that were taken back are not in the configuration that is kept: the next run
// without flags, which the doctor advises, would lock out.
func TestRefusedRulesAreNotKept(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := v.env()
	e.Config.Firewall.SSHPort, e.Config.Vault.LogLevel = 2222, "warn"
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		return errors.New("nobody answers at 2222")
	}
	if _, err := v.engine(e, &out).Install(t.Context()); err == nil {
		t.Fatal("it went through")
	}
	kept := func() config.Appliance {
		t.Helper()
		c, err := config.Parse(machine.ConfigFile, v.Files[machine.ConfigFile].Data)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := kept(); c.Firewall.SSHPort != 22 || c.Vault.LogLevel != "warn" {
		t.Errorf("kept are port %d and log level %q", c.Firewall.SSHPort, c.Vault.LogLevel)
	}
	e = v.env()
	e.Config = kept()
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		return errors.New("there is nothing to confirm")
	}
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Errorf("the run that the doctor advises: %v", err)
	}
	e = v.env()
	e.Config.Firewall.SSHPort = 2222
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil || kept().Firewall.SSHPort != 2222 {
		t.Errorf("proven, and kept is %d; %v", kept().Firewall.SSHPort, err)
	}
}
