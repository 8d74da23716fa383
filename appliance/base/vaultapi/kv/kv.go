// Package kv reads and writes secrets of KV version 2 engines: one version, by
// check-and-set, with what is noted about a path. It is the one place that
// knows how Vault tells that a path was never written, that a version is
// deleted, and that no such engine is there.
//
// It is not a cache and repeats nothing. kvtest has its fake and the suite that
// holds both to the same.
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
package kv

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"strongroom.example/appliance/base/vaultapi"
)

// ErrChanged is a write that somebody else was faster with.
var ErrChanged = errors.New("somebody else has written this secret meanwhile")

// Store is KV version 2, whatever keeps it. Mounts are without slashes at their
// ends, paths are within a mount.
type Store interface {
	// Read the newest version. A path that was never written has version 0;
	// one whose newest version is deleted has no data.
	Read(ctx context.Context, mount, path string) (Stored, error)
	// ReadVersion reads one version; one that is deleted has no data, and one
	// that never was or is dropped is version 0.
	ReadVersion(ctx context.Context, mount, path string, version int) (Stored, error)
	// Write data as the version after cas; ErrChanged if there is another one
	// already. It gives the new version.
	Write(ctx context.Context, mount, path string, data map[string]any, cas int) (int, error)
	// Metadata of a path; nil for one that has none.
	Metadata(ctx context.Context, mount, path string) (*Metadata, error)
	// PutSettings writes the settings of a path, whether it has any or not.
	PutSettings(ctx context.Context, mount, path string, s Settings) error
	// Annotate adds to the custom metadata of a path, written or not: what
	// others have noted there stays.
	Annotate(ctx context.Context, mount, path string, notes map[string]string) error
	// DeleteVersion takes back one version; Vault's undelete brings it again.
	DeleteVersion(ctx context.Context, mount, path string, version int) error
	// Destroy forgets versions for good; their numbers stay.
	Destroy(ctx context.Context, mount, path string, versions []int) error
	// List gives the names directly below a folder, which ends in a slash or is
	// empty; folders end in a slash.
	List(ctx context.Context, mount, folder string) ([]string, error)
}

// Stored is one version of a secret. Data is secret.
type Stored struct {
	Version int
	Data    map[string]any
	// Notes are the custom metadata of the path.
	Notes map[string]string
}

// Settings of a path.
type Settings struct {
	MaxVersions        int               `json:"max_versions"` // 0: the engine's, 10 by default
	CASRequired        bool              `json:"cas_required"`
	DeleteVersionAfter string            `json:"delete_version_after"`
	CustomMetadata     map[string]string `json:"custom_metadata,omitempty"`
}

// Metadata is what Vault keeps of a path.
type Metadata struct {
	Settings
	CurrentVersion int             `json:"current_version"`
	Versions       map[int]Version `json:"versions"`
}

// Version is one version without its data.
type Version struct {
	Created   string `json:"created_time"`
	Deleted   string `json:"deletion_time"` // empty, or in the future: it is not
	Destroyed bool   `json:"destroyed"`
}

// Vault is the real Store.
type Vault struct{ c *vaultapi.Client }

var _ Store = Vault{}

// New uses c's token.
func New(c *vaultapi.Client) Vault { return Vault{c} }

// Read is described at Store.
func (v Vault) Read(ctx context.Context, mount, path string) (Stored, error) {
	return v.read(ctx, mount, path, nil)
}

// ReadVersion is described at Store.
func (v Vault) ReadVersion(ctx context.Context, mount, path string, version int) (Stored, error) {
	return v.read(ctx, mount, path, url.Values{"version": {strconv.Itoa(version)}})
}

func (v Vault) read(ctx context.Context, mount, path string, query url.Values) (Stored, error) {
	data, err := v.c.ReadWith(ctx, mount+"/data/"+path, query)
	if vaultapi.IsNotFound(err) {
		// A version that is deleted comes with its metadata.
		if data, err = vaultapi.DataOf(err), nil; data == nil {
			return Stored{}, nil
		}
	}
	if err != nil {
		return Stored{}, fmt.Errorf("read %s/%s: %w", mount, path, err)
	}
	if !data.Has("metadata") {
		return Stored{}, fmt.Errorf("read %s/%s: no KV version 2 engine is mounted there", mount, path)
	}
	var out struct {
		Metadata struct {
			Version int               `json:"version"`
			Notes   map[string]string `json:"custom_metadata"`
		} `json:"metadata"`
	}
	if err := data.Into(&out); err != nil {
		return Stored{}, fmt.Errorf("read %s/%s: %w", mount, path, err)
	}
	s := Stored{Version: out.Metadata.Version, Notes: out.Metadata.Notes}
	if s.Version < 1 {
		return Stored{}, fmt.Errorf("read %s/%s: the answer has no version", mount, path)
	}
	if data.Has("data") {
		if s.Data, err = data.Map("data"); err != nil {
			return Stored{}, fmt.Errorf("read %s/%s: %w", mount, path, err)
		}
	}
	return s, nil
}

// Write is described at Store.
func (v Vault) Write(ctx context.Context, mount, path string, data map[string]any, cas int) (int, error) {
	answer, err := v.c.Write(ctx, mount+"/data/"+path, map[string]any{"data": data, "options": map[string]any{"cas": cas}})
	if vaultapi.IsChanged(err) {
		return 0, fmt.Errorf("write %s/%s: %w", mount, path, ErrChanged)
	}
	var n int64
	if err == nil {
		n, err = answer.Number("version")
	}
	if err != nil {
		return 0, fmt.Errorf("write %s/%s: %w", mount, path, err)
	}
	return int(n), nil
}

// Metadata is described at Store.
func (v Vault) Metadata(ctx context.Context, mount, path string) (*Metadata, error) {
	m := &Metadata{}
	err := v.c.ReadInto(ctx, mount+"/metadata/"+path, nil, m)
	if vaultapi.IsNotFound(err) {
		return nil, nil
	}
	if err == nil && m.Versions == nil {
		err = errors.New("no KV version 2 engine is mounted there")
	}
	if err != nil {
		return nil, fmt.Errorf("read metadata of %s/%s: %w", mount, path, err)
	}
	return m, nil
}

// PutSettings is described at Store.
func (v Vault) PutSettings(ctx context.Context, mount, path string, s Settings) error {
	_, err := v.c.Write(ctx, mount+"/metadata/"+path, map[string]any{
		"max_versions": s.MaxVersions, "cas_required": s.CASRequired,
		"delete_version_after": s.DeleteVersionAfter, "custom_metadata": s.CustomMetadata,
	})
	if err != nil {
		return fmt.Errorf("write metadata of %s/%s: %w", mount, path, err)
	}
	return nil
}

// Annotate is described at Store.
func (v Vault) Annotate(ctx context.Context, mount, path string, notes map[string]string) error {
	data := map[string]any{"custom_metadata": notes}
	_, err := v.c.Patch(ctx, mount+"/metadata/"+path, data)
	if vaultapi.IsNotFound(err) { // there is none to merge with
		_, err = v.c.Write(ctx, mount+"/metadata/"+path, data)
	}
	if err != nil {
		return fmt.Errorf("annotate %s/%s: %w", mount, path, err)
	}
	return nil
}

// DeleteVersion is described at Store.
func (v Vault) DeleteVersion(ctx context.Context, mount, path string, version int) error {
	if _, err := v.c.Write(ctx, mount+"/delete/"+path, map[string]any{"versions": []int{version}}); err != nil {
		return fmt.Errorf("delete version %d of %s/%s: %w", version, mount, path, err)
	}
	return nil
}

// Destroy is described at Store.
func (v Vault) Destroy(ctx context.Context, mount, path string, versions []int) error {
	if _, err := v.c.Write(ctx, mount+"/destroy/"+path, map[string]any{"versions": versions}); err != nil {
		return fmt.Errorf("destroy versions of %s/%s: %w", mount, path, err)
	}
	return nil
}

// List is described at Store.
func (v Vault) List(ctx context.Context, mount, folder string) ([]string, error) {
	names, err := v.c.List(ctx, mount+"/metadata/"+folder)
	if err != nil {
		return nil, fmt.Errorf("list %s/%s: %w", mount, folder, err)
	}
	return names, nil
}
