package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"strongroom.example/config"
)

// Place is a configured place. It is opened by the first that is asked of it, so that
// one which cannot be opened is in nobody's way: that is then its answer to
// everything (ErrPlace), and the next question tries again.
type Place struct {
	name  string
	open  func() (Destination, error)
	trust *Trust

	mu   sync.Mutex                  // of opening
	dest atomic.Pointer[Destination] // nil until it could be opened
}

var (
	_ mover       = (*Place)(nil)
	_ Destination = (*Place)(nil)
	_ Sweeper     = (*Place)(nil)
	_ trusting    = (*Place)(nil)
)

// NewPlace is a place as it is configured. read gives the content of the credential
// that a bucket names; it is wiped afterwards.
func NewPlace(to config.BackupTo, read func(name string) ([]byte, error)) *Place {
	if to.Type == config.BackupDir {
		return &Place{name: "dir:" + filepath.Clean(to.Path), open: func() (Destination, error) {
			// The configuration knows names only. One that leads nowhere NewDir tells of.
			if at, err := filepath.EvalSymlinks(to.Path); err == nil {
				mounts, err := os.ReadFile("/proc/self/mountinfo")
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
				if err := PlaceFolder(to.Path, at, mounts); err != nil {
					return nil, err
				}
			}
			return NewDir(to.Path)
		}}
	}
	cfg := S3Config{
		Endpoint: to.Endpoint, Region: to.Region, Bucket: to.Bucket, Prefix: to.Prefix, CAFile: to.CAFile, VirtualHost: to.Addressing == config.AddressVirtual,
		LockFor: to.LockFor, LockMode: to.LockMode,
	}
	return &Place{name: cfg.name(), open: func() (Destination, error) {
		data, err := read(to.Credentials)
		if err != nil {
			return nil, fmt.Errorf("key pair of the bucket %q: %w", to.Bucket, err)
		}
		defer clear(data)
		if cfg.AccessKey, cfg.SecretKey, cfg.SessionToken, err = KeyPair(to.Credentials, data); err != nil {
			return nil, fmt.Errorf("key pair of the bucket %q: %w", to.Bucket, err)
		}
		return NewS3(cfg)
	}}
}

// Places are the places of a configuration, and whose snapshots are believed there.
func Places(to []config.BackupTo, read func(name string) ([]byte, error), trust *Trust) []Destination {
	out := make([]Destination, len(to))
	for i := range to {
		p := NewPlace(to[i], read)
		p.trust = trust
		out[i] = p
	}
	return out
}

// Trust implements trusting.
func (p *Place) Trust() *Trust { return p.trust }

func (p *Place) opened() (Destination, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.dest.Load(); d != nil {
		return *d, nil
	}
	d, err := p.open()
	switch {
	case err == nil:
		p.dest.Store(&d)
		return d, nil
	case errors.Is(err, ErrPlace):
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	// What is not there is the key pair, and no object.
	return nil, fmt.Errorf("%s: %w: %w", p.name, ErrPlace, err)
}

// Moved implements mover.
func (p *Place) Moved() int64 {
	// It waits for no opening, which may be stuck.
	if d := p.dest.Load(); d != nil {
		if m, ok := (*d).(mover); ok {
			return m.Moved()
		}
	}
	return 0
}

// Name implements Destination.
func (p *Place) Name() string { return p.name }

// Put implements Destination.
func (p *Place) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	d, err := p.opened()
	if err != nil {
		return ObjectInfo{}, err
	}
	return d.Put(ctx, name, r)
}

// Get implements Destination.
func (p *Place) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	d, err := p.opened()
	if err != nil {
		return nil, err
	}
	return d.Get(ctx, name)
}

// Stat implements Destination.
func (p *Place) Stat(ctx context.Context, name string) (ObjectInfo, error) {
	d, err := p.opened()
	if err != nil {
		return ObjectInfo{}, err
	}
	return d.Stat(ctx, name)
}

// List implements Destination.
func (p *Place) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	d, err := p.opened()
	if err != nil {
		return nil, err
	}
	return d.List(ctx, prefix)
}

// Delete implements Destination.
func (p *Place) Delete(ctx context.Context, name string) error {
	d, err := p.opened()
	if err != nil {
		return err
	}
	return d.Delete(ctx, name)
}

// Sweep implements Sweeper.
func (p *Place) Sweep(ctx context.Context, before time.Time) (int, error) {
	d, err := p.opened()
	if err != nil {
		return 0, err
	}
	if s, ok := d.(Sweeper); ok {
		return s.Sweep(ctx, before)
	}
	return 0, nil
}

// KeyPair reads the credential of a bucket; a session token is there where the pair ends
// soon. Its error quotes nothing of data.
func KeyPair(file string, data []byte) (access, secret, token string, err error) {
	return config.DecodePairAnd(file, data, "access_key", "secret_key", "session_token")
}
