package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/config/recipient"
)

// testCluster is the cluster id of the snapshots in tests.
const testCluster = "0b7ea4a6-22d4-4aa1-90ee-93e3d3e6c4f1"

var testTime = time.Date(2026, 11, 24, 15, 15, 0, 0, time.UTC)

// archiveSpec says what archive to build; the zero value is a sound one.
type archiveSpec struct {
	state   []byte
	index   uint64
	members func([]member) []member // may change anything
	wrap    func([]byte) []byte     // changes the compressed bytes
}

type member struct {
	name string
	data []byte
	typ  byte
	pax  map[string]string
}

// buildArchive writes an archive in the layout of HashiCorp's raft-snapshot.
func buildArchive(t testing.TB, s archiveSpec) []byte {
	t.Helper()
	if s.state == nil {
		s.state = randomBytes(3000, 1)
	}
	if s.index == 0 {
		s.index = 42
	}
	meta, err := json.Marshal(map[string]any{
		"Version": 1, "ID": "bolt-snapshot", "Index": s.index, "Term": 3, "Peers": "kbAxMjcuMC4wLjE6ODIwMQ==",
		"Configuration":      map[string]any{"Servers": []any{map[string]any{"Suffrage": 0, "ID": "node1", "Address": "127.0.0.1:8201"}}},
		"ConfigurationIndex": 1, "Size": len(s.state),
	})
	if err != nil {
		t.Fatal(err)
	}
	meta = append(meta, '\n')
	sums := fmt.Sprintf("%x  meta.json\n%x  state.bin\n", sha256.Sum256(meta), sha256.Sum256(s.state))
	members := []member{
		{name: "meta.json", data: meta}, {name: "state.bin", data: s.state},
		{name: "SHA256SUMS", data: []byte(sums)}, {name: "SHA256SUMS.sealed", data: []byte("sealed")},
	}
	if s.members != nil {
		members = s.members(members)
	}
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, m := range members {
		typ := m.typ
		if typ == 0 {
			typ = tar.TypeReg
		}
		h := &tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data)), ModTime: testTime, Typeflag: typ, PAXRecords: m.pax}
		if typ != tar.TypeReg {
			h.Size = 0
			h.Linkname = "elsewhere"
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if typ == tar.TypeReg {
			if _, err := tw.Write(m.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	if s.wrap != nil {
		b = s.wrap(b)
	}
	return b
}

// randomBytes is incompressible and the same in every run.
func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// bytesSource gives fixed bytes in small writes.
type bytesSource []byte

func (s bytesSource) Snapshot(ctx context.Context, w io.Writer) error {
	for rest := []byte(s); len(rest) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := w.Write(rest[:min(len(rest), 700)])
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// mem is a Destination in memory: the fake that passes the same suite as the
// real ones.
type mem struct {
	name string

	mu      sync.Mutex
	objects map[string][]byte
	times   map[string]time.Time
	locked  map[string]time.Time
	now     func() time.Time
}

func newMem(name string) *mem {
	return &mem{
		name: name, objects: map[string][]byte{}, times: map[string]time.Time{},
		locked: map[string]time.Time{}, now: func() time.Time { return testTime },
	}
}

func (m *mem) Name() string { return m.name }

func (m *mem) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	if _, err := m.Stat(ctx, name); err == nil {
		return ObjectInfo{}, fmt.Errorf("%s: %w", m.name, ErrExists)
	}
	b, err := io.ReadAll(ctxReader{ctx, r})
	if err != nil {
		return ObjectInfo{}, err
	}
	m.mu.Lock()
	m.objects[name], m.times[name] = b, m.now()
	m.mu.Unlock()
	return m.Stat(ctx, name)
}

func (m *mem) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("%s: %q: %w", m.name, name, ErrNotFound)
	}
	return io.NopCloser(ctxReader{ctx, bytes.NewReader(b)}), nil
}

func (m *mem) Stat(_ context.Context, name string) (ObjectInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[name]
	if !ok {
		return ObjectInfo{}, fmt.Errorf("%s: %q: %w", m.name, name, ErrNotFound)
	}
	return ObjectInfo{Name: name, Size: int64(len(b)), ModTime: m.times[name], LockedUntil: m.locked[name]}, nil
}

func (m *mem) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []ObjectInfo
	for name, b := range m.objects {
		if strings.HasPrefix(name, prefix) {
			out = append(out, ObjectInfo{Name: name, Size: int64(len(b)), ModTime: m.times[name]})
		}
	}
	sortObjects(out)
	return out, nil
}

func (m *mem) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name].After(m.now()) {
		return fmt.Errorf("%s: %q: %w", m.name, name, ErrLocked)
	}
	delete(m.objects, name)
	return nil
}

// snapshotOf copies what a destination holds.
func (m *mem) copy() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for k, v := range m.objects {
		out[k] = string(v)
	}
	return out
}

// keys is one age key pair.
type keys struct {
	recipient recipient.Recipient
	identity  age.Identity
}

func newKeys(t testing.TB) keys {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipient.Parse(id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	return keys{r, id}
}

// clock gives one second more at every call.
func clock(start time.Time) func() time.Time {
	var mu sync.Mutex
	now := start
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		t := now
		now = now.Add(time.Second)
		return t
	}
}

// takeOptions are sound options with their own state directory.
func takeOptions(t testing.TB, k keys, src Source, dests ...Destination) TakeOptions {
	t.Helper()
	return TakeOptions{
		Source: src, Vault: VaultInfo{ClusterID: testCluster, ClusterName: "vault-cluster-1", Version: "1.21.1"},
		Recipients: []recipient.Recipient{k.recipient}, Destinations: dests,
		StateDir: t.TempDir(), ToolVersion: "test",
		Stall: 5 * time.Minute, Now: clock(testTime), Rand: crand.Reader,
	}
}

func verifyOptions(t testing.TB, k keys, d Destination) VerifyOptions {
	t.Helper()
	return VerifyOptions{
		Destination: d, Identities: []age.Identity{k.identity}, ClusterID: testCluster,
		StateDir: t.TempDir(), ToolVersion: "test", Now: clock(testTime.Add(time.Hour)),
	}
}
