package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident is the resident memory of a process in bytes, as VmRSS in
// /proc/PID/status (proc_pid_status(5)).
func Resident(pid int) (int64, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("resident memory: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("resident memory: %s: %w", path, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("resident memory: %s has no VmRSS", path)
}

// ChildOf is the first child process of pid; 0 where there is none or it
// cannot be told.
func ChildOf(pid int) int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	for _, t := range tasks {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue
		}
		if fields := strings.Fields(string(data)); len(fields) > 0 {
			if child, err := strconv.Atoi(fields[0]); err == nil {
				return child
			}
		}
	}
	return 0
}
