package restorepath

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"strongroom.example/appliance/base/vaultapi"
)

// kvMount is a KV secrets engine.
type kvMount struct {
	path string // ends in /
	v2   bool
}

// mountOf finds the KV engine that a path is in.
func mountOf(ctx context.Context, c *vaultapi.Client, path string) (kvMount, error) {
	s, err := c.API().Logical().ReadWithContext(ctx, "sys/internal/ui/mounts/"+path)
	if err != nil {
		return kvMount{}, fmt.Errorf("find the engine of %q: %w", path, err)
	}
	if s == nil {
		return kvMount{}, fmt.Errorf("find the engine of %q: none", path)
	}
	m := kvMount{}
	m.path, _ = s.Data["path"].(string)
	kind, _ := s.Data["type"].(string)
	if kind != "kv" || m.path == "" {
		return kvMount{}, fmt.Errorf("%q is in an engine of type %q: only single secrets of kv can be brought back", path, kind)
	}
	if options, ok := s.Data["options"].(map[string]any); ok {
		m.v2 = options["version"] == "2"
	}
	return m, nil
}

func (m kvMount) api(part, rest string) string {
	if m.v2 {
		return m.path + part + "/" + rest
	}
	return m.path + rest
}

// secretVersion is one secret as it was read.
type secretVersion struct {
	data    map[string]any
	version int64          // 0 with version 1 of the engine
	custom  map[string]any // custom_metadata
	there   bool
}

// read gets the newest version; there is false when there is none or it was
// deleted, and then version is still the number of the last one.
func (m kvMount) read(ctx context.Context, c *vaultapi.Client, rest string) (secretVersion, error) {
	s, err := c.API().Logical().ReadWithContext(ctx, m.api("data", rest))
	if err != nil {
		return secretVersion{}, err
	}
	if s == nil || s.Data == nil {
		return secretVersion{}, nil
	}
	if !m.v2 {
		return secretVersion{data: s.Data, there: true}, nil
	}
	var v secretVersion
	v.data, v.there = s.Data["data"].(map[string]any)
	if meta, ok := s.Data["metadata"].(map[string]any); ok {
		if n, ok := meta["version"].(json.Number); ok {
			if v.version, err = n.Int64(); err != nil {
				return secretVersion{}, fmt.Errorf("version %q: %w", n, err)
			}
		}
		v.custom, _ = meta["custom_metadata"].(map[string]any)
	}
	return v, nil
}

// write stores data as a new version on top of over. Somebody else's write in
// between is an error and not overwritten. With ErrNoMetadata the version is there.
func (m kvMount) write(ctx context.Context, c *vaultapi.Client, rest string, v secretVersion, over secretVersion) (int64, error) {
	if !m.v2 {
		_, err := c.API().Logical().WriteWithContext(ctx, m.api("", rest), v.data)
		return 0, err
	}
	s, err := c.API().Logical().WriteWithContext(ctx, m.api("data", rest), map[string]any{
		"data": v.data, "options": map[string]any{"cas": over.version},
	})
	if err != nil {
		return 0, err
	}
	n, ok := s.Data["version"].(json.Number)
	if !ok {
		return 0, errors.New("the answer has no version")
	}
	version, err := n.Int64()
	if err != nil {
		return 0, fmt.Errorf("version %q: %w", n, err)
	}
	// A secret that was wholly gone gets its metadata back; one that is there
	// keeps its own.
	if over.version == 0 && len(v.custom) > 0 {
		if _, err := c.API().Logical().WriteWithContext(ctx, m.api("metadata", rest), map[string]any{"custom_metadata": v.custom}); err != nil {
			return version, fmt.Errorf("%w: %w", ErrNoMetadata, err)
		}
	}
	return version, nil
}

// list gives the names of all secrets at or below rest, which ends in / or is
// empty.
func (m kvMount) list(ctx context.Context, c *vaultapi.Client, rest string) ([]string, error) {
	s, err := c.API().Logical().ListWithContext(ctx, m.api("metadata", rest))
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, nil
	}
	keys, _ := s.Data["keys"].([]any)
	var out []string
	for _, k := range keys {
		name, ok := k.(string)
		if !ok {
			continue
		}
		if !strings.HasSuffix(name, "/") {
			out = append(out, rest+name)
			continue
		}
		below, err := m.list(ctx, c, rest+name)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

// Copied is what became of one secret.
type Copied struct {
	Path string `json:"path"`
	// From is the version in the snapshot, Over the one that was current, To
	// the new one; To is 0 when both had the same content.
	From, Over, To int64
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
		return c, fmt.Errorf("read %q in the snapshot: %w", path, err)
	}
	if !old.there {
		return c, fmt.Errorf("%q: %w", path, ErrNoSecret)
	}
	now, err := target.read(ctx, to, rest)
	if err != nil {
		return c, fmt.Errorf("read %q: %w", path, err)
	}
	c.From, c.Over = old.version, now.version
	if now.there && reflect.DeepEqual(now.data, old.data) {
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

func isForbidden(err error) bool { return vaultapi.IsDenied(err) }
