// Package command runs the machine's own programs for root. They are looked up in
// a PATH of our own, and get an environment of our own: the caller's may name
// other programs, libraries and servers, and hold a token.
//
// It is not for programs that a person has chosen, git say: those are the
// person's.
package command

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"strongroom.example/config/machine"
)

// Environ is what a command gets, and what is added for it.
func Environ(more ...string) []string {
	return append([]string{
		"PATH=" + machine.SearchPath, "HOME=/", "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=",
	}, more...)
}

// New is exec.CommandContext for a program by its path, or by a name in
// machine.SearchPath; where there is none, the call fails with exec.ErrNotFound, which is fs.ErrNotExist
// too.
//
// It runs in a process group of its own: Ctrl-C and the end of a terminal are for
// who has started it to act on. The end of ctx kills the group.
func New(ctx context.Context, name string, args ...string) *exec.Cmd {
	path, err := lookPath(name)
	c := exec.CommandContext(ctx, path, args...)
	c.Args[0] = name
	if err != nil {
		c.Err = err
	}
	c.Env = Environ()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	return c
}

// lookPath never gives a name without a slash, which would be looked up again.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(machine.SearchPath) {
		p := filepath.Join(dir, name)
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "/" + name, missing(name)
}

// missing is the name of a program that there is not.
type missing string

// Error implements error.
func (m missing) Error() string { return fmt.Sprintf("program %q: not found", string(m)) }

// Is makes it what os/exec and who looks for files say.
func (missing) Is(target error) bool { return target == exec.ErrNotFound || target == fs.ErrNotExist }
