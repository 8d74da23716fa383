// Package kvexport takes chosen KV version 2 secrets out of Vault, with their
// versions and metadata, into a file encrypted with age, and brings them back.
// It is the second way of backup, beside snapshots: it needs no right but to
// read what is exported, and restores single secrets into any Vault.
//
// The plain text is a stream of JSON lines: a header, a line per secret, an
// end with their number. It never exists outside of memory.
package kvexport

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/vaultapi/kv"
)

// Format of the stream.
const Format = 1

type header struct {
	Format int       `json:"format"`
	Mount  string    `json:"mount"`
	Time   time.Time `json:"time"`
}

type end struct {
	End     bool `json:"end"`
	Secrets int  `json:"secrets"`
}

// Secret is one path with everything that Vault keeps of it.
type Secret struct {
	Path     string    `json:"path"`
	Metadata Metadata  `json:"metadata"`
	Versions []Version `json:"versions"` // ascending
}

// Metadata of a path.
type Metadata struct {
	kv.Settings
	CurrentVersion int `json:"current_version"`
}

// Version is one version. Data is nil if it is deleted or destroyed: Vault does
// not give it then.
type Version struct {
	Number    int             `json:"version"`
	Created   string          `json:"created_time"`
	Deleted   string          `json:"deletion_time,omitempty"`
	Destroyed bool            `json:"destroyed,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

// engine is a KV version 2 mount.
type engine struct {
	kv    kv.Store
	mount string
}

func newEngine(s kv.Store, mount string) engine { return engine{s, strings.Trim(mount, "/")} }

// paths of a secret, or of everything below a folder (with a slash at the end,
// or empty for the whole mount), sorted.
func (e engine) paths(ctx context.Context, from string) ([]string, error) {
	return kv.Walk(ctx, e.kv, e.mount, from)
}

// read gives a secret with all its versions; nil if there is none.
func (e engine) read(ctx context.Context, path string) (*Secret, error) {
	m, err := e.kv.Metadata(ctx, e.mount, path)
	if m == nil || err != nil {
		return nil, err
	}
	s := &Secret{Path: path, Metadata: Metadata{m.Settings, m.CurrentVersion}}
	for n, v := range m.Versions {
		one := Version{Number: n, Created: v.Created, Deleted: v.Deleted, Destroyed: v.Destroyed}
		if !v.Destroyed {
			got, err := e.kv.ReadVersion(ctx, e.mount, path, n)
			if err != nil {
				return nil, err
			}
			if got.Data != nil {
				if one.Data, err = json.Marshal(got.Data); err != nil {
					return nil, fmt.Errorf("read %s/%s: version %d is malformed", e.mount, path, n)
				}
			}
		}
		s.Versions = append(s.Versions, one)
	}
	slices.SortFunc(s.Versions, func(a, b Version) int { return a.Number - b.Number })
	return s, nil
}
