package vaulttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ChildNamed gives the process id of parent's child that runs the program of
// this name.
func ChildNamed(parent int, name string) (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			exe, err := os.Readlink("/proc/" + field + "/exe")
			if err == nil && filepath.Base(exe) == name {
				return strconv.Atoi(field)
			}
		}
	}
	return 0, fmt.Errorf("process %d has no child %q", parent, name)
}
