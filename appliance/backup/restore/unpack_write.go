package restore

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"strongroom.example/appliance/base/atomicfile"
)

// Unpack writes the files of the archive that differ, each atomically, with its
// mode and time of then. Newer files stop it before anything is written
// (ErrNewer), unless o.Overwrite says otherwise. Run again after a failure it
// goes on.
func (f *Files) Unpack(ctx context.Context, o UnpackOptions) (Unpacking, error) {
	u, err := f.Plan(ctx, o)
	if err != nil {
		return u, err
	}
	if len(u.Newer) > 0 && !o.Overwrite {
		return u, fmt.Errorf("%w: %s", ErrNewer, strings.Join(u.Newer, ", "))
	}
	root, err := atomicfile.OpenRoot(o.Root)
	if err != nil {
		return u, fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	w := unpacker{root: root, o: o, dirs: map[string]Entry{}}
	err = f.checked.Open(ctx, func(r io.Reader) error {
		return eachEntry(r, func(e Entry, body io.Reader) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if e.Mode.IsDir() {
				w.dirs[e.Name] = e
				return nil
			}
			if !o.wants(e) || slices.Contains(u.Same, e.Name) {
				return nil
			}
			if err := w.file(e, body); err != nil {
				return fmt.Errorf("unpack %q: %w", e.Name, err)
			}
			return nil
		})
	})
	return u, err
}

type unpacker struct {
	root *os.Root
	o    UnpackOptions
	dirs map[string]Entry // folders of the archive so far: before their files
}

func (w *unpacker) file(e Entry, body io.Reader) error {
	if err := w.parents(path.Dir(e.Name)); err != nil {
		return err
	}
	raw := make([]byte, 8)
	if _, err := rand.Read(raw); err != nil {
		return err
	}
	tmp := path.Join(path.Dir(e.Name), "."+path.Base(e.Name)+".tmp-"+hex.EncodeToString(raw))
	f, err := w.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = w.own(tmp, e)
	}
	if err == nil {
		err = w.root.Chmod(tmp, e.Mode.Perm())
	}
	if err == nil {
		err = w.root.Chtimes(tmp, e.header.ModTime, e.header.ModTime)
	}
	if err == nil {
		err = w.root.Rename(tmp, e.Name) // the commit point
	}
	if err != nil {
		return errors.Join(err, w.root.Remove(tmp))
	}
	return w.sync(path.Dir(e.Name))
}

// parents makes the folders that are missing, with their modes of then.
func (w *unpacker) parents(dir string) error {
	if dir == "." {
		return nil
	}
	fi, err := w.root.Stat(dir)
	if err == nil && fi.IsDir() {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%w: %q is there and is no folder", ErrUnsafe, dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := w.parents(path.Dir(dir)); err != nil {
		return err
	}
	e, known := w.dirs[dir]
	if !known {
		e = Entry{Name: dir, Mode: fs.ModeDir | 0o755, header: &tar.Header{}}
	}
	if err := w.root.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := w.own(dir, e); err != nil {
		return err
	}
	return w.root.Chmod(dir, e.Mode.Perm())
}

// own gives file, which will be e or is e's folder, its owner.
func (w *unpacker) own(file string, e Entry) error {
	if w.o.KeepOwners {
		uid, gid := ownerHere(e.header)
		if fi, err := w.root.Lstat(e.Name); err == nil && file != e.Name {
			uid, gid, _ = ownerOf(fi)
		}
		return w.root.Lchown(file, uid, gid)
	}
	if w.o.Owner == nil {
		return nil
	}
	uid, gid := w.o.Owner(e.Name)
	return w.root.Lchown(file, uid, gid)
}

func (w *unpacker) sync(dir string) error {
	d, err := w.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
