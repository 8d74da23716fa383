package drill

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/atomicfile"
)

// keptReports is how many reports stay: ten years of quarterly drills.
const keptReports = 40

const reportsName = "reports"

func reportsDir(stateDir string) string { return filepath.Join(stateDir, reportsName) }

// store writes a report, in both forms, into reports/, and then as the newest of
// its kind: last.json and last.txt, rehearsal.json and rehearsal.txt.
//
// By hand root does so in a folder of the drill's user, who may have put a link
// in its way: nothing is written or removed outside of the folder.
func store(stateDir string, r *report.Report, key ed25519.PrivateKey) (err error) {
	text, err := report.Encode(r, key)
	if err != nil {
		return err
	}
	state, err := atomicfile.OpenRoot(stateDir)
	if err != nil {
		return fmt.Errorf("drill report: %w", err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	kept, err := openReports(stateDir, state)
	if err != nil {
		return fmt.Errorf("drill report: %w", err)
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	stem := r.StartedAt.UTC().Format("20060102T150405.000Z") + "-" + r.Kind
	last := strings.TrimSuffix(filepath.Base(report.LastPath(stateDir)), ".json")
	if r.Kind != report.KindDrill {
		last = r.Kind
	}
	for _, f := range []struct {
		in   *os.Root
		name string
		data []byte
	}{
		{kept, stem + ".txt", []byte(r.Text())}, {kept, stem + ".json", text},
		// The commit point: status and doctor read this one.
		{state, last + ".txt", []byte(r.Text())}, {state, last + ".json", text},
	} {
		if err := write(stateDir, f.in, f.name, f.data); err != nil {
			return err
		}
	}
	return forget(kept)
}

// openReports makes the folder of the reports where it is not there yet.
func openReports(stateDir string, state *os.Root) (*os.Root, error) {
	if err := state.Mkdir(reportsName, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// From here on it is this folder, whatever takes its name.
	kept, err := state.OpenRoot(reportsName)
	if err != nil {
		return nil, err
	}
	d, err := kept.Open(".")
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	if err := errors.Join(atomicfile.LikeFolder(stateDir, d), d.Close()); err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	return kept, nil
}

// write replaces a file, wholly or not at all, for the owner of the state folder.
// It is readable through the group, for status and doctor: nothing in it is
// secret.
func write(stateDir string, in *os.Root, name string, data []byte) error {
	tmp := "." + name + ".tmp-" + rand.Text()
	f, err := in.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	_, err = f.Write(data)
	// Exactly this mode, whatever the umask.
	err = errors.Join(err, f.Chmod(0o640), atomicfile.LikeFolder(stateDir, f), f.Sync(), f.Close())
	if err == nil {
		err = in.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", name, errors.Join(err, in.Remove(tmp)))
	}
	d, err := in.Open(".")
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

// forget removes the oldest reports; their names sort by time.
func forget(kept *os.Root) error {
	names, err := reports(kept.FS())
	if err != nil || len(names) <= keptReports {
		return err
	}
	var errs []error
	for _, name := range names[:len(names)-keptReports] {
		if err := kept.Remove(strings.TrimSuffix(name, ".json") + ".txt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, kept.Remove(name))
	}
	return errors.Join(errs...)
}

// reports are the names of the signed reports in a folder, oldest first.
func reports(dir fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(dir, ".")
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
func LastPassed(stateDir string) (*report.Report, error) {
	dir := reportsDir(stateDir)
	names, err := reports(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Backward(names) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("drill report: %w", err)
		}
		s, err := report.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("drill report %q: %w", name, err)
		}
		if s.Report.Kind == report.KindDrill && s.Report.Passed {
			return &s.Report, nil
		}
	}
	return nil, nil
}

// lastFound is what the last drill that passed had found; nil without one.
func lastFound(stateDir string) (*report.Found, error) {
	r, err := LastPassed(stateDir)
	if err != nil || r == nil {
		return nil, err
	}
	return r.Found, nil
}
