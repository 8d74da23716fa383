package apps

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// Options of a run.
type Options struct {
	Config config.Apps
	Vault  Vault
	// Product is whose server it is; empty is Vault.
	Product config.Product
	// Adopt are ids of objects ("approle/bike-data-flow-production") that
	// exist, belong to nobody, and shall belong to the manifest. From is a manifest
	// that hands over what it owns of them.
	Adopt []string
	From  string
	// ResendSecrets sends the passwords of connections and auth methods again; Resend
	// names some, by their ids ("database/bikes").
	ResendSecrets bool
	Resend        []string
	// Reset writes the defaults over what a version before has left alone.
	Reset bool
	// SplitGroups parts schemas whose groups of PostgreSQL have one name.
	SplitGroups bool
	// Digest is of the only plan that is applied; empty: whatever it is.
	Digest string
	// Out gets the plan before anything is changed, then one line per change.
	Out io.Writer
	// Reveal is handed what must be given to people: a new person's password,
	// wrapped. Nil: such a person is not made.
	Reveal func(name string, w Wrapped)
	// SnapshotSoon asks for a snapshot: before and after Vault becomes the only one who
	// knows a database's password. May be nil.
	SnapshotSoon func()
	// Random is crypto/rand's Reader unless set; ReadFile reads a
	// whole file, of at most atomicfile.MaxSmall bytes.
	Random   io.Reader
	ReadFile func(string) ([]byte, error)
}

func readSmall(file string) ([]byte, error) { return atomicfile.ReadSmall(file, atomicfile.MaxSmall) }

// readCA reads an authority's file. An empty one is a fault: it would be taken for
// none, and every authority of the system be believed.
func (w *world) readCA(file string) (string, error) {
	pem, err := w.readFile(file)
	if err == nil && strings.TrimSpace(string(pem)) == "" {
		err = fmt.Errorf("%q is empty", file)
	}
	return string(pem), err
}

// parallel is how many requests are under way at once: enough to hide the way
// to a distant Vault, too few to trouble it.
const parallel = 16

// world is what a plan has seen.
type world struct {
	conf     config.Apps
	vault    Vault
	product  config.Product
	random   io.Reader
	readFile func(string) ([]byte, error)

	ledger      *ledger
	accessors   map[string]string // of auth methods, by path
	mounts      map[string]string // path → type
	auths       map[string]string
	keyDefaults map[string]any // nil: may not be read
	providers   []string       // nil: may not be read

	targets []config.Target
	db      databases
	groups  map[pair]groupNames
	shared  map[pair]string // what is wrong with a schema's groups
	limits  limits
	enters  entering // what this run finds out, for the ledger
	notes   []string

	reading sync.Mutex
	seen    map[string]map[string]any
}

// read is Vault's Read, once for each path.
func (w *world) read(ctx context.Context, path string) (map[string]any, error) {
	w.reading.Lock()
	got, known := w.seen[path]
	w.reading.Unlock()
	if known {
		return got, nil
	}
	got, err := w.vault.Read(ctx, path)
	if err == nil {
		w.reading.Lock()
		w.seen[path] = got
		w.reading.Unlock()
	}
	return got, err
}

func look(ctx context.Context, o Options) (*world, error) {
	w := &world{
		conf: o.Config, vault: o.Vault, product: o.Product, random: o.Random, readFile: o.ReadFile,
		accessors: map[string]string{}, mounts: map[string]string{}, auths: map[string]string{},
		targets: o.Config.Targets(), enters: entering{}, seen: map[string]map[string]any{},
	}
	if w.random == nil {
		w.random = defaultRandom
	}
	if w.readFile == nil {
		w.readFile = readSmall
	}
	for path, into := range map[string]map[string]string{"sys/mounts": w.mounts, "sys/auth": w.auths} {
		got, err := w.vault.Read(ctx, path)
		if err != nil {
			return nil, err
		}
		for mount, v := range got {
			// A mount of no kind is not none: the plan would make it anew.
			m, ok := v.(map[string]any)
			kind := text(m, "type")
			if !ok || kind == "" {
				return nil, fmt.Errorf("read %s: the answer says no type of %q", path, mount)
			}
			mount = strings.TrimSuffix(mount, "/")
			into[mount] = kind
			if path == "sys/auth" {
				w.accessors[mount] = text(m, "accessor")
			}
		}
	}
	w.ledger = &ledger{parts: map[string]int{}, entries: map[string]entry{}, old: map[string]oldLedger{}}
	if w.mounts[machine.MountKV] != "" {
		l, err := readLedger(ctx, w.vault, w.conf.Manifest)
		if err != nil {
			return nil, err
		}
		w.ledger = l
	}
	if err := w.lookAtDatabases(ctx); err != nil {
		return nil, err
	}
	w.nameGroups(o.SplitGroups)
	if err := w.lookAtLimits(ctx); err != nil {
		return nil, err
	}
	return w, w.lookAtKeys(ctx)
}

// lookAtKeys reads what the plan of API keys needs. Who may not read it still
// gets a plan: then the mount's defaults are not compared.
func (w *world) lookAtKeys(ctx context.Context) error {
	uses := slices.ContainsFunc(w.targets, func(t config.Target) bool { return len(t.Keys) > 0 })
	if !uses || w.mounts[machine.MountKeys] == "" {
		return nil
	}
	defaults, err := w.vault.Read(ctx, "apikeys/config")
	if err != nil && !vaultapi.IsDenied(err) {
		return err
	}
	w.keyDefaults = defaults
	providers, err := w.vault.List(ctx, "apikeys/providers")
	if err != nil && !vaultapi.IsDenied(err) {
		return err
	}
	if err == nil {
		w.providers = append([]string{}, providers...)
	}
	return nil
}

// noLDAP is for who wants what OpenBao has taken out of its server.
const noLDAP = "OpenBao has no ldap since 2.7: let people log in by oidc or userpass, or register its ldap plugin and mount that here, which is then used"

// mountsNeeded are the engines and auth methods without which nothing else can
// be made.
func (w *world) mountsNeeded() []Change {
	var out []Change
	engine := func(path, kind string, needed bool) {
		switch have := w.mounts[path]; {
		case !needed || have == kind:
		case have == "" && kind != machine.PluginName:
			out = append(out, Change{Kind: kindMount, Name: path, Action: Create, Note: w.limits.note(path), object: object{
				kind: kindMount, name: path, path: "sys/mounts/" + path, write: w.limits.mount(path, mountInput(kind)),
			}})
		case have == "":
			out = append(out, Change{Kind: kindMount, Name: path, Action: Blocked, Note: "the engine for API keys isn't mounted: the installer does that"})
		default:
			out = append(out, Change{Kind: kindMount, Name: path, Action: Blocked, Note: fmt.Sprintf("is of type %q, not %q", have, kind)})
		}
	}
	auth := func(path, kind string, needed bool) {
		switch have := w.auths[path]; {
		case !needed || have == kind || kind == "oidc" && have == "jwt":
		case have == "" && kind == config.AuthLDAP && w.product == config.ProductOpenBao:
			out = append(out, Change{Kind: kindMount, Name: "auth/" + path, Action: Blocked, Note: noLDAP})
		case have == "":
			out = append(out, Change{Kind: kindMount, Name: "auth/" + path, Action: Create, Note: w.limits.note("auth/" + path), object: object{
				kind: kindMount, name: "auth/" + path, path: "sys/auth/" + path,
				write: w.limits.mount("auth/"+path, map[string]any{"type": kind, "description": "strongroom manifest=" + w.conf.Manifest}),
			}})
		default:
			out = append(out, Change{Kind: kindMount, Name: "auth/" + path, Action: Blocked, Note: fmt.Sprintf("is of type %q, not %q", have, kind)})
		}
	}
	targets := w.targets
	engine(machine.MountKV, "kv", true)
	engine(machine.MountKeys, machine.PluginName, slices.ContainsFunc(targets, func(t config.Target) bool { return len(t.Keys) > 0 }))
	engine(machine.MountDatabase, "database", len(w.conf.Databases) > 0)
	auth(machine.AuthAppRole, "approle", len(targets) > 0)
	for _, a := range w.conf.Auth {
		auth(a.MountPath(), a.Type, true)
	}
	return out
}

func mountInput(kind string) map[string]any {
	in := map[string]any{"type": kind}
	if kind == "kv" {
		in["options"] = map[string]any{"version": "2"}
	}
	return in
}

// each runs f for 0…n-1, some at once, and returns the first error, after
// which no new one is begun.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(parallel, n) {
		wg.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case <-ctx.Done():
			break feed
		case next <- i:
		}
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func asInt(v any) int {
	if n, ok := v.(json.Number); ok {
		i, err := n.Int64()
		if err == nil {
			return int(i)
		}
	}
	return 0
}
