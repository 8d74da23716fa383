package atomicfile

import "fmt"

// Chown gives the file under way to uid and gid, so that it never appears under
// its path with another owner.
func (f *File) Chown(uid, gid int) error {
	if err := f.tmp.Chown(uid, gid); err != nil {
		return fmt.Errorf("write %q: %w", f.path, err)
	}
	return nil
}
