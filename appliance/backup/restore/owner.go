package restore

import (
	"archive/tar"
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf gives the owner of a file that is there.
func ownerOf(fi fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1, false
	}
	return int(st.Uid), int(st.Gid), true
}

// ownerHere gives the owner that an archive names, as far as this machine has
// users and groups of these names; -1 leaves one as it is. Numbers say nothing on
// another machine.
func ownerHere(h *tar.Header) (uid, gid int) {
	uid, gid = -1, -1
	if u, err := user.Lookup(h.Uname); h.Uname != "" && err == nil {
		if n, err := strconv.Atoi(u.Uid); err == nil {
			uid = n
		}
	}
	if g, err := user.LookupGroup(h.Gname); h.Gname != "" && err == nil {
		if n, err := strconv.Atoi(g.Gid); err == nil {
			gid = n
		}
	}
	return uid, gid
}
