package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/payload"
	"strongroom.example/installer/steps"
	"strongroom.example/systemd"
)

// world is an installed machine in memory whose programs are their own
// descriptions, and whose Vault keeps its state in the storage folder. A newer
// Vault changes its storage so that an older one can't read it, and so does a
// newer plugin with the engine's.
type world struct {
	*host.Memory
	// mutations counts what changes anything; strike is the one at which fate
	// comes, from 1.
	mutations, strike int
	fate              func() error
	// running is what Vault and the engine run; "" when down.
	running, engine string
	rehearsed       int
	rename          error // of each move
	// lax: an older plugin takes what a newer one has written for its own, and drops
	// what it does not know, as 0.1 does.
	lax bool
	// meanwhile is what clients write while a rehearsal runs.
	meanwhile func()
}

// killed is what a process that is no more panics with.
type killed struct{}

func (w *world) mutate() error {
	w.mutations++
	if w.mutations == w.strike && w.fate != nil {
		return w.fate()
	}
	return nil
}

// storage is the content of the fake Vault's storage.
type storage struct {
	Format string `json:"format"` // the Vault that has written it
	Engine string `json:"engine"` // the plugin that has written it
	// WrittenBy are the plugins that have written it since the beginning.
	WrittenBy []string                  `json:"written_by,omitempty"`
	Index     uint64                    `json:"index"`
	Pinned    string                    `json:"pinned"`
	Catalog   map[string]string         `json:"catalog"`
	MaxWait   int                       `json:"max_wait"`
	Policies  map[string]string         `json:"policies"`
	Roles     map[string]map[string]any `json:"roles"`
	Secret    string                    `json:"secret"`
	Epoch     int                       `json:"epoch"`
}

const (
	db        = machine.RaftDir + "/db"
	oldPlugin = "plugin 1.0.0 fine"
	newPlugin = "plugin 1.1.0 fine"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	m := host.NewMemory()
	w := &world{Memory: m}
	for _, d := range []string{"/etc", "/etc/strongroom", "/etc/strongroom/credentials", "/etc/systemd", "/etc/systemd/system",
		"/etc/systemd/system/vault.service.d", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/local/lib/strongroom", machine.PluginDir,
		"/var", "/var/lib", "/var/lib/strongroom", "/var/lib/vault", machine.RaftDir, "/root"} {
		m.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}, Type: fs.ModeDir}}
	}
	first, err := json.Marshal(storage{Format: "1.0.0", Engine: "1.0.0", Index: 100, Pinned: "v1.0.0", MaxWait: 60, Secret: "canary-7",
		Catalog: map[string]string{"v1.0.0": "1", "v0.9.0": "0"}, Policies: config.Policies(), Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	for p, text := range map[string]string{
		"/usr/local/bin/strongroom":                               "strongroom 1.0.0 fine",
		"/usr/local/bin/vault":                                    "Vault v1.0.0 fine",
		path.Join(machine.PluginDir, machine.PluginFile("1.0.0")): oldPlugin,
		path.Join(machine.PluginDir, machine.PluginFile("0.9.0")): "plugin 0.9.0 fine",
		"/etc/strongroom/vault.hcl":                               "old",
		"/etc/strongroom/nftables.conf":                           "old rules",
		"/etc/strongroom/epoch.json":                              `{"installation_id":"x","epoch":1}`,
		"/etc/strongroom/credentials/master-key":                  "sealed",
		"/etc/systemd/system/vault.service":                       "[Service]\nExecStart=/usr/local/bin/vault server -config=/etc/strongroom/vault.hcl\nEnvironment=EPOCH=/etc/strongroom/epoch.json\n",
		"/etc/systemd/system/vault.service.d/operator.conf":       "the operator's",
		"/etc/systemd/system/strongroom-kms.service":              "[Service]\nExecStart=/usr/local/bin/strongroom kms\n",
		"/etc/systemd/system/strongroom-front.service":            "[Service]\nExecStart=/usr/local/bin/strongroom front\n",
		"/etc/systemd/system/somebody-elses.service":              "not ours",
		"/root/vault-new":                                         "Vault v1.1.0 fine",
		db:                                                        string(first),
	} {
		m.Files[p] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o644}, Size: int64(len(text)), ModTime: m.Clock}, Data: []byte(text)}
	}
	for _, u := range core {
		m.Units[u] = &host.Unit{Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled", Since: m.Clock}
	}
	m.OnStart[machine.UnitVault] = w.startVault
	for _, u := range []string{machine.UnitKMS, machine.UnitFront} {
		m.OnStart[u] = func() error { return w.starts("/usr/local/bin/strongroom") }
	}
	m.Commands = map[string]func(host.Command, []byte) (host.Output, error){
		"strongroom": w.print, "vault": w.print, "vault-new": w.print,
		machine.PluginFile("1.0.0"): w.format, machine.PluginFile("1.1.0"): w.format,
		"cp":   w.cp,
		"sync": func(host.Command, []byte) (host.Output, error) { return host.Output{}, nil },
		"nft":  func(host.Command, []byte) (host.Output, error) { return host.Output{}, nil },
	}
	w.running, w.engine = "1.0.0", "1.0.0"
	return w
}

// format is a plugin that is asked for its storage format, which stands in its text.
func (w *world) format(c host.Command, _ []byte) (host.Output, error) {
	b, err := w.ReadFile(c.Args[0])
	if err != nil {
		return host.Output{}, err
	}
	if _, n, ok := strings.Cut(string(b), "format "); ok && c.Args[1] == "--storage-format" {
		return host.Output{Stdout: []byte(n + "\n")}, nil
	}
	return host.Output{}, &host.ExitError{Command: c.Args[0], Code: 1, Stderr: "unknown flag"}
}

// print is a program that prints what it is.
func (w *world) print(c host.Command, _ []byte) (host.Output, error) {
	b, err := w.ReadFile(c.Args[0])
	return host.Output{Stdout: b}, err
}

func (w *world) starts(program string) error {
	b, err := w.ReadFile(program)
	if err == nil && bytes.Contains(b, []byte("broken")) {
		err = fmt.Errorf("%s does not start", program)
	}
	return err
}

func (w *world) load() (s storage) {
	if n := w.Files[db]; n != nil {
		if err := json.Unmarshal(n.Data, &s); err != nil {
			panic(err)
		}
	}
	return s
}

// put is a write of Vault's own, which needs no permission to be made.
func (w *world) put(s storage) {
	s.Index++
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	w.Files[machine.RaftDir] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o700}, Type: fs.ModeDir}}
	w.Files[db] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o600}}, Data: b}
}

// startVault reads the storage, which an older Vault than its writer can't.
func (w *world) startVault() error {
	w.running, w.engine = "", ""
	if err := w.starts(machine.VaultProgram); err != nil {
		return err
	}
	version := strings.TrimPrefix(strings.Fields(string(w.Files[machine.VaultProgram].Data))[1], "v")
	s := w.load()
	if s.Format > version {
		return fmt.Errorf("vault %s can't read storage of %s", version, s.Format)
	}
	s.Format, w.running = version, version
	w.put(s)
	w.startEngine()
	return nil
}

func (w *world) startEngine() {
	s := w.load()
	w.engine = ""
	n := w.Files[path.Join(machine.PluginDir, machine.PluginFile(strings.TrimPrefix(s.Pinned, "v")))]
	if n == nil || bytes.Contains(n.Data, []byte("broken")) {
		return
	}
	version := strings.TrimPrefix(s.Pinned, "v")
	if s.Engine > version && !w.lax {
		return // it doesn't know what it finds
	}
	if s.Engine != version {
		s.WrittenBy = append(s.WrittenBy, version)
	}
	s.Engine, w.engine = version, version
	w.put(s)
}

func (w *world) cp(c host.Command, _ []byte) (host.Output, error) {
	from, to := c.Args[len(c.Args)-2], c.Args[len(c.Args)-1]
	for p, n := range w.Files {
		if rest, ok := strings.CutPrefix(p, from); ok && (rest == "" || rest[0] == '/') {
			twin := *n
			twin.Data = slices.Clone(n.Data)
			w.Files[to+rest] = &twin
		}
	}
	return host.Output{}, nil
}

// mortal is the machine as the upgrade sees it: each call that changes it may
// be the one at which fate strikes.
type mortal struct{ *world }

func (m mortal) host() *host.Host {
	return &host.Host{FS: m, Accounts: m.Memory, Runner: m, Services: m, Now: func() time.Time { return m.Clock }}
}

func (m mortal) Write(p string, r io.Reader, a host.Attr) error {
	if err := m.mutate(); err != nil {
		return err
	}
	return m.Memory.Write(p, r, a)
}

func (m mortal) Mkdir(p string, a host.Attr) error {
	return errors.Join(m.mutate(), m.Memory.Mkdir(p, a))
}

func (m mortal) Remove(p string) error {
	if err := m.mutate(); err != nil {
		return err
	}
	return m.Memory.Remove(p)
}

func (m mortal) Rename(old, new string) error {
	if err := m.mutate(); err != nil {
		return err
	}
	if m.rename != nil {
		return m.rename
	}
	return m.Memory.Rename(old, new)
}

func (m mortal) RemoveAll(p string) error {
	if err := m.mutate(); err != nil {
		return err
	}
	return m.Memory.RemoveAll(p)
}

func (m mortal) Run(ctx context.Context, c host.Command) (host.Output, error) {
	if err := m.mutate(); err != nil {
		return host.Output{}, err
	}
	return m.Memory.Run(ctx, c)
}

func (m mortal) Start(ctx context.Context, name string) error {
	if err := m.mutate(); err != nil {
		return err
	}
	return m.Memory.Start(ctx, name)
}

func (m mortal) Restart(ctx context.Context, name string) error {
	if err := m.mutate(); err != nil {
		return err
	}
	return m.Memory.Restart(ctx, name)
}

func (m mortal) Stop(ctx context.Context, name string) error {
	if err := m.mutate(); err != nil {
		return err
	}
	if err := m.Memory.Stop(ctx, name); err != nil {
		return err
	}
	if name == machine.UnitVault {
		m.running, m.engine = "", ""
	}
	return nil
}

// newSteps install what the new installer carries.
func (w *world) newSteps(e *steps.Env) []engine.Step {
	return []engine.Step{programs{w, e}, policies{w}}
}

// policies wants those of the new version.
type policies struct{ w *world }

func (policies) ID() string    { return "policies" }
func (policies) Title() string { return "policies" }

func (s policies) Check(context.Context) (engine.Diff, error) {
	var d engine.Diff
	for name, text := range s.w.load().Policies {
		if text != "of the new version" {
			d = append(d, engine.Change{What: name, To: "new", Apply: func(ctx context.Context) error {
				return mortal{s.w}.PutPolicy(ctx, name, "of the new version")
			}})
		}
	}
	return d, nil
}

type programs struct {
	w *world
	*steps.Env
}

func (programs) ID() string    { return "programs" }
func (programs) Title() string { return "programs" }

func (s programs) Check(context.Context) (engine.Diff, error) {
	wanted := map[string]string{
		"/etc/strongroom/vault.hcl":                     "new",
		"/etc/strongroom/nftables.conf":                 "new rules",
		"/etc/systemd/system/strongroom-doctor.service": "a new unit",
	}
	p, err := s.Payload.Program(machine.ProgramName)
	if err != nil {
		return nil, err
	}
	r, err := p.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	wanted["/usr/local/bin/strongroom"] = string(b)
	if s.VaultBinary != "" {
		b, err := s.Host.ReadFile(s.VaultBinary)
		if err != nil {
			return nil, err
		}
		wanted[machine.VaultProgram] = string(b)
	}
	var d engine.Diff
	for _, f := range slices.Sorted(mapsKeys(wanted)) {
		if now, err := s.Host.ReadFile(f); err == nil && string(now) == wanted[f] {
			continue
		}
		d = append(d, engine.Change{What: f, To: "new", Apply: func(context.Context) error {
			return s.Host.Write(f, strings.NewReader(wanted[f]), host.Attr{Mode: 0o644})
		}})
	}
	for _, u := range core {
		stale := false
		unit := path.Join(machine.UnitDir, u)
		for _, f := range append(systemd.Reads(s.w.Files[unit].Data), unit) {
			info, err := s.Host.Stat(f)
			stale = stale || err == nil && info.ModTime.After(s.w.Units[u].Since)
		}
		if len(d) > 0 || stale || s.w.Units[u].Active != "active" {
			d = append(d, engine.Change{What: u, To: "restarted", Apply: func(ctx context.Context) error { return s.Host.Restart(ctx, u) }})
		}
	}
	return d, nil
}

func mapsKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// upgrade is the new installer on this machine.
func (w *world) upgrade(strongroom, plugin, vaultFile string) (*Upgrade, *bytes.Buffer) {
	var out bytes.Buffer
	m := mortal{w}
	return &Upgrade{
		Env: &steps.Env{
			Host: m.host(), Version: "1.1.0", AdminToken: "administrator's", VaultBinary: vaultFile, Config: config.Default(),
			Payload: payload.New(fstest.MapFS{
				"bin/" + machine.ProgramName: {Data: []byte(strongroom)},
				"bin/" + machine.PluginName:  {Data: []byte(plugin)},
			}),
		},
		Vault: m, Front: func(context.Context) error {
			if w.Units[machine.UnitFront].Active != "active" || w.running == "" {
				return errors.New("the front does not answer")
			}
			return nil
		},
		Mark: func(ctx context.Context) error { return m.change(ctx, func(*storage) {}) },
		Seal: func(context.Context, string, snapshot.VaultInfo) error { return m.mutate() },
		Rehearse: func(_ context.Context, _ *Record, p Programs) error {
			w.rehearsed++
			if w.meanwhile != nil {
				w.meanwhile()
			}
			for _, f := range []string{p.Strongroom, p.Plugin, p.Vault} {
				if err := w.starts(f); err != nil {
					return err
				}
			}
			return m.mutate()
		},
		Ask: func(context.Context) error { return nil }, Steps: w.newSteps,
		Patience: time.Minute, Poll: 10 * time.Second, Out: &out,
		Sleep: func(_ context.Context, d time.Duration) error { w.Clock = w.Clock.Add(d); return nil },
	}, &out
}
