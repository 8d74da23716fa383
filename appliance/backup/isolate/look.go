package isolate

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotIsolated means that a program which should reach nothing can.
var ErrNotIsolated = errors.New("the program is not cut off")

// Reach is what a process can reach of networks and databases.
type Reach struct {
	Routes  []string // interfaces that its network namespace routes over
	Sockets []string // in the folders of databases, as it sees them
}

// Look finds out what a process of ours can reach.
func Look(pid int) (Reach, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	// proc(5): the interface is the first column of one, the last of the other.
	v4, err := interfaces(filepath.Join(proc, "net", "route"), func(f []string) string { return f[0] })
	if err != nil {
		return Reach{}, err
	}
	v6, err := interfaces(filepath.Join(proc, "net", "ipv6_route"), func(f []string) string { return f[len(f)-1] })
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return Reach{}, err
	}
	r := Reach{Routes: append(v4, v6...)}
	slices.Sort(r.Routes)
	r.Routes = slices.Compact(r.Routes)
	// Its file system must be open to us, or the rest would say nothing.
	if _, err := os.ReadDir(filepath.Join(proc, "root") + "/"); err != nil {
		return Reach{}, fmt.Errorf("look at the isolation: %w", err)
	}
	for _, dir := range sockets {
		entries, err := os.ReadDir(filepath.Join(proc, "root", dir))
		// What it may not look into, it cannot connect to.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("look at the isolation: %w", err)
		}
		for _, e := range entries {
			if e.Type()&fs.ModeSocket != 0 {
				r.Sockets = append(r.Sockets, filepath.Join(dir, e.Name()))
			}
		}
	}
	return r, nil
}

// interfaces are the names in one column of a routing table, headings excepted.
func interfaces(path string, column func([]string) string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("look at the isolation: %w", err)
	}
	defer f.Close()
	var names []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && fields[0] != "Iface" {
			names = append(names, column(fields))
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("look at the isolation: %w", err)
	}
	return names, nil
}

// Err is nil for a process that reaches its own loopback and no database.
func (r Reach) Err() error {
	var errs []error
	others := slices.DeleteFunc(slices.Clone(r.Routes), func(n string) bool { return n == "lo" })
	if len(others) > 0 {
		errs = append(errs, fmt.Errorf("%w: it has routes over %s", ErrNotIsolated, strings.Join(others, ", ")))
	}
	if len(r.Sockets) > 0 {
		errs = append(errs, fmt.Errorf("%w: it sees the sockets %s", ErrNotIsolated, strings.Join(r.Sockets, ", ")))
	}
	return errors.Join(errs...)
}
