package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

var (
	_ Vault = mortal{}

	errDown = errors.New("vault is down")
)

// change writes to Vault's storage.
func (m mortal) change(ctx context.Context, do func(*storage)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.mutate(); err != nil {
		return err
	}
	if m.running == "" {
		return errDown
	}
	s := m.load()
	do(&s)
	m.put(s)
	return nil
}

func (m mortal) WaitActive(ctx context.Context) error {
	if m.running == "" {
		return errDown
	}
	return ctx.Err()
}

func (m mortal) Info(context.Context) (snapshot.VaultInfo, error) {
	return snapshot.VaultInfo{Version: m.running}, nil
}
func (m mortal) RaftIndex(context.Context) (uint64, error) { return m.load().Index, nil }
func (m mortal) MayUpgrade(context.Context) error          { return nil }
func (m mortal) Mounted(context.Context) (pinned, running string, err error) {
	if m.running == "" {
		return "", "", errDown
	}
	if m.engine != "" {
		running = "v" + m.engine
	}
	return m.load().Pinned, running, nil
}

func (m mortal) Register(ctx context.Context, p vaultapi.Plugin) error {
	return m.change(ctx, func(s *storage) { s.Catalog[p.Version] = p.SHA256 })
}

func (m mortal) Registered(context.Context) ([]string, error) {
	var out []string
	for v := range m.load().Catalog {
		out = append(out, v)
	}
	return out, nil
}

func (m mortal) Deregister(ctx context.Context, version string) error {
	return m.change(ctx, func(s *storage) { delete(s.Catalog, version) })
}

func (m mortal) Pin(ctx context.Context, version string) error {
	return m.change(ctx, func(s *storage) { s.Pinned = version })
}

func (m mortal) Reload(ctx context.Context) error {
	if err := m.change(ctx, func(*storage) {}); err != nil {
		return err
	}
	m.startEngine()
	return nil
}

func (m mortal) Status(context.Context) (bool, error) {
	if m.running == "" || m.engine == "" {
		return false, errors.New("the engine does not answer")
	}
	b, err := m.ReadFile(machine.EpochFile)
	if err != nil {
		return false, err
	}
	return !strings.Contains(string(b), fmt.Sprintf(`"epoch":%d}`, m.load().Epoch)), nil
}

func (m mortal) MaxWait(ctx context.Context) (int, error) { return m.load().MaxWait, nil }
func (m mortal) SetMaxWait(ctx context.Context, n int) error {
	return m.change(ctx, func(s *storage) { s.MaxWait = n })
}
func (m mortal) Policy(_ context.Context, name string) (string, error) {
	return m.load().Policies[name], nil
}
func (m mortal) PutPolicy(ctx context.Context, name, text string) error {
	return m.change(ctx, func(s *storage) { s.Policies[name] = text })
}

func (m mortal) Snapshot(_ context.Context, w io.Writer) error {
	_, err := w.Write(rawArchive(m.Files[db].Data))
	return err
}

func (m mortal) Restore(ctx context.Context, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var s storage
	if err := json.Unmarshal(rawState(b), &s); err != nil {
		return err
	}
	return m.change(ctx, func(now *storage) {
		index := now.Index
		*now = s
		now.Index = index
	})
}

func (m mortal) Reconcile(ctx context.Context) error {
	b, err := m.ReadFile(machine.EpochFile)
	if err != nil {
		return err
	}
	var e struct{ Epoch int }
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	return m.change(ctx, func(s *storage) { s.Epoch = e.Epoch })
}

func (m mortal) Role(_ context.Context, name string) (map[string]any, error) {
	return m.load().Roles[name], nil
}

func (m mortal) PutRole(ctx context.Context, name string, settings map[string]any) error {
	return m.change(ctx, func(s *storage) { s.Roles[name] = settings })
}
