package snapshot

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"strongroom.example/config"
)

// PlaceFolder refuses a folder for snapshots that is the system's or the appliance's own
// under another name. named is how somebody calls it, at the same without links, and mounts
// is /proc/self/mountinfo, which knows what is bound to where; it may be empty.
func PlaceFolder(named, at string, mounts []byte) error {
	check := config.PlaceFolder
	if check(named) != nil {
		// Said by hand, of what a restore has put by: only the system's are refused.
		check = config.SystemFolder
	}
	for _, name := range append([]string{at}, boundNames(at, mounts)...) {
		if err := check(name); err != nil {
			if path.Clean(named) == name {
				return err
			}
			return fmt.Errorf("%q is another name of it: %w", named, err)
		}
	}
	return nil
}

// mount is a line of proc_pid_mountinfo(5): a folder of a file system, and where it is seen.
type mount struct{ device, root, at string }

// boundNames are the other names of a folder, by mounts of the file system that it is in.
func boundNames(at string, mountinfo []byte) []string {
	var mounts []mount
	octal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(mountinfo)) {
		if f := strings.Fields(line); len(f) > 4 {
			mounts = append(mounts, mount{f[2], octal.Replace(f[3]), octal.Replace(f[4])})
		}
	}
	var in *mount // the innermost, and of several at one point the last
	for i, m := range mounts {
		if _, ok := below(at, m.at); ok && (in == nil || len(m.at) >= len(in.at)) {
			in = &mounts[i]
		}
	}
	if in == nil {
		return nil
	}
	rest, _ := below(at, in.at)
	within := path.Join(in.root, rest)
	var out []string
	for _, m := range mounts {
		if rest, ok := below(within, m.root); ok && m.device == in.device {
			if name := path.Join(m.at, rest); name != at && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// below is what of a path follows a folder; not ok where it is not in it.
func below(at, folder string) (string, bool) {
	rest, ok := strings.CutPrefix(at, strings.TrimSuffix(folder, "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}
