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

	"strongroom.example/appliance/base/dirfs"
)

// files is what Rotate does to the folder, so that tests can let each call fail.
type files interface {
	// RenameNew fails with fs.ErrExist when the new name is taken.
	RenameNew(old, new string) error
	Remove(name string) error
	Create(name string) (newFile, error)
	Sync() error
}

// newFile appears under its name with Commit.
type newFile interface {
	io.Writer
	Commit() error
	Abort()
}

// osFiles are the real ones.
type osFiles struct{ *dirfs.Dir }

var _ files = osFiles{}

// Create makes files that only their owner reads, and nobody executes.
func (o osFiles) Create(name string) (newFile, error) { return o.Dir.Create(name) }

// compressAll compresses what is rotated and not compressed yet. A log whose
// live file is missing is left alone: Vault may still write to it.
func (r *run) compressAll(ctx context.Context) error {
	all, err := scan(r.dir)
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
	src, err := r.dir.Open(f.name)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := r.dir.Lstat(f.name + ".gz"); err == nil {
		// An interrupted run ended between the commit below and the removal, or
		// somebody put a file there.
		if err := r.compare(ctx, src, f.name+".gz"); err != nil {
			return err
		}
		return r.files.Remove(f.name)
	}
	dst, err := r.files.Create(f.name + ".gz")
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
	if err := r.compare(ctx, src, f.name+".gz"); err != nil {
		return errors.Join(err, r.files.Remove(f.name+".gz"))
	}
	return r.files.Remove(f.name)
}

// compare reads both to their ends.
func (r *run) compare(ctx context.Context, src *os.File, gz string) error {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := r.dir.Open(gz)
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
