package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom.example/config/machine"
)

// memory is a Vault of maps: what is written is read back, KV's ledger has
// check-and-set, and the nth write can fail, before or after it took effect.
type memory struct {
	mu       sync.Mutex
	data     map[string]map[string]any
	versions map[string]int
	writes   int // so far: deletions and wraps count
	failAt   int // 0: never
	after    bool
	log      []string
}

var errInjected = errors.New("connection lost")

var _ Vault = (*memory)(nil)

func newMemory() *memory {
	return &memory{
		data: map[string]map[string]any{
			"sys/mounts":          {"secret/": map[string]any{"type": "kv"}, "apikeys/": map[string]any{"type": machine.PluginName}},
			"sys/auth":            {"token/": map[string]any{"type": "token", "accessor": "auth_token"}},
			"apikeys/config":      {"rotation_period": json.Number("7776000"), "grace_period": json.Number("604800")},
			"apikeys/providers/p": {"type": "generated"},
		},
		versions: map[string]int{},
	}
}

func (m *memory) Read(_ context.Context, path string) (map[string]any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	got := m.data[path]
	if got == nil {
		return nil, nil
	}
	out := maps.Clone(got)
	if strings.HasPrefix(path, "apikeys/keys/") {
		for _, field := range []string{"rotation_period", "grace_period"} {
			out["effective_"+field] = out[field]
			if out[field] == int64(0) {
				out["effective_"+field] = m.data["apikeys/config"][field]
			}
		}
	}
	if strings.HasPrefix(path, "auth/kubernetes/config") {
		out["token_reviewer_jwt_set"] = text(got, "token_reviewer_jwt") != ""
	}
	if strings.HasPrefix(path, "database/config/") {
		details := maps.Clone(got)
		delete(details, "password")
		out = map[string]any{"plugin_name": got["plugin_name"], "allowed_roles": got["allowed_roles"], "connection_details": details}
	}
	return out, nil
}

func (m *memory) List(_ context.Context, path string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for p := range m.data {
		p = strings.Replace(p, "secret/data/", "secret/metadata/", 1)
		if rest, ok := strings.CutPrefix(p, path+"/"); ok {
			name, _, nested := strings.Cut(rest, "/")
			if nested {
				name += "/"
			}
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// step counts a write and tells whether it takes effect, and its error.
func (m *memory) step(what string) (bool, error) {
	m.writes++
	m.log = append(m.log, what)
	if m.writes == m.failAt {
		return m.after, fmt.Errorf("%s: %w", what, errInjected)
	}
	return true, nil
}

func (m *memory) Write(_ context.Context, path string, data map[string]any) (map[string]any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if path == "identity/lookup/entity" || strings.HasSuffix(path, "/secret-id-accessor/lookup") {
		return nil, nil
	}
	if err := m.casFault(path, data); err != nil {
		return nil, err
	}
	does, failed := m.step("write " + path)
	if !does {
		return nil, failed
	}
	switch {
	case strings.HasPrefix(path, "secret/data/"):
		m.versions[path]++
		version := json.Number(fmt.Sprint(m.versions[path]))
		m.data[path] = map[string]any{"data": data["data"], "metadata": map[string]any{"version": version}}
		return map[string]any{"version": version}, failed
	case strings.HasPrefix(path, "sys/mounts/"), strings.HasPrefix(path, "sys/auth/"):
		table, name := path[:strings.LastIndexByte(path, '/')], path[strings.LastIndexByte(path, '/')+1:]
		m.data[table] = maps.Clone(m.data[table])
		m.data[table][name+"/"] = map[string]any{"type": data["type"], "accessor": "auth_" + name}
		return nil, failed
	case strings.HasPrefix(path, "database/rotate-root/"), strings.HasPrefix(path, "sys/leases/"):
		return nil, failed
	}
	next := maps.Clone(m.data[path])
	if next == nil {
		next = map[string]any{}
	}
	maps.Copy(next, data)
	m.data[path] = next
	return nil, failed
}

func (m *memory) casFault(path string, data map[string]any) error {
	options, _ := data["options"].(map[string]any)
	if cas, ok := options["cas"].(int); ok && cas != m.versions[path] {
		return errCAS
	}
	return nil
}

func (m *memory) Delete(_ context.Context, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	does, failed := m.step("delete " + path)
	if !does {
		return failed
	}
	if name, ok := strings.CutPrefix(path, "sys/auth/"); ok {
		m.data["sys/auth"] = maps.Clone(m.data["sys/auth"])
		delete(m.data["sys/auth"], name+"/")
		for p := range m.data {
			if strings.HasPrefix(p, "auth/"+name+"/") {
				delete(m.data, p)
			}
		}
		return failed
	}
	delete(m.data, path)
	return failed
}

func (m *memory) Wrap(_ context.Context, path string, data map[string]any, ttl time.Duration) (Wrapped, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("wrap " + path); err != nil {
		return Wrapped{}, err
	}
	return Wrapped{Token: "wrapped", TTL: ttl, Path: path}, nil
}

func (m *memory) Unwrap(context.Context, string) (map[string]any, error) {
	return nil, errors.New("nothing is wrapped here")
}

func (m *memory) Lease(context.Context, string) (Lease, error) {
	return Lease{}, errors.New("no leases here")
}

// objects are the paths of everything that an apply may have made.
func (m *memory) objects() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for p := range m.data {
		if p != "sys/mounts" && p != "sys/auth" && !strings.HasPrefix(p, "secret/data/") && p != "apikeys/config" && p != "apikeys/providers/p" {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}
