package snapshot

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

// FilesFrom returns a TakeOptions.Files that archives the given absolute paths,
// directories with all in them. A path that is not there is left out: a
// machine whose certificate is not issued yet has backups all the same. That no file is
// there at all is an error, and a path that is itself a link stands for what it leads to.
// Below it only plain files and directories are taken; links, sockets and devices are
// not.
func FilesFrom(paths ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		n := 0
		for _, p := range paths {
			if err := addTree(ctx, tw, p, &n); err != nil {
				return fmt.Errorf("archive %q: %w", p, err)
			}
		}
		if n == 0 && len(paths) > 0 {
			return fmt.Errorf("archive %q: no file is there", paths)
		}
		return tw.Close()
	}
}

func addTree(ctx context.Context, tw *tar.Writer, root string, files *int) error {
	if !filepath.IsAbs(root) {
		return errors.New("want an absolute path")
	}
	// One that is named is meant, also where it is a link: an empty archive would pass
	// for what lies behind it.
	at, err := filepath.EvalSymlinks(root)
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(root); lerr == nil {
			return fmt.Errorf("a link that leads nowhere: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	// What lies below may be a service's, who could put a link in the place of a folder.
	top, base := at, "."
	if fi, err := os.Stat(at); err == nil && !fi.IsDir() {
		top, base = filepath.Split(at)
	}
	dir, err := atomicfile.OpenRoot(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return fs.WalkDir(dir.FS(), base, func(rel string, e fs.DirEntry, err error) error {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		// Certificate storage changes under us: what is gone is gone.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return nil
		}
		if !e.IsDir() {
			*files++
		}
		return addFile(tw, dir, rel, filepath.Join(top, rel))
	})
}

// addFile adds one file. The header is made from the open file, so that size
// and content belong together.
func addFile(tw *tar.Writer, dir *os.Root, rel, path string) error {
	// Neither a link nor a pipe that took the file's place since.
	f, err := dir.OpenFile(rel, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() {
		return nil
	}
	h, err := tar.FileInfoHeader(fi, "")
	if err != nil {
		return err
	}
	h.Name = strings.TrimPrefix(filepath.ToSlash(path), "/")
	if fi.IsDir() {
		h.Name += "/"
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if fi.IsDir() {
		return nil
	}
	// A file that grows is cut to what the header says; one that shrinks is an
	// error of CopyN's, and the whole run fails rather than lie.
	if _, err := io.CopyN(tw, f, fi.Size()); err != nil {
		return fmt.Errorf("%q changed while it was read: %w", path, err)
	}
	return nil
}

// checkFiles reads a files archive to its end.
func checkFiles(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		switch _, err := tr.Next(); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return fmt.Errorf("files archive: %w", classify("tar", err))
		}
		if _, err := io.Copy(io.Discard, tr); err != nil {
			return fmt.Errorf("files archive: %w", classify("tar", err))
		}
	}
}
