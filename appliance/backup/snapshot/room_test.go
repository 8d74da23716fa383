package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Room is what is free without what stays free for others, and nothing is written to find
// out.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	unit := int64(fs.Bsize)
	free, least := int64(fs.Bavail)*unit, min(256<<20, int64(fs.Blocks)*unit/50) //nolint:gosec // sizes
	if free < 2*least {
		t.Skipf("%d MiB are free here", free>>20)
	}
	slack := min(64<<20, least/2) // others write here, too
	for name, c := range map[string]struct {
		want int64
		full bool
	}{
		"nothing": {0, false}, "less than nothing": {-1, false}, "a byte": {1, false},
		"half of it": {(free - least) / 2, false}, "all of it, and what is others'": {free - least + slack, true},
		"more than there is": {free + 1<<40, true}, "the most that a manifest can say": {1<<63 - 1, true},
	} {
		err := Room(dir, c.want)
		if errors.Is(err, ErrFull) != c.full || err != nil && !c.full {
			t.Errorf("%s (%d MiB of %d): %v", name, c.want>>20, free>>20, err)
		}
		if err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: it does not say where: %v", name, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	if err := Room(filepath.Join(dir, "none"), 0); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("no folder: %v", err)
	}
}
