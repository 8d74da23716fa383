package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/config/recipient"
)

// packer is a socket at which each who asks is served so.
func packer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			serve(c)
			_ = c.Close()
		}
	}()
	return socket
}

func TestTakeWithPackedFiles(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a"), bytes.Repeat([]byte("x"), 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	k, d := newKeys(t), newMem("mem")
	pack := func(c net.Conn, paths ...string) error {
		return Pack(t.Context(), c, t.TempDir(), []recipient.Recipient{k.recipient}, FilesFrom(paths...))
	}
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Packed = Packed(packer(t, func(c net.Conn) {
		if err := pack(c, root); err != nil {
			t.Error(err)
		}
	}))
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if f := taken.Manifest.Files; f == nil || f.PlainSize < 300_000 || f.Size <= f.PlainSize {
		t.Errorf("files %+v", f)
	}
	if rec, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil || rec.ID != taken.Manifest.ID {
		t.Errorf("verified %+v, %v", rec, err)
	}
	whole := &bytes.Buffer{}
	if err := Pack(t.Context(), whole, t.TempDir(), []recipient.Recipient{k.recipient}, FilesFrom(root)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"nothing to pack": {func(c net.Conn) {
			if err := pack(c, filepath.Join(root, "none")); err == nil {
				t.Error("an archive of nothing")
			}
		}, "no file is there"},
		"ends at once":    {func(net.Conn) {}, "has said nothing"},
		"says no JSON":    {func(c net.Conn) { _, _ = io.WriteString(c, "{\n") }, "the job that packs them"},
		"an endless line": {func(c net.Conn) { _, _ = c.Write(bytes.Repeat([]byte("x"), 2*maxPackLine)) }, "has said nothing"},
		"killed in its midst": {func(c net.Conn) {
			_, _ = c.Write(whole.Bytes()[:whole.Len()/2])
		}, "in the midst of it"},
		"other bytes": {func(c net.Conn) {
			b := slices.Clone(whole.Bytes())
			b[len(b)-1] ^= 1
			_, _ = c.Write(b)
		}, "in the midst of it"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newMem("mem")
			o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
			o.Packed = Packed(packer(t, tt.serve))
			taken, err := Take(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "without the files") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			// Vault's state is stored all the same.
			if rec, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil || rec.ID != taken.Manifest.ID || taken.Manifest.Files != nil {
				t.Errorf("verified %+v, %v", rec, err)
			}
		})
	}
	t.Run("nobody is there", func(t *testing.T) {
		if _, err := Packed(filepath.Join(t.TempDir(), "s"))(t.Context(), io.Discard, time.Minute); err == nil {
			t.Error("no error")
		}
	})
	t.Run("hangs, and is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		socket := packer(t, func(c net.Conn) {
			cancel()
			_, _ = io.Copy(io.Discard, c)
		})
		if _, err := Packed(socket)(ctx, io.Discard, time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		a, b := net.Pipe()
		defer func() { _ = errors.Join(a.Close(), b.Close()) }()
		if _, err := receive(io.Discard, &patient{a, time.Nanosecond, time.Nanosecond}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// What a service puts in the place of its folder leads nobody out of the tree that was named.
func TestFilesOfAFolderThatIsSwapped(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "d"), 0o700), os.WriteFile(filepath.Join(root, "a"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(root, "d", "f"), []byte("x"), 0o600), os.WriteFile(filepath.Join(outside, "f"), []byte("canary"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	swap := writes(func(p []byte) (int, error) {
		if bytes.HasPrefix(p, []byte(strings.TrimPrefix(root, "/")+"/d/\x00")) {
			if err := errors.Join(os.Rename(filepath.Join(root, "d"), filepath.Join(root, "gone")), os.Symlink(outside, filepath.Join(root, "d"))); err != nil {
				t.Error(err)
			}
		}
		return got.Write(p)
	})
	err := FilesFrom(root)(t.Context(), swap)
	if _, swapped := os.Readlink(filepath.Join(root, "d")); swapped != nil {
		t.Fatal("nothing was swapped")
	}
	if bytes.Contains(got.Bytes(), []byte("canary")) {
		t.Errorf("a file from outside is in the archive (%v)", err)
	}
}

type writes func([]byte) (int, error)

func (f writes) Write(p []byte) (int, error) { return f(p) }
