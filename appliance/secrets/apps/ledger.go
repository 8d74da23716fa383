package apps

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"errors"

	"strongroom.example/appliance/base/vaultapi"
)

// ErrConcurrent says that somebody else has changed the ledger meanwhile.
var ErrConcurrent = errors.New("somebody else is applying the same manifest")

// ledger is what a manifest owns. It lies in KV beside the apps' secrets and
// holds names only. An object is entered before it is made, and struck out
// after it is gone: a crash leaves an entry without object, never the reverse.
type ledger struct {
	version int               // of the KV entry, for check-and-set; 0: none yet
	objects map[string]string // id → path
	apps    map[string]string // id → app
	rotated map[string]bool   // connections whose password only Vault knows
}

func ledgerPath(manifest string) string { return "secret/data/strongroom/manifests/" + manifest }

func readLedger(ctx context.Context, v Vault, manifest string) (*ledger, error) {
	l := &ledger{objects: map[string]string{}, apps: map[string]string{}, rotated: map[string]bool{}}
	got, err := v.Read(ctx, ledgerPath(manifest))
	if err != nil {
		return nil, fmt.Errorf("ledger of manifest %q: %w", manifest, err)
	}
	if got == nil {
		return l, nil
	}
	if err := l.fill(got); err != nil {
		return nil, fmt.Errorf("ledger of manifest %q: %w", manifest, err)
	}
	return l, nil
}

// fill reads what KV answers. An entry of another form is an error: whoever took
// it for an empty one would own nothing, and prune nothing.
func (l *ledger) fill(got vaultapi.Data) error {
	meta, err := got.Map("metadata")
	if err != nil {
		return err
	}
	version, err := meta.Number("version")
	if err != nil {
		return err
	}
	l.version = int(version)
	if !got.Has("data") {
		return nil // deleted
	}
	data, err := got.Map("data")
	if err != nil {
		return err
	}
	objects, err := data.Map("objects")
	if err != nil {
		return err
	}
	for id := range objects {
		entry, err := objects.Text(id)
		if err != nil {
			return err
		}
		l.objects[id], l.apps[id] = parseEntry(entry)
	}
	if !data.Has("rotated") {
		return nil // none, as it is written
	}
	rotated, err := data.Strings("rotated")
	if err != nil {
		return err
	}
	for _, name := range rotated {
		l.rotated[name] = true
	}
	return nil
}

func (l *ledger) clone() *ledger {
	return &ledger{version: l.version, objects: maps.Clone(l.objects), apps: maps.Clone(l.apps), rotated: maps.Clone(l.rotated)}
}

func (l *ledger) add(o object) { l.objects[o.id()], l.apps[o.id()] = o.path, o.app }

func (l *ledger) remove(id string) {
	delete(l.objects, id)
	delete(l.apps, id)
}

func (l *ledger) equal(o *ledger) bool {
	return maps.Equal(l.objects, o.objects) && maps.Equal(l.apps, o.apps) && maps.Equal(l.rotated, o.rotated)
}

// save writes l where nobody has written since it was read.
func (l *ledger) save(ctx context.Context, v Vault, manifest string) error {
	objects := map[string]any{}
	for id, path := range l.objects {
		objects[id] = formatEntry(path, l.apps[id])
	}
	rotated := sortedKeys(l.rotated)
	got, err := v.Write(ctx, ledgerPath(manifest), map[string]any{
		"data":    map[string]any{"objects": objects, "rotated": rotated},
		"options": map[string]any{"cas": l.version},
	})
	if vaultapi.IsChanged(err) {
		return fmt.Errorf("ledger of manifest %q: %w", manifest, ErrConcurrent)
	}
	if err != nil {
		return fmt.Errorf("ledger of manifest %q: %w", manifest, err)
	}
	version, err := vaultapi.Data(got).Number("version")
	if err != nil {
		return fmt.Errorf("ledger of manifest %q: %w", manifest, err)
	}
	l.version = int(version)
	return nil
}

// formatEntry joins an object's path and its app, which may be empty. Paths can
// hold spaces, for directories' groups do; names of apps can't.
func formatEntry(path, app string) string {
	if app == "" && !strings.Contains(path, " ") {
		return path
	}
	return path + " " + app
}

// parseEntry is the reverse of formatEntry.
func parseEntry(s string) (path, app string) {
	i := strings.LastIndex(s, " ")
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func mapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
