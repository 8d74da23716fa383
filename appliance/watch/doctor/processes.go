package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// process is one of the machine's, proc(5).
type process struct {
	pid, parent int
	uid         int // effective
	name        string
}

func (p process) file(name string) string { return fmt.Sprintf("/proc/%d/%s", p.pid, name) }

// processes lists them all. In a sandbox that hides others' it is an error, and
// not an empty list.
func (e *exam) processes() ([]process, error) {
	if e.procs != nil || e.procsErr != nil {
		return e.procs, e.procsErr
	}
	e.procs, e.procsErr = e.listProcesses()
	return e.procs, e.procsErr
}

func (e *exam) listProcesses() ([]process, error) {
	names, err := e.Machine.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []process
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		b, err := e.Machine.ReadFile("/proc/" + n + "/status")
		if ended(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p, ok := parseProcess(pid, string(b))
		if !ok {
			return nil, fmt.Errorf("the status of process %d is of another form", pid)
		}
		out = append(out, p)
	}
	if !slices.ContainsFunc(out, func(p process) bool { return p.pid == 1 }) {
		return nil, fmt.Errorf("process 1 is hidden, and so are others")
	}
	return out, nil
}

// ended says whether a process is gone, by the error of reading its files: proc(5).
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func parseProcess(pid int, status string) (process, bool) {
	p := process{pid: pid, parent: -1, uid: -1}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case key == "Name" && len(f) > 0:
			p.name = strings.Join(f, " ")
		case key == "PPid" && len(f) == 1:
			p.parent = number(f[0])
		case key == "Uid" && len(f) == 4:
			p.uid = number(f[1])
		}
	}
	return p, p.parent >= 0 && p.uid >= 0
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// family is a process and everything below it.
func family(all []process, pid int) []process {
	var out []process
	for _, p := range all {
		if p.pid == pid {
			out = append(out, p)
		}
	}
	for i := 0; i < len(out); i++ {
		for _, p := range all {
			if p.parent == out[i].pid && p.pid != pid {
				out = append(out, p)
			}
		}
	}
	return out
}

// show reads properties of a unit, each of which the answer must tell.
func (e *exam) show(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	args := []string{"systemctl", "show", "--no-pager"}
	for _, p := range properties {
		args = append(args, "--property="+p)
	}
	out, err := e.Machine.Run(ctx, append(args, "--", unit)...)
	if err != nil {
		return nil, err
	}
	m := parseProperties(string(out))
	for _, p := range properties {
		if _, ok := m[p]; !ok {
			return nil, fmt.Errorf("the answer does not tell %s", p)
		}
	}
	return m, nil
}

func parseProperties(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			m[key] = value
		}
	}
	return m
}
