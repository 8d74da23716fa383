package drill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// makeRoom gives the folder for what is fetched and for what is scratch. Mostly
// that is the state folder. By hand root drills in a folder of the drill's user,
// who could move root's folders away at any time and put links in their place,
// to have root write anywhere: then it is root's own, beside the state folder.
// What a drill that was killed has left in either goes first.
func makeRoom(stateDir string) (string, error) {
	if err := discardRoom(stateDir); err != nil {
		return "", err
	}
	_, _, other, err := owner(stateDir)
	if err != nil || !other {
		return stateDir, err
	}
	if err := discard(stateDir); err != nil {
		return "", err
	}
	room := roomBeside(stateDir)
	parent := filepath.Dir(room)
	fi, err := os.Stat(parent)
	if err != nil {
		return "", fmt.Errorf("folder for the drill: %w", err)
	}
	if uid, _, _, err := owner(parent); err != nil || uid != 0 || fi.Mode().Perm()&0o022 != 0 {
		return "", errors.Join(err, fmt.Errorf("folder for the drill: others than root may write to %q; keep the state folder elsewhere", parent))
	}
	// Never one that is there.
	if err := os.Mkdir(room, 0o700); err != nil {
		return "", fmt.Errorf("folder for the drill: %w", err)
	}
	return room, nil
}

func roomBeside(stateDir string) string { return filepath.Clean(stateDir) + "-by-hand" }

// discardRoom removes root's own folder, if makeRoom has made one.
func discardRoom(stateDir string) error {
	room := roomBeside(stateDir)
	if _, err := os.Lstat(room); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(room); err != nil {
		return fmt.Errorf("remove remains: %w", err)
	}
	return nil
}
