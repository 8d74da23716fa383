package apps

import (
	"context"
	"fmt"
	"maps"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// limits are how long the mounts let live what they give. Vault shortens what is
// longer without a word: each promise of the file is held against them.
type limits struct {
	promised map[string]time.Duration // by mount: the longest that the file promises of it
	granted  map[string]time.Duration // what there is; a mount that is not there yet has the server's own
	server   time.Duration            // 0: not known
}

// promises of the file, by mount.
func (w *world) promises() map[string]time.Duration {
	out := map[string]time.Duration{}
	promise := func(mount string, lives ...time.Duration) {
		for _, d := range lives {
			out[mount] = max(out[mount], d)
		}
	}
	for _, t := range w.targets {
		promise("auth/"+machine.AuthAppRole, t.Login.TokenTTL, t.Login.TokenMaxTTL, t.Login.SecretIDTTL)
		for _, r := range t.Databases {
			promise(machine.MountDatabase, r.TTL, r.MaxTTL)
		}
	}
	for _, a := range w.conf.Auth {
		promise("auth/"+a.MountPath(), a.TokenTTL, a.TokenMaxTTL)
	}
	return out
}

// tune is where a mount's limits are read and written without sudo, auth methods'
// too: https://developer.hashicorp.com/vault/api-docs/system/auth#tune-auth-method
func tune(mount string) string { return "sys/mounts/" + mount + "/tune" }

func (w *world) lookAtLimits(ctx context.Context) error {
	w.limits = limits{promised: w.promises(), granted: map[string]time.Duration{}}
	limit := func(mount string) (time.Duration, error) {
		got, err := w.read(ctx, tune(mount))
		if vaultapi.IsDenied(err) {
			return 0, nil
		}
		return time.Duration(asInt(got["max_lease_ttl"])) * time.Second, err
	}
	if len(w.limits.promised) == 0 {
		return nil
	}
	var err error
	if w.limits.server, err = limit("auth/token"); err != nil {
		return err
	}
	for _, mount := range sortedKeys(w.limits.promised) {
		if !w.mounted(mount) {
			continue
		}
		got, err := limit(mount)
		if err != nil {
			return err
		}
		if got == 0 && w.limits.promised[mount] > 0 {
			w.notes = append(w.notes, fmt.Sprintf("whether %s keeps %v can't be seen: reading %s is not allowed", mount, w.limits.promised[mount], tune(mount)))
		}
		w.limits.granted[mount] = got
	}
	return nil
}

func (w *world) mounted(mount string) bool {
	if mount == machine.MountDatabase {
		return w.mounts[mount] != ""
	}
	return w.auths[mount[len("auth/"):]] != ""
}

// raise are the limits that are too short for what the file promises.
func (w *world) raise() []object {
	var out []object
	for _, mount := range sortedKeys(w.limits.granted) {
		if got, want := w.limits.granted[mount], w.limits.promised[mount]; got > 0 && got < want {
			out = append(out, object{
				kind: kindLimit, name: mount, path: tune(mount), shared: true,
				want:  map[string]any{"max_lease_ttl": want},
				write: map[string]any{"max_lease_ttl": seconds(want)},
			})
		}
	}
	return out
}

// mount lays the limit that a new mount needs over its input.
func (l limits) mount(mount string, input map[string]any) map[string]any {
	if l.server == 0 || l.promised[mount] <= l.server {
		return input
	}
	out := maps.Clone(input)
	out["config"] = map[string]any{"max_lease_ttl": seconds(l.promised[mount])}
	return out
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", d/time.Second) }

func (l limits) note(mount string) string {
	if l.server == 0 || l.promised[mount] <= l.server {
		return ""
	}
	return fmt.Sprintf("what it gives may live for %v, longer than the server's %v", l.promised[mount], l.server)
}
