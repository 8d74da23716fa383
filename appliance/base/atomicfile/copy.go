package atomicfile

import (
	"io"
	"io/fs"
	"os"
)

// Copy is Write of what is in the file at from.
func Copy(from, path string, perm fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Commit()
}
