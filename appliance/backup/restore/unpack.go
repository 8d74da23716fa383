package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/atomicfile"
)

var (
	// ErrNoFiles means that the snapshot was taken without files.
	ErrNoFiles = errors.New("the snapshot has no files beside it")
	// ErrUnsafe means that a files archive holds what no snapshot job puts
	// there: a path out of its folder, a link, a device, a name twice.
	ErrUnsafe = errors.New("the files archive is not safe to unpack")
	// ErrNewer means that files on the disk are newer than those in the
	// archive.
	ErrNewer = errors.New("files there are newer than those of the snapshot")
)

// Files is a files archive on this machine that has been checked wholly:
// certificates and configuration as they were beside a snapshot.
type Files struct{ checked *Checked }

// FetchFiles downloads the files beside a snapshot, still encrypted, into a
// nameless file in dir and checks them there. ErrNoFiles where there are none.
func FetchFiles(ctx context.Context, c Choice, ids []age.Identity, dir string) (*Files, error) {
	if c.Manifest.Files == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoFiles, c.Manifest.ID)
	}
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	k := &Checked{file: f, obj: *c.Manifest.Files, ids: ids, Size: c.Manifest.Files.Size}
	if err := k.download(ctx, c.Destination); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	files := &Files{k}
	if _, err := files.List(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.Destination.Name(), err), f.Close())
	}
	return files, nil
}

// FilesFromFile checks a files archive in a local file, X.files.age.
func FilesFromFile(ctx context.Context, name string, ids []age.Identity) (*Files, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("files archive: %w", err)
	}
	k := &Checked{file: f, ids: ids}
	files := &Files{k}
	err = func() error {
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		if k.Size = fi.Size(); !fi.Mode().IsRegular() {
			return errors.New("not a plain file")
		}
		if k.obj, err = k.measure(name); err != nil {
			return err
		}
		_, err = files.List(ctx)
		return err
	}()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("files archive %q: %w", name, err), f.Close())
	}
	return files, nil
}

// Close lets the local copy go.
func (f *Files) Close() error { return f.checked.Close() }

// Entry is one file or folder of the archive.
type Entry struct {
	Name   string // slash-separated, without the leading slash
	Mode   fs.FileMode
	Size   int64  // bytes
	SHA256 string // of a file, hex
	header *tar.Header
}

// maxEntries bounds how many files an archive may have.
const maxEntries = 100_000

// List reads the archive to its end and gives what it holds.
func (f *Files) List(ctx context.Context) ([]Entry, error) {
	var out []Entry
	err := f.checked.Open(ctx, func(r io.Reader) (err error) {
		out, err = listTar(r)
		return err
	})
	return out, err
}

func listTar(r io.Reader) ([]Entry, error) {
	var out []Entry
	seen := map[string]bool{}
	err := eachEntry(r, func(e Entry, body io.Reader) error {
		if seen[e.Name] {
			return fmt.Errorf("%w: %q is there twice", ErrUnsafe, e.Name)
		}
		if seen[e.Name] = true; len(seen) > maxEntries {
			return fmt.Errorf("%w: more than %d files", ErrUnsafe, maxEntries)
		}
		if !e.Mode.IsDir() {
			h := sha256.New()
			if _, err := io.Copy(h, body); err != nil {
				return fmt.Errorf("%w: %w", snapshot.ErrCorrupt, err)
			}
			e.SHA256 = fmt.Sprintf("%x", h.Sum(nil))
		}
		out = append(out, e)
		return nil
	})
	return out, err
}

// eachEntry walks over a tar archive and stops at anything that the snapshot
// job would not have put there.
func eachEntry(r io.Reader, do func(Entry, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			// What follows the end mark belongs to it: zeros.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", snapshot.ErrCorrupt, err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		switch {
		case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir:
			return fmt.Errorf("%w: %q is neither a file nor a folder", ErrUnsafe, h.Name)
		case !fs.ValidPath(name) || name == "." || path.Clean(name) != name || strings.ContainsAny(name, "\\\x00"):
			return fmt.Errorf("%w: the name %q", ErrUnsafe, h.Name)
		}
		// Never set-user-id: what was a plain file comes back as one.
		mode := fs.FileMode(h.Mode) & fs.ModePerm
		if h.Typeflag == tar.TypeDir {
			mode |= fs.ModeDir
		}
		if err := do(Entry{Name: name, Mode: mode, Size: h.Size, header: h}, tr); err != nil {
			return err
		}
	}
}

// Read gives the content of one file, which may have limit bytes at most; an
// error that is fs.ErrNotExist where it is not in the archive.
func (f *Files) Read(ctx context.Context, name string, limit int64) ([]byte, error) {
	var out []byte
	err := f.checked.Open(ctx, func(r io.Reader) error {
		found := false
		err := eachEntry(r, func(e Entry, body io.Reader) error {
			if e.Name != name || e.Mode.IsDir() {
				return nil
			}
			if e.Size > limit {
				return fmt.Errorf("%q has %d bytes, more than %d", name, e.Size, limit)
			}
			var b bytes.Buffer
			if _, err := io.Copy(&b, body); err != nil {
				return err
			}
			out, found = b.Bytes(), true
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("%q in the files archive: %w", name, fs.ErrNotExist)
		}
		return err
	})
	return out, err
}

// UnpackOptions say what goes where.
type UnpackOptions struct {
	// Root is the folder to unpack under; it must be there. Nothing is written
	// outside of it, whatever links it holds.
	Root string
	// Want picks files by their names; all when nil.
	Want func(name string) bool
	// Owner gives the owner of what is written; the process's own when nil.
	Owner func(name string) (uid, gid int)
	// KeepOwners gives what is written the owner of the file that it replaces,
	// or else the archive's by name where this machine has such a user or group;
	// it takes the place of Owner, and needs root.
	KeepOwners bool
	// Overwrite allows newer files to be replaced too.
	Overwrite bool
}

// Unpacking is what an Unpack does, or would do.
type Unpacking struct {
	New, Replaced, Same, Newer []string // names of files
}

// Plan compares the archive with what is there and changes nothing.
func (f *Files) Plan(ctx context.Context, o UnpackOptions) (Unpacking, error) {
	var u Unpacking
	entries, err := f.List(ctx)
	if err != nil {
		return u, err
	}
	root, err := atomicfile.OpenRoot(o.Root)
	if err != nil {
		return u, fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	var faults []error
	for _, e := range entries {
		if !o.wants(e) {
			continue
		}
		faults = append(faults, u.compare(root, e))
	}
	return u, errors.Join(faults...)
}

// wants picks files; folders come with them.
func (o UnpackOptions) wants(e Entry) bool {
	return !e.Mode.IsDir() && (o.Want == nil || o.Want(e.Name))
}

func (u *Unpacking) compare(root *os.Root, e Entry) error {
	fi, err := root.Lstat(e.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		u.New = append(u.New, e.Name)
		return nil
	case err != nil:
		return fmt.Errorf("unpack: %w", err)
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%w: %q is there and is no plain file", ErrUnsafe, e.Name)
	}
	if fi.Size() == e.Size {
		same, err := sameContent(root, e)
		if err != nil {
			return err
		}
		if same {
			u.Same = append(u.Same, e.Name)
			return nil
		}
	}
	if fi.ModTime().After(e.header.ModTime) {
		u.Newer = append(u.Newer, e.Name)
	} else {
		u.Replaced = append(u.Replaced, e.Name)
	}
	return nil
}

func sameContent(root *os.Root, e Entry) (bool, error) {
	f, err := root.Open(e.Name)
	if err != nil {
		return false, fmt.Errorf("unpack: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, fmt.Errorf("unpack: %w", err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)) == e.SHA256, nil
}
