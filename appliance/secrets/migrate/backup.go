package migrate

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

// kept is a file as it was, and as the cutover left it.
type kept struct {
	name string // relative to the root, with slashes
	data []byte
	mode fs.FileMode
	// owned says that uid and gid are known.
	owned    bool
	uid, gid int
	// attributes are extended ones, an access control list among them; mode is for
	// where there is no list.
	attributes map[string]string
	// after is nil where the backup does not tell.
	after []byte
	// dialect of a .env file; 0 for code.
	dialect dotenv.Dialect
}

// The records of a file in the archive that are ours; after has the folder under
// which what a cutover has left stands. It holds nothing that was moved.
const (
	recordDialect = "STRONGROOM.dialect"
	// Extended attributes stand as star and GNU tar have them ("tar --xattrs -x").
	recordXattr = "SCHILY.xattr."
	afterDir    = StateDir + "/after/"
)

// ErrWrongIdentity is a backup that none of the given keys opens.
var ErrWrongIdentity = errors.New("none of the given keys opens this backup")

// writeBackup encrypts a tar archive of files to the recipients, under the next
// free name of the state folder. "age --decrypt | tar -x" opens it without this
// program.
func (s *state) writeBackup(files []kept, to []age.Recipient) (string, error) {
	if len(to) == 0 {
		return "", errors.New("backup: no recipient")
	}
	name := ""
	for n := 1; ; n++ {
		name = fmt.Sprintf("backup-%04d.tar.age", n)
		if _, err := os.Lstat(filepath.Join(s.dir, name)); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return "", fmt.Errorf("backup: %w", err)
		}
	}
	f, err := atomicfile.Create(filepath.Join(s.dir, name), 0o600)
	if err != nil {
		return "", err
	}
	defer f.Abort()
	if err := atomicfile.LikeFolder(s.dir, f); err != nil {
		return "", err
	}
	w, err := age.Encrypt(f, to...)
	if err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	t := tar.NewWriter(w)
	for _, k := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: k.name, Mode: int64(k.mode.Perm()), Size: int64(len(k.data)), Format: tar.FormatPAX, Uid: k.uid, Gid: k.gid}
		h.PAXRecords = map[string]string{}
		if k.dialect != 0 {
			h.PAXRecords[recordDialect] = k.dialect.String()
		}
		for name, value := range k.attributes {
			h.PAXRecords[recordXattr+name] = value
		}
		after := &tar.Header{Typeflag: tar.TypeReg, Name: afterDir + k.name, Mode: 0o600, Size: int64(len(k.after)), Format: tar.FormatPAX}
		for _, one := range []struct {
			head *tar.Header
			data []byte
		}{{after, k.after}, {h, k.data}} {
			if one.head == after && k.after == nil {
				continue
			}
			if err := t.WriteHeader(one.head); err != nil {
				return "", fmt.Errorf("backup of %q: %w", k.name, err)
			}
			if _, err := t.Write(one.data); err != nil {
				return "", fmt.Errorf("backup of %q: %w", k.name, err)
			}
		}
	}
	if err := errors.Join(t.Close(), w.Close()); err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	return name, f.Commit()
}

// readBackup opens what writeBackup made. A truncated or damaged one is an
// error: age authenticates every byte.
func (s *state) readBackup(name string, with []age.Identity) ([]kept, error) {
	if len(with) == 0 {
		return nil, fmt.Errorf("backup %q: %w", name, ErrWrongIdentity)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	defer f.Close()
	r, err := age.Decrypt(f, with...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return nil, fmt.Errorf("backup %q: %w", name, ErrWrongIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %q: %w", name, err)
	}
	var out []kept
	after := map[string][]byte{}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("backup %q: %w", name, err)
		}
		data, err := io.ReadAll(io.LimitReader(t, h.Size))
		if err != nil {
			return nil, fmt.Errorf("backup %q: %w", name, err)
		}
		if of, ok := strings.CutPrefix(h.Name, afterDir); ok {
			after[of] = data
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(h.Name)) {
			return nil, fmt.Errorf("backup %q: %q is outside of the tree", name, h.Name)
		}
		k := kept{name: h.Name, data: data, mode: fs.FileMode(h.Mode).Perm(), owned: true, uid: h.Uid, gid: h.Gid, after: after[h.Name], attributes: map[string]string{}}
		for record, value := range h.PAXRecords {
			if attribute, ok := strings.CutPrefix(record, recordXattr); ok {
				k.attributes[attribute] = value
			}
		}
		if d := h.PAXRecords[recordDialect]; d != "" {
			if k.dialect, err = dotenv.ParseDialect(d); err != nil {
				return nil, fmt.Errorf("backup %q: %w", name, err)
			}
		}
		out = append(out, k)
	}
	// The archive's end is not the file's: the last chunk must be whole too.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fmt.Errorf("backup %q: %w", name, err)
	}
	return out, nil
}
