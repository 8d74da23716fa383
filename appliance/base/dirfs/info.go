package dirfs

import (
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Info is what is known of a name in a folder.
type Info struct {
	// Plain says that it is a regular file of the folder's owner with one name: one
	// that Open opens.
	Plain bool
	// Regular says that it is a file at all.
	Regular bool
	UID     uint32
	Links   uint64
	Inode   uint64
	Size    int64 // bytes
	Mode    fs.FileMode
	ModTime time.Time
}

func (d *Dir) info(st *unix.Stat_t) Info {
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	return Info{
		Plain:   regular && st.Uid == d.uid && st.Nlink == 1,
		Regular: regular, UID: st.Uid, Links: uint64(st.Nlink), Inode: st.Ino, Size: st.Size,
		Mode: os.FileMode(st.Mode & 0o777), ModTime: time.Unix(st.Mtim.Unix()),
	}
}
