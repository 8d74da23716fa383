package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

// files is what Rotate does to the file system, so that tests can let each call
// fail.
type files interface {
	// RenameNew fails with fs.ErrExist when the new name is taken.
	RenameNew(old, new string) error
	Remove(path string) error
	Create(path string) (newFile, error)
	SyncDir(path string) error
}

// newFile appears under its path with Commit.
type newFile interface {
	io.Writer
	Commit() error
	Abort()
}

type osFiles struct{}

var _ files = osFiles{}

func (osFiles) RenameNew(old, new string) error {
	err := unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, new, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: old, New: new, Err: err}
	}
	return nil
}

func (osFiles) Remove(path string) error  { return os.Remove(path) }
func (osFiles) SyncDir(path string) error { return atomicfile.SyncDir(path) }

// Create makes files that only their owner reads, and nobody executes.
func (osFiles) Create(path string) (newFile, error) {
	f, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.LikeFolder(filepath.Dir(path), f); err != nil {
		f.Abort()
		return nil, err
	}
	return f, nil
}

// compressAll compresses what is rotated and not compressed yet. A log whose
// live file is missing is left alone: Vault may still write to it.
func (r *run) compressAll(ctx context.Context) error {
	all, err := scan(r.Dir)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, f := range all {
		if f.live() {
			there[f.base] = true
		}
	}
	var errs []error
	for _, f := range all {
		if f.live() || f.gz {
			continue
		}
		if !there[f.base] {
			continue
		}
		if err := r.compress(ctx, f); err != nil {
			errs = append(errs, fmt.Errorf("compress %q: %w", r.path(f.name), err))
		}
	}
	return errors.Join(errs...)
}

// compress replaces a rotated log by its compressed form, which has been read
// back and compared before.
func (r *run) compress(ctx context.Context, f logFile) error {
	path := r.path(f.name)
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := os.Lstat(path + ".gz"); err == nil {
		// An interrupted run ended between the commit below and the removal, or
		// somebody put a file there.
		if err := r.compare(ctx, src, path+".gz"); err != nil {
			return err
		}
		return r.files.Remove(path)
	}
	dst, err := r.files.Create(path + ".gz")
	if err != nil {
		return err
	}
	defer dst.Abort()
	z := gzip.NewWriter(dst)
	z.Name, z.ModTime = f.name, f.mod
	n, err := io.Copy(z, ctxReader{ctx, src})
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return err
	}
	if fi, err := src.Stat(); err != nil || fi.Size() != n {
		return errors.Join(err, fmt.Errorf("it grew from %d to %d bytes meanwhile: somebody still writes to it", n, fi.Size()))
	}
	// The commit point: from here on there are two copies, never none.
	if err := dst.Commit(); err != nil {
		return err
	}
	if err := r.compare(ctx, src, path+".gz"); err != nil {
		return errors.Join(err, r.files.Remove(path+".gz"))
	}
	return r.files.Remove(path)
}

// compare reads both to their ends.
func (r *run) compare(ctx context.Context, src *os.File, gz string) error {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.Open(gz)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read back %q: %w", gz, err)
	}
	want, got := sha256.New(), sha256.New()
	if _, err := io.Copy(want, ctxReader{ctx, src}); err != nil {
		return err
	}
	if _, err := io.Copy(got, ctxReader{ctx, z}); err != nil {
		return fmt.Errorf("read back %q: %w", gz, err)
	}
	if !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("%q holds something else", gz)
	}
	return nil
}

// ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
