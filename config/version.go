package config

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// CompareVersions compares two versions of the form 1.2.3. A pre-release
// ("-rc1") comes before its release; what follows a "+" counts for nothing.
func CompareVersions(a, b string) (int, error) {
	x, err := versionNumbers(a)
	if err != nil {
		return 0, err
	}
	y, err := versionNumbers(b)
	if err != nil {
		return 0, err
	}
	return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(x[2], y[2]), cmp.Compare(x[3], y[3])), nil
}

// versionNumbers is major, minor, patch, and 0 for a pre-release, 1 for a
// release.
func versionNumbers(s string) (n [4]int, err error) {
	core, _, _ := strings.Cut(s, "+")
	core, _, pre := strings.Cut(core, "-")
	if !pre {
		n[3] = 1
	}
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return n, fmt.Errorf(`%q is not a version such as "1.2.3"`, s)
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return n, fmt.Errorf(`%q is not a version such as "1.2.3"`, s)
		}
		n[i] = int(v)
	}
	return n, nil
}
