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
	"sort"
	"strconv"
	"strings"
	"time"

	"strongroom.example/appliance/base/vaultapi"
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

// Metadata of a path. Source:
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-metadata
type Metadata struct {
	MaxVersions        int               `json:"max_versions"`
	CASRequired        bool              `json:"cas_required"`
	DeleteVersionAfter string            `json:"delete_version_after"`
	CustomMetadata     map[string]string `json:"custom_metadata,omitempty"`
	CurrentVersion     int               `json:"current_version"`
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
	c     *vaultapi.Client
	mount string
}

func newEngine(c *vaultapi.Client, mount string) engine {
	return engine{c, strings.Trim(mount, "/")}
}

// paths of a secret, or of everything below a folder (with a slash at the end,
// or empty for the whole mount), sorted.
func (e engine) paths(ctx context.Context, from string) ([]string, error) {
	return kv.Walk(ctx, kv.New(e.c), e.mount, from)
}

// read gives a secret with all its versions; nil if there is none.
func (e engine) read(ctx context.Context, path string) (*Secret, error) {
	raw, err := e.raw(ctx, "/metadata/"+path, nil)
	if raw == nil || err != nil {
		return nil, err
	}
	var m struct {
		Metadata
		Versions map[string]struct {
			Created   string `json:"created_time"`
			Deleted   string `json:"deletion_time"`
			Destroyed bool   `json:"destroyed"`
		} `json:"versions"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("read metadata of %s/%s: %w", e.mount, path, err)
	}
	s := &Secret{Path: path, Metadata: m.Metadata}
	for n, v := range m.Versions {
		number, err := strconv.Atoi(n)
		if err != nil {
			return nil, fmt.Errorf("read metadata of %s/%s: version %q", e.mount, path, n)
		}
		s.Versions = append(s.Versions, Version{Number: number, Created: v.Created, Deleted: v.Deleted, Destroyed: v.Destroyed})
	}
	sort.Slice(s.Versions, func(i, j int) bool { return s.Versions[i].Number < s.Versions[j].Number })
	for i := range s.Versions {
		v := &s.Versions[i]
		if v.Destroyed {
			continue
		}
		if v.Data, err = e.data(ctx, path, v.Number); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// data of a version; nil if it is deleted.
func (e engine) data(ctx context.Context, path string, version int) (json.RawMessage, error) {
	raw, err := e.raw(ctx, "/data/"+path, map[string][]string{"version": {strconv.Itoa(version)}})
	if raw == nil || err != nil {
		return nil, err
	}
	var d struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("read %s/%s: version %d is malformed", e.mount, path, version)
	}
	if string(d.Data) == "null" {
		return nil, nil
	}
	return d.Data, nil
}

// raw is the data of an answer, as it came: numbers and all.
func (e engine) raw(ctx context.Context, path string, query map[string][]string) (json.RawMessage, error) {
	data, err := e.c.ReadWith(ctx, e.mount+path, query)
	if vaultapi.IsNotFound(err) {
		return nil, nil // also of a version that is deleted
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(data)
}
