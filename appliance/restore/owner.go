package restore

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// chownLike gives a file the owner that was has.
func chownLike(path string, was fs.FileInfo) error {
	st, ok := was.Sys().(*syscall.Stat_t)
	if !ok || (int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid()) {
		return nil
	}
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("epoch file: %w", err)
	}
	return nil
}
