package steps_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
	"strongroom.example/installer/uninstall"
)

// What a step has made goes again: after install and purge, the machine is as it was.
func TestPurgeTakesBackEachStep(t *testing.T) {
	m, cfg, fresh, state := steps.Installed(t)
	m.Commands["userdel"] = func(c host.Command, _ []byte) (host.Output, error) {
		delete(m.Users, c.Args[1])
		return host.Output{}, nil
	}
	var out bytes.Buffer
	u := &uninstall.Uninstall{Host: m.Host(), Config: cfg, Purge: true, Out: &out}
	if err := u.Plan(); err != nil {
		t.Fatal(err)
	}
	if err := u.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	// The kernel's until the next boot, and a clock that is right harms nobody.
	stays := []string{"/proc/swaps", "/proc/sys/fs/suid_dumpable", "unit systemd-timesyncd.service"}
	after := state()
	for what, now := range after {
		before, was := fresh[what]
		switch {
		case slices.Contains(stays, what), strings.HasPrefix(what, "unit ") && strings.HasSuffix(now, " inactive disabled"):
		case !was:
			t.Errorf("%s is left: %.100s", what, now)
		case now != before:
			t.Errorf("%s is %.200s, and was %.200s", what, now, before)
		}
	}
	for what := range fresh {
		if _, there := after[what]; !there {
			t.Errorf("%s is gone", what)
		}
	}
}
