package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config"
)

type rotationTest struct {
	t  *testing.T
	r  *Rotation
	id *age.X25519Identity
	v1 *Keyset
}

func newRotationTest(t *testing.T) *rotationTest {
	t.Helper()
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	x := &rotationTest{t: t, id: id, v1: newKeyset(t), r: &Rotation{
		Store: FileStore{}, Credential: filepath.Join(dir, "master-key"), Escrow: filepath.Join(dir, "master-key.age"),
		Rand: rand.Reader, Now: func() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) },
	}}
	text, err := EscrowText(x.v1, "")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := escrow.Seal(text, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{x.r.Credential: marshal(t, x.v1), x.r.Escrow: sealed} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// opened is what the operator sees off the machine.
func (x *rotationTest) opened(path string) (*Keyset, string) {
	x.t.Helper()
	sealed, err := os.ReadFile(path)
	if err != nil {
		x.t.Fatal(err)
	}
	text, err := escrow.Open(sealed, x.id)
	if err != nil {
		x.t.Fatal(err)
	}
	k, err := ParseKeyset(text)
	if err != nil {
		x.t.Fatal(err)
	}
	code := regexp.MustCompile(`code of this rotation: (\S+)`).FindSubmatch(text)
	if code == nil {
		return k, ""
	}
	return k, string(code[1])
}

func (x *rotationTest) inForce() *Keyset {
	x.t.Helper()
	k, err := LoadFile(x.r.Credential)
	if err != nil {
		x.t.Fatal(err)
	}
	return k
}

func TestRotation(t *testing.T) {
	x := newRotationTest(t)
	ctx := t.Context()
	if _, err := x.r.Confirm(ctx, "AAAA-BBBB-CCCC"); !errors.Is(err, ErrNoRotation) {
		t.Fatalf("confirm before begin: %v", err)
	}
	p, err := x.r.Begin(ctx, x.id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if x.inForce().Fingerprint() != x.v1.Fingerprint() {
		t.Fatal("begin has changed the key in force")
	}
	next, code := x.opened(x.r.NextEscrow())
	if next.Fingerprint() != p.Fingerprint || p.Version != 2 || code == "" {
		t.Fatalf("escrow holds %s with code %q, pending is %+v", next, code, p)
	}
	if _, err := x.r.Confirm(ctx, "AAAA-BBBB-CCCC"); !errors.Is(err, ErrNotConfirmed) {
		t.Fatalf("a wrong code: %v", err)
	}
	if x.inForce().Fingerprint() != x.v1.Fingerprint() {
		t.Fatal("a wrong code has changed the key in force")
	}
	if _, err := x.r.Confirm(ctx, " "+strings.ToLower(strings.ReplaceAll(code, "-", " "))); err != nil {
		t.Fatalf("the right code, typed loosely: %v", err)
	}
	if got := x.inForce(); got.Fingerprint() != p.Fingerprint || len(got.Versions()) != 2 {
		t.Fatalf("in force is %s", got)
	}
	if k, _ := x.opened(x.r.Escrow); k.Fingerprint() != p.Fingerprint {
		t.Fatalf("the escrow holds %s", k)
	}
	for _, left := range []string{x.r.NextEscrow(), x.r.nextCredential(), x.r.pendingFile()} {
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind", left)
		}
	}
}

func TestRotationRefuses(t *testing.T) {
	ctx := t.Context()
	t.Run("no recipient", func(t *testing.T) {
		x := newRotationTest(t)
		if _, err := x.r.Begin(ctx); err == nil {
			t.Fatal("a master key nobody can open was made")
		}
	})
	t.Run("next keyset of another rotation", func(t *testing.T) {
		x := newRotationTest(t)
		if _, err := x.r.Begin(ctx, x.id.Recipient()); err != nil {
			t.Fatal(err)
		}
		_, code := x.opened(x.r.NextEscrow())
		if err := os.WriteFile(x.r.nextCredential(), marshal(t, newKeyset(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := x.r.Confirm(ctx, code); !errors.Is(err, ErrDamaged) {
			t.Fatalf("got %v", err)
		}
		if x.inForce().Fingerprint() != x.v1.Fingerprint() {
			t.Fatal("the key in force is another one")
		}
	})
	t.Run("key in force is another by now", func(t *testing.T) {
		x := newRotationTest(t)
		if _, err := x.r.Begin(ctx, x.id.Recipient()); err != nil {
			t.Fatal(err)
		}
		_, code := x.opened(x.r.NextEscrow())
		if err := os.WriteFile(x.r.Credential, marshal(t, newKeyset(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := x.r.Confirm(ctx, code); !errors.Is(err, ErrMissingVersion) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("no master key", func(t *testing.T) {
		x := newRotationTest(t)
		if err := os.Remove(x.r.Credential); err != nil {
			t.Fatal(err)
		}
		if _, err := x.r.Begin(ctx, x.id.Recipient()); !errors.Is(err, ErrNoKey) {
			t.Fatalf("got %v", err)
		}
	})
}

var errCrash = errors.New("crash")

// crashing fails its nth change of the disk, before or after it took effect.
type crashing struct {
	left  int
	after bool
}

func (c *crashing) do(change func() error) error {
	c.left--
	if c.left != 0 {
		return change()
	}
	if c.after {
		if err := change(); err != nil {
			return err
		}
	}
	return errCrash
}

type crashingStore struct{ *crashing }

func (s crashingStore) Open(ctx context.Context, path string) ([]byte, error) {
	return FileStore{}.Open(ctx, path)
}

func (s crashingStore) Seal(ctx context.Context, path string, plain []byte) error {
	return s.do(func() error { return FileStore{}.Seal(ctx, path, plain) })
}

// Wherever a rotation is cut off, the escrow opens what the key in force
// seals, and doing it again brings it to its end.
func TestRotationCrashes(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			x := newRotationTest(t)
			c := &crashing{left: n, after: after}
			clean := *x.r
			x.r.Store = crashingStore{c}
			x.r.write = func(p string, b []byte, m fs.FileMode) error {
				return c.do(func() error { return atomicfile.Write(p, b, m) })
			}
			x.r.rename = func(a, b string) error { return c.do(func() error { return durableRename(a, b) }) }
			x.r.remove = func(p string) error {
				return c.do(func() error {
					if err := os.Remove(p); !errors.Is(err, fs.ErrNotExist) {
						return err
					}
					return nil
				})
			}
			x.r.record = func(dir, file, by, key string, now time.Time) error {
				return c.do(func() error { return escrow.Record(dir, file, by, key, now) })
			}
			var code string
			_, err := x.r.Begin(t.Context(), x.id.Recipient())
			if err == nil {
				_, code = x.opened(x.r.NextEscrow())
				_, err = x.r.Confirm(t.Context(), code)
			}
			check := func() {
				t.Helper()
				k := x.inForce()
				e, _ := x.opened(x.r.Escrow)
				if err := extends(e, k); err != nil {
					t.Fatalf("change %d (after: %v): the escrow does not open what is in force: %v", n, after, err)
				}
				if err := extends(k, x.v1); err != nil {
					t.Fatalf("change %d (after: %v): the key in force has lost the first version: %v", n, after, err)
				}
			}
			check()
			if err == nil {
				if n < 6 {
					t.Fatalf("only %d changes of the disk were made to fail", n-1)
				}
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("change %d: %v", n, err)
			}
			// Once more, on a disk that works.
			if code == "" || errors.Is(confirmErr(clean.Confirm(t.Context(), code)), ErrNoRotation) {
				if x.inForce().Primary() == 1 {
					if _, err := clean.Begin(t.Context(), x.id.Recipient()); err != nil {
						t.Fatalf("change %d: begin again: %v", n, err)
					}
					_, code = x.opened(clean.NextEscrow())
					if _, err := clean.Confirm(t.Context(), code); err != nil {
						t.Fatalf("change %d: confirm: %v", n, err)
					}
				}
			}
			check()
			if v := x.inForce().Primary(); v != 2 {
				t.Fatalf("change %d (after: %v): version %d is in force at the end", n, after, v)
			}
			if files, err := escrow.LoadStatus(filepath.Dir(x.r.Escrow)); err != nil || len(files) != 1 || files[0].By != escrow.ByRotation || !files[0].Confirmed() {
				t.Fatalf("change %d (after: %v): the escrow that was confirmed: %+v, %v", n, after, files, err)
			}
		}
	}
}

func confirmErr(_ Pending, err error) error { return err }

// The key is sealed as the configuration has it, and what cannot be opened again
// never takes the place of what can.
func TestSystemdStore(t *testing.T) {
	m := &credtest.Machine{TPM: &credtest.TPM{Firmware: true}}
	s := SystemdStore{Run: m.Run, How: func() (string, error) { return config.SealAuto, nil }}
	plain := marshal(t, newKeyset(t))
	path := filepath.Join(t.TempDir(), "cred")
	if _, err := s.Open(t.Context(), path); !errors.Is(err, ErrNoKey) {
		t.Errorf("no credential: %v", err)
	}
	if err := s.Seal(t.Context(), path, plain); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	for _, call := range m.Calls {
		if strings.Contains(strings.Join(call, " "), "BEGIN") {
			t.Error("a secret in the arguments")
		}
	}
	m.SecureBootUpdate()
	got, err := s.Open(t.Context(), path)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if how, ok := credential.Inspect(before); !ok || how.Way != credential.TPM {
		t.Errorf("sealed %v", how)
	}
	m.PowerCuts()
	if err := s.Seal(t.Context(), path, plain); !errors.Is(err, credential.ErrLockout) {
		t.Errorf("in lockout: %v", err)
	}
	bad := SystemdStore{Run: m.Run, How: func() (string, error) { return "", errors.New("no configuration") }}
	if err := bad.Seal(t.Context(), path, plain); err == nil {
		t.Error("sealed without knowing how")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Error("what was there was replaced")
	}
}
