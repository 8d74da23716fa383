package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"strongroom.example/config"
)

// maxAncestors bounds the walk: /proc is not read at one moment.
const maxAncestors = 64

// sshSession is the SSH session that this process runs in, as SSH_CONNECTION
// tells it (ssh(1)); "" for none. sudo takes the variable away, but the shell
// before it had it.
func sshSession() string {
	if s := os.Getenv("SSH_CONNECTION"); s != "" {
		return s
	}
	return ancestorSession("/proc", os.Getppid())
}

// ancestorSession looks for SSH_CONNECTION with which pid or the nearest of its
// ancestors was started. One that can't be read is passed over.
func ancestorSession(proc string, pid int) string {
	const name = "SSH_CONNECTION="
	for range maxAncestors {
		if pid <= 1 {
			return ""
		}
		dir := filepath.Join(proc, strconv.Itoa(pid))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		for v := range bytes.SplitSeq(environ, []byte{0}) {
			if s, ok := strings.CutPrefix(string(v), name); ok && s != "" {
				return s
			}
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			return ""
		}
		// The name, in brackets, may hold anything; state and parent follow.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) < 2 {
			return ""
		}
		if pid, err = strconv.Atoi(f[1]); err != nil {
			return ""
		}
	}
	return ""
}

// fromEveryone says whether the rules let SSH in from every address.
func fromEveryone(w config.Firewall) bool {
	return slices.Contains(w.SSHFrom, "0.0.0.0/0") && slices.Contains(w.SSHFrom, "::/0")
}
