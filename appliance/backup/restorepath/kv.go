package restorepath

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
)

// kvMount is a KV secrets engine.
type kvMount struct {
	path string // ends in /
	v2   bool
}

// mountOf finds the KV engine that a path is in.
func mountOf(ctx context.Context, c *vaultapi.Client, path string) (m kvMount, err error) {
	data, err := c.Read(ctx, "sys/internal/ui/mounts/"+path)
	var kind string
	if err == nil {
		kind, err = data.Text("type")
	}
	if err == nil {
		m.path, err = data.Text("path")
	}
	if err == nil && data.Has("options") {
		var options vaultapi.Data
		options, err = data.Map("options")
		m.v2 = options["version"] == "2"
	}
	if err != nil {
		return kvMount{}, fmt.Errorf("find the engine of %q: %w", path, err)
	}
	if kind != "kv" {
		return kvMount{}, fmt.Errorf("%q is in an engine of type %q: only single secrets of kv can be brought back", path, kind)
	}
	return m, nil
}

// name is the mount's without the slash at its end.
func (m kvMount) name() string { return strings.TrimSuffix(m.path, "/") }

// read gets the newest version, as kv.Store does; one of version 1 of the engine
// has no number.
func (m kvMount) read(ctx context.Context, c *vaultapi.Client, rest string) (kv.Stored, error) {
	if m.v2 {
		return kv.New(c).Read(ctx, m.name(), rest)
	}
	data, err := c.Read(ctx, m.path+rest)
	if vaultapi.IsNotFound(err) {
		return kv.Stored{}, nil
	}
	return kv.Stored{Data: data}, err
}

// write stores v as a new version on top of over. Somebody else's write in
// between is an error and not overwritten. With ErrNoMetadata the version is there.
func (m kvMount) write(ctx context.Context, c *vaultapi.Client, rest string, v, over kv.Stored) (int, error) {
	if !m.v2 {
		_, err := c.Write(ctx, m.path+rest, v.Data)
		return 0, err
	}
	version, err := kv.New(c).Write(ctx, m.name(), rest, v.Data, over.Version)
	if err != nil {
		return 0, err
	}
	// A secret that was wholly gone gets its metadata back; one that is there
	// keeps its own.
	if over.Version == 0 && len(v.Notes) > 0 {
		// Not by Annotate, which needs a right that who may write need not have.
		if _, err := c.Write(ctx, m.path+"metadata/"+rest, map[string]any{"custom_metadata": v.Notes}); err != nil {
			return version, fmt.Errorf("%w: %w", ErrNoMetadata, err)
		}
	}
	return version, nil
}

// list gives the names of all secrets at or below rest, which ends in / or is
// empty.
func (m kvMount) list(ctx context.Context, c *vaultapi.Client, rest string) ([]string, error) {
	if m.v2 {
		return kv.Walk(ctx, kv.New(c), m.name(), rest)
	}
	return kv.WalkBy(ctx, func(ctx context.Context, folder string) ([]string, error) { return c.List(ctx, m.path+folder) }, rest)
}

// Copied is what became of one secret.
type Copied struct {
	Path string `json:"path"`
	// From is the version in the snapshot, Over the one that was current, To
	// the new one; To is 0 when both had the same content.
	From, Over, To int
	Unchanged      bool
	// NoMetadata tells that Vault has the secret, and refused its custom metadata.
	NoMetadata bool
}

// copySecret brings one secret from a restored Vault into the live one. With
// ErrNoMetadata the secret itself has come back.
func copySecret(ctx context.Context, from, to *vaultapi.Client, path string) (Copied, error) {
	c := Copied{Path: path}
	source, err := mountOf(ctx, from, path)
	if err != nil {
		return c, fmt.Errorf("in the snapshot: %w", err)
	}
	target, err := mountOf(ctx, to, path)
	if err != nil {
		return c, err
	}
	if source.path != target.path {
		return c, fmt.Errorf("%q is in %q, and in %q in the snapshot", path, target.path, source.path)
	}
	rest := strings.TrimPrefix(path, source.path)
	old, err := source.read(ctx, from, rest)
	if err != nil {
		return c, fmt.Errorf("in the snapshot: %w", err)
	}
	if old.Data == nil {
		return c, fmt.Errorf("%q: %w", path, ErrNoSecret)
	}
	now, err := target.read(ctx, to, rest)
	if err != nil {
		return c, err
	}
	c.From, c.Over = old.Version, now.Version
	if now.Data != nil && reflect.DeepEqual(now.Data, old.Data) {
		c.Unchanged = true
		return c, nil
	}
	c.To, err = target.write(ctx, to, rest, old, now)
	c.NoMetadata = errors.Is(err, ErrNoMetadata)
	if err != nil {
		return c, fmt.Errorf("write %q: %w", path, err)
	}
	return c, nil
}
