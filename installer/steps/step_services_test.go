package steps

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/payload"
	"strongroom.example/systemd"
)

func TestRestartAfterChange(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := map[string]time.Time{}
	for _, name := range (services{v.env()}).running() {
		since[name] = v.Units[name].Since
	}
	e := v.env()
	e.Config.Vault.LogLevel = "debug"
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range (services{v.env()}).running() {
		restarted := v.Units[name].Since.After(since[name])
		if restarted != (name == machine.UnitVault) {
			t.Errorf("%s: restarted = %v after a change of Vault's configuration", name, restarted)
		}
	}
}

// The front holds its sockets' descriptors: it is stopped before one of them is
// put right, and the same run starts it again.
func TestSocketRestartedWithItsService(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	front := v.Units[machine.UnitFront]
	since := front.Since
	var down bool
	v.OnStart[machine.UnitFrontHTTPS] = func() error { down = front.Active != "active"; return nil }
	v.Clock = v.Clock.Add(time.Second)
	v.Files[machine.UnitDir+"/"+machine.UnitFrontHTTPS].Data = []byte("[Socket]\n")
	delete(v.Files, machine.StartedFile)
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !down {
		t.Error("the socket was restarted under its running service")
	}
	if front.Active != "active" || !front.Since.After(since) {
		t.Errorf("the front: %+v, before it ran since %v", *front, since)
	}
}

// The unit of an earlier version is stopped and not started again at boot before its
// file goes, and only once systemd has read units that do not require it.
func TestFormerUnitsGo(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range machine.FormerUnits() {
		file := machine.UnitDir + "/" + name
		v.Files[file] = &host.Node{Data: []byte("[Socket]\nListenDatagram=443\n"), Info: host.Info{Attr: root(0o644)}}
		v.Units[name] = &host.Unit{Load: "loaded", Active: "active", Enabled: "enabled"}
		old := v.Files[machine.UnitDir+"/"+machine.UnitFront]
		old.Data = append(old.Data, "\nRequires="+name+"\n"...)
		diff, err := unitFiles{v.env()}.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := func(what string) int {
			return slices.IndexFunc(diff, func(c engine.Change) bool { return c.What == what })
		}
		if front, gone := at(machine.UnitDir+"/"+machine.UnitFront), at(name); front < 0 || at("systemd") < front || gone < at("systemd") {
			t.Errorf("changes in the order %+v", diff)
		}
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if u := v.Units[name]; u.Active != "inactive" || u.Enabled != "disabled" {
			t.Errorf("%s: %+v", name, *u)
		}
		if _, there := v.Files[file]; there {
			t.Errorf("%s is still there", file)
		}
	}
}

// What does not start is named, with where to look.
func TestServiceDoesNotStart(t *testing.T) {
	v := newVPS(t)
	v.OnStart[machine.UnitVault] = func() error { return errors.New("status=1/FAILURE") }
	var out bytes.Buffer
	_, err := v.engine(v.env(), &out).Install(t.Context())
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != fault.Failed || !strings.Contains(e.Hint, "journalctl -u "+machine.UnitVault) ||
		!strings.Contains(err.Error(), "status=1/FAILURE") {
		t.Errorf("error = %v", err)
	}
	if u := v.Units[machine.UnitFront]; u != nil && u.Active == "active" {
		t.Error("the front runs without a Vault behind it")
	}
}

// A daemon has read the files of its start, whatever their times say: one that is dated in
// the future restarts nothing twice, and one that was put there with an old date does once.
func TestTimesDoNotDecide(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	install := func() {
		t.Helper()
		out.Reset()
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	install()
	since := func() time.Time { return v.Units[machine.UnitVault].Since }
	first := since()
	v.Files[machine.VaultProgram].ModTime = v.Clock.AddDate(4, 0, 0)
	install()
	if !since().Equal(first) {
		t.Errorf("a date in the future has restarted Vault:\n%s", out.String())
	}
	// systemd has started it since, a boot say: what it has read is as it was.
	v.Units[machine.UnitVault].Invocation = "another"
	install()
	if !since().Equal(first) {
		t.Errorf("a date in the future has restarted Vault after a boot:\n%s", out.String())
	}
	// Nothing is known of its start: it is restarted once.
	delete(v.Files, machine.StartedFile)
	install()
	second := since()
	if second.Equal(first) {
		t.Error("nobody knows what Vault has read, and it was not restarted")
	}
	install()
	if !since().Equal(second) {
		t.Errorf("Vault was restarted once more:\n%s", out.String())
	}
	old := v.Files[machine.EpochFile]
	v.Files[machine.EpochFile] = &host.Node{Info: host.Info{Attr: old.Attr, ModTime: v.Clock.AddDate(-1, 0, 0)}, Data: []byte(`{"installation_id":"0123456789abcdef","epoch":7}`)}
	install()
	if since().Equal(second) {
		t.Error("a file with an old date was put under Vault, and it was not restarted")
	}
}

// Plan tells of each restart that install makes, and of no other.
func TestPlanShowsRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*vps, *Env)
		want   []string
	}{
		"log level": {func(_ *vps, e *Env) { e.Config.Vault.LogLevel = "warn" }, []string{machine.UnitVault}},
		"domain":    {func(_ *vps, e *Env) { e.Config.Domain = "other.example.com" }, []string{machine.UnitVault, machine.UnitFront}},
		"a new appliance": {func(_ *vps, e *Env) {
			e.Payload = payload.New(fstest.MapFS{"bin/strongroom": {Data: []byte("another")}, "bin/vault-plugin-secrets-apikeys": {Data: []byte("the plugin")}})
		}, []string{machine.UnitKMS, machine.UnitFront, machine.UnitMetrics}},
		"a unit": {func(v *vps, _ *Env) {
			v.Files[machine.UnitDir+"/"+machine.UnitKMS].Data = []byte("[Service]\n")
			delete(v.Files, machine.StartedFile) // an earlier version's notes
		}, []string{machine.UnitKMS}},
		"a certificate of one's own": {func(v *vps, e *Env) { ownCertificate("vault.example.com", time.Hour)(v, e) }, []string{machine.UnitFront}},
		"certificates of the link":   {func(v *vps, _ *Env) { delete(v.Files, machine.TLSDir+"/"+machine.CredCA) }, []string{machine.UnitVault, machine.UnitFront}},
		"nothing":                    {func(*vps, *Env) {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			var out bytes.Buffer
			if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.Units[machine.UnitMetrics].Active, v.Units[machine.UnitMetrics].Since = "active", v.Clock
			since := map[string]time.Time{}
			for _, u := range systemd.Daemons() {
				since[u] = v.Units[u].Since
			}
			e := v.env()
			c.change(v, e)
			out.Reset()
			if _, err := v.engine(e, &out).Plan(t.Context()); err != nil && !errors.Is(err, engine.ErrDiffers) {
				t.Fatal(err)
			}
			var told, made []string
			for _, u := range systemd.Daemons() {
				if regexp.MustCompile(`(?m)^    ~ ` + regexp.QuoteMeta(u) + `: has not read .* → restarted$`).MatchString(out.String()) {
					told = append(told, u)
				}
			}
			plan := out.String()
			e = v.env()
			c.change(v, e)
			if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, u := range systemd.Daemons() {
				if !v.Units[u].Since.Equal(since[u]) {
					made = append(made, u)
				}
			}
			if !slices.Equal(told, c.want) || !slices.Equal(made, c.want) {
				t.Errorf("told %q, made %q, want %q\n%s", told, made, c.want, plan)
			}
		})
	}
}

// Ctrl-C, SIGTERM or a lost connection at any change of a machine that is in use: what ran
// before runs afterwards, the operator is told to run the same command again, and that
// ends as an undisturbed run.
func TestInterruptedAnywhere(t *testing.T) {
	changed := func(v *vps) *Env {
		e := v.env()
		e.Config.Vault.LogLevel, e.Config.Domain, e.Config.Firewall.SSHPort = "warn", "other.example.com", 2222
		return e
	}
	prepare := func() *vps {
		v := newVPS(t)
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Of an earlier version: a socket of the front's, and the KMS.
		for _, name := range []string{machine.UnitFrontHTTPS, machine.UnitKMS} {
			v.Files[machine.UnitDir+"/"+name].Data = append(v.Files[machine.UnitDir+"/"+name].Data, "# earlier\n"...)
		}
		delete(v.Files, machine.StartedFile)
		return v
	}
	whole := prepare()
	before := whole.Actions
	var out bytes.Buffer
	if _, err := whole.engine(changed(whole), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := whole.state()
	total := whole.Actions - before
	stopped := 0
	for n := 1; n <= total; n++ {
		v := prepare()
		ctx, interrupt := context.WithCancel(t.Context())
		v.FailAt, v.Strike = v.Actions+n, interrupt
		_, err := v.engine(changed(v), &out).Install(ctx)
		interrupt()
		for _, name := range (services{v.env()}).running() {
			if u := v.Units[name]; u.Active != "active" {
				t.Errorf("interrupted at action %d: %s is %s", n, name, u.Active)
			}
		}
		if u := v.Units[machine.UnitFirewallRollback+".timer"]; u.Active == "active" {
			t.Errorf("interrupted at action %d: the rules will be taken back by a timer", n)
		}
		if v.nft == "" {
			t.Errorf("interrupted at action %d: no rules are in force", n)
		}
		if err != nil {
			stopped++
			var fe *fault.Error
			if !errors.As(err, &fe) || !strings.Contains(fe.Hint, "run the same command again") {
				t.Errorf("interrupted at action %d: the operator is told %v", n, err)
			}
		}
		v.Strike = nil
		if _, err := v.engine(changed(v), &out).Install(t.Context()); err != nil {
			t.Errorf("interrupted at action %d: the same command again: %v", n, err)
		}
		for k, is := range v.state() {
			if want[k] != is {
				t.Errorf("interrupted at action %d: %s is %.100s, want %.100s", n, k, is, want[k])
			}
		}
	}
	t.Logf("%d interrupts, %d of which stopped the run", total, stopped)
	if stopped < total/2 {
		t.Errorf("of %d interrupts only %d stopped the run", total, stopped)
	}
}
