package drill

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"strongroom/appliance/atomicfile"
)

// keptReports is how many reports stay: ten years of quarterly drills.
const keptReports = 40

func reportsDir(stateDir string) string { return filepath.Join(stateDir, "reports") }

// store writes a report, in both forms, into reports/, and then as the newest of
// its kind: last.json and last.txt, rehearsal.json and rehearsal.txt.
func store(stateDir string, r *Report, key ed25519.PrivateKey) error {
	text, err := Encode(r, key)
	if err != nil {
		return err
	}
	dir := reportsDir(stateDir)
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("drill report: %w", err)
	}
	if uid, gid, other, err := owner(stateDir); err != nil {
		return err
	} else if other {
		if err := os.Lchown(dir, uid, gid); err != nil {
			return fmt.Errorf("drill report: %w", err)
		}
	}
	stem := filepath.Join(dir, r.StartedAt.UTC().Format("20060102T150405.000Z")+"-"+r.Kind)
	last := LastPath(stateDir)
	if r.Kind != KindDrill {
		last = filepath.Join(stateDir, r.Kind+".json")
	}
	for _, f := range []struct {
		path string
		data []byte
	}{
		{stem + ".txt", []byte(r.Text())}, {stem + ".json", text},
		// The commit point: status and doctor read this one.
		{strings.TrimSuffix(last, ".json") + ".txt", []byte(r.Text())}, {last, text},
	} {
		if err := write(stateDir, f.path, f.data); err != nil {
			return err
		}
	}
	return forget(dir)
}

// write is readable through the group, for status and doctor: nothing in a
// report is secret.
func write(stateDir, path string, data []byte) error {
	f, err := atomicfile.Create(path, 0o640)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := giveToOwner(stateDir, f); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// forget removes the oldest reports; their names sort by time.
func forget(dir string) error {
	names, err := reports(dir)
	if err != nil || len(names) <= keptReports {
		return err
	}
	var errs []error
	for _, name := range names[:len(names)-keptReports] {
		stem := strings.TrimSuffix(filepath.Join(dir, name), ".json")
		if err := os.Remove(stem + ".txt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, os.Remove(stem+".json"))
	}
	return errors.Join(errs...)
}

// reports are the names of the signed reports, oldest first.
func reports(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("drill reports: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// LastPassed reads the newest report of a drill that passed; nil where there is
// none. The signature is not checked.
func LastPassed(stateDir string) (*Report, error) {
	dir := reportsDir(stateDir)
	names, err := reports(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Backward(names) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("drill report: %w", err)
		}
		s, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("drill report %q: %w", name, err)
		}
		if s.Report.Kind == KindDrill && s.Report.Passed {
			return &s.Report, nil
		}
	}
	return nil, nil
}

// lastFound is what the last drill that passed had found; nil without one.
func lastFound(stateDir string) (*Found, error) {
	r, err := LastPassed(stateDir)
	if err != nil || r == nil {
		return nil, err
	}
	return r.Found, nil
}
