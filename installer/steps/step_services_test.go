package steps

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

func TestRestartAfterChange(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := map[string]time.Time{}
	for _, svc := range (services{v.env()}).running() {
		since[svc.name] = v.Units[svc.name].Since
	}
	e := v.env()
	e.Config.Vault.LogLevel = "debug"
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, svc := range (services{v.env()}).running() {
		restarted := v.Units[svc.name].Since.After(since[svc.name])
		if restarted != (svc.name == machine.UnitVault) {
			t.Errorf("%s: restarted = %v after a change of Vault's configuration", svc.name, restarted)
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
	v.Files[machine.UnitDir+"/"+machine.UnitFrontHTTPS].ModTime = v.Clock
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
