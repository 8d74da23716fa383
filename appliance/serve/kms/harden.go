package kms

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Harden keeps this process's memory out of core dumps, debuggers and swap. It
// is for the process that holds the keyset and nothing else: it can't be taken
// back. Each fault is reported on its own, and none is a reason to stop:
// systemd's LimitCORE=0, LimitMEMLOCK=infinity and a machine without swap give
// the same where the call is refused.
func Harden() []error {
	var faults []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		faults = append(faults, fmt.Errorf("switch core dumps and ptrace off: %w", err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		faults = append(faults, fmt.Errorf("set the core size limit to 0: %w", err))
	}
	// MCL_ONFAULT locks a page when it is first used. Without it the kernel
	// would read in the whole program and every page Go has only reserved:
	// some hundred MB for a process that needs ten.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		faults = append(faults, fmt.Errorf("lock memory: %w", err))
	}
	return faults
}

// DropStartupPages gives back the program's own read-only pages that starting
// has touched: the initialisers of every package in the binary, most of which
// this process never calls again. What it still needs is read in again, page
// by page. Nothing secret is in the program's file, so its pages need no lock
// either; the memory that holds keys keeps its own.
func DropStartupPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("give memory back: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("give memory back: %w", err)
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		// address perms offset dev inode path, proc(5)
		var from, to uintptr
		var perms string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &perms); n != 3 ||
			!strings.HasSuffix(lines.Text(), exe) || strings.Contains(perms, "w") {
			continue
		}
		// A locked page cannot be given back, so it is unlocked first; where the
		// kernel refuses that, as in a container, nothing was locked either.
		// Read-only and backed by the file: nothing can be lost.
		_, _, _ = unix.Syscall(unix.SYS_MUNLOCK, from, to-from, 0)
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("give memory back: %w", errno)
		}
	}
	return lines.Err()
}
