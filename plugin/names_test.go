package apikeys

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

// A person who finds a key in a service's console can tell whose it is: by its name
// alone, and where only the identity fits, by what keys/NAME and status say.
func TestNamesCanBeTraced(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("app/production/billing", nil)
	w.write("rotate/app/production/billing", nil)
	mount := fmt.Sprint(w.read("status", nil)["mount"])
	begin := fmt.Sprint(w.read("keys/app/production/billing", nil)["name_prefix"])
	for id, version := range map[string]string{"id-1": "1", "id-2": "2"} {
		name := w.remote.keys[id].name
		if !strings.HasPrefix(name, begin) || !strings.HasPrefix(name, "sr-"+mount+"-") || !strings.HasSuffix(name, "-production-billing") {
			t.Errorf("%s does not say whose it is: mount %s, key %s", name, mount, begin)
		}
		if got, err := lifecycle.ParseMintName(name); err != nil || fmt.Sprint(got.Version) != version {
			t.Errorf("%s is of version %s: %v", name, version, err)
		}
	}
	if got := w.read("keys/app/production/billing", nil)["name_prefix"]; got != begin {
		t.Error("it changes")
	}
	w.localKey("l", nil)
	if _, ok := w.read("keys/l", nil)["name_prefix"]; ok {
		t.Error("what Vault makes is listed nowhere")
	}
}

// Names of before, without a label, and names whose label the service has cut off or
// left out, are ours as ever: of versions, of what a crash and of what a proxy left.
func TestNamesOfBeforeAndCutLabels(t *testing.T) {
	for how, change := range map[string]func(string) string{
		"before":    lifecycle.WithoutLabel,
		"cut":       func(name string) string { return name[:len(name)-3] },
		"cut to 50": func(name string) string { return name[:min(50, len(name))] },
		"whole":     func(name string) string { return name },
	} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("app/production/billing", nil)
			first := w.remote.keys["id-1"]
			first.name = change(first.name)
			// An answer is lost.
			w.remote.setFault(func(op string, after bool) error {
				if op == "create" && after {
					return errCrash
				}
				return nil
			})
			_, _ = w.do(opWrite, "rotate/app/production/billing", nil)
			w.remote.setFault(nil)
			lost := w.remote.keys["id-2"]
			lost.name = change(lost.name)
			w.pass(10 * time.Minute)
			if lost.alive || !first.alive {
				t.Fatalf("the lost key %s lives: %v; version 1 lives: %v", lost.name, lost.alive, first.alive)
			}
			// A proxy has sent a create twice.
			w.remote.keys["twin"] = &serviceKey{id: "twin", name: first.name, value: "twin", alive: true}
			for range 3 {
				w.pass(day)
			}
			if w.remote.keys["twin"].alive || !first.alive {
				t.Errorf("the twin lives: %v; version 1 lives: %v", w.remote.keys["twin"].alive, first.alive)
			}
		})
	}
}

// The label says nothing of whose a key is: what somebody else calls like ours stays.
func TestLabelsAreNoReasonToEndAKey(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("app/production/billing", nil)
	name := w.remote.keys["id-1"].name
	bare := lifecycle.WithoutLabel(name)
	foreign := map[string]string{
		"our label":            "theirs-production-billing",
		"our label and form":   "sr-01234567-0123456789ab-local-1-abcdef-production-billing",
		"our mount":            bare[:len("sr-MMMMMMMM")] + "-0123456789ab-local-1-abcdef-production-billing",
		"a copy in a console":  name + "-copy",
		"a copy with a number": name + "2",
		"a copy of the old":    bare + "-copy",
		"another label":        bare + "-production-mail",
		"one to come":          lifecycle.MintName{Mount: bare[3:11], Key: bare[12:24], Installation: "local", Version: 9, Attempt: "abcdef", Label: "production-billing"}.String(),
	}
	for id, n := range foreign {
		w.remote.keys[id] = &serviceKey{id: id, name: n, value: id, alive: true}
	}
	w.write("rotate/app/production/billing", nil)
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" && after {
			return errCrash
		}
		return nil
	})
	_, _ = w.do(opWrite, "rotate/app/production/billing", nil)
	w.remote.setFault(nil)
	for range 4 {
		w.pass(day)
	}
	_, _ = w.do(logical.DeleteOperation, "keys/app/production/billing", map[string]any{"revoke_now": true})
	w.pass(day)
	for id := range foreign {
		if !w.remote.keys[id].alive {
			t.Errorf("%s (%s) was ended", id, w.remote.keys[id].name)
		}
	}
	for id, k := range w.remote.keys {
		if foreign[id] == "" && k.alive {
			t.Errorf("%s (%s) lives on", id, k.name)
		}
	}
}
