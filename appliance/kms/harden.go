package kms

import (
	"fmt"

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
