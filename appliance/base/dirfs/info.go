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
	Device  uint64
	Inode   uint64
	Size    int64 // bytes
	Mode    fs.FileMode
	ModTime time.Time
	// Changed is when anything of the file was last changed, its name too. Its owner
	// cannot set it.
	Changed time.Time
}

func (d *Dir) info(st *unix.Stat_t) Info {
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	return Info{
		Plain:   regular && st.Uid == d.uid && st.Nlink == 1,
		Regular: regular, UID: st.Uid, Links: uint64(st.Nlink), Device: st.Dev, Inode: st.Ino, Size: st.Size,
		Mode: os.FileMode(st.Mode & 0o777), ModTime: time.Unix(st.Mtim.Unix()), Changed: time.Unix(st.Ctim.Unix()),
	}
}

// Birth is when the file of a name was made, which nobody can set: an inode's number is
// given again. It is zero where the file system does not know.
func (d *Dir) Birth(name string) (time.Time, error) {
	if err := d.single("stat", name); err != nil {
		return time.Time{}, err
	}
	var st unix.Statx_t
	if err := unix.Statx(int(d.f.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st); err != nil {
		return time.Time{}, d.fault("stat", name, err)
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}, nil
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)), nil
}
