package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/config/machine"
)

// restoreFiles are the flags of a restore of the files beside a snapshot.
type restoreFiles struct {
	dir       string
	overwrite bool
}

func (o *restoreFiles) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.dir, "files", "", "unpack the files kept beside the snapshot under this folder, and touch nothing else; / for their own places, without this machine's epoch, credentials, tls and installed.json")
	f.BoolVar(&o.overwrite, "overwrite", false, "with --files: replace files that are newer, too")
}

func runRestoreFiles(c *cobra.Command, o restoreOptions) error {
	if fi, err := os.Stat(o.files.dir); err != nil || !fi.IsDir() {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--files %q is no folder", o.files.dir), Hint: "make it first: mkdir -m 700 " + o.files.dir}
	}
	ctx := c.Context()
	files, from, err := o.fetchFiles(ctx)
	if err != nil {
		return filesError(err)
	}
	defer files.Close()
	opts := restore.UnpackOptions{Root: o.files.dir, Overwrite: o.files.overwrite, KeepOwners: os.Geteuid() == 0}
	var left []string
	if isRootDir(o.files.dir) {
		opts.Want = mayComeBack
		if left, err = leftOut(ctx, files); err != nil {
			return filesError(err)
		}
	}
	u, err := files.Plan(ctx, opts)
	if err != nil {
		return filesError(err)
	}
	w := c.OutOrStdout()
	fmt.Fprintf(w, "Files of %s\n", from)
	for _, group := range []struct {
		mark  string
		names []string
	}{{"+", u.New}, {"~", u.Replaced}, {"! newer on the disk:", u.Newer}} {
		for _, name := range group.names {
			fmt.Fprintf(w, "  %s %s\n", group.mark, filepath.Join(o.files.dir, name))
		}
	}
	for _, name := range left {
		fmt.Fprintf(w, "  left out: /%s\n", name)
	}
	if len(left) > 0 {
		fmt.Fprintln(w, "what is left out belongs to this machine: --files DIR shows it")
	}
	fmt.Fprintf(w, "%d new, %d to replace, %d newer on the disk, %d the same\n", len(u.New), len(u.Replaced), len(u.Newer), len(u.Same))
	if len(u.Newer) > 0 && !o.files.overwrite {
		return filesError(fmt.Errorf("nothing was done: %w", restore.ErrNewer))
	}
	if o.dryRun || len(u.New)+len(u.Replaced)+len(u.Newer) == 0 {
		return nil
	}
	if err := o.confirm(c); err != nil {
		return err
	}
	if _, err := files.Unpack(ctx, opts); err != nil {
		return filesError(err)
	}
	fmt.Fprintln(w, "unpacked")
	return nil
}

// isRootDir tells whether files go into their own places.
func isRootDir(dir string) bool {
	fi, err := os.Stat(dir)
	if err != nil {
		return false
	}
	root, err := os.Stat("/")
	return err == nil && os.SameFile(fi, root)
}

// mayComeBack tells what may come back into its own place. The epoch must
// never go back, the record of what is installed is true already, and credentials
// and the link to Vault fit their own machine and time only.
func mayComeBack(name string) bool {
	switch name {
	case "etc/strongroom/epoch.json", "etc/strongroom/installed.json":
		return false
	}
	return !strings.HasPrefix(name, "etc/strongroom/credentials/") && !strings.HasPrefix(name, "etc/strongroom/tls/")
}

func leftOut(ctx context.Context, files *restore.Files) ([]string, error) {
	entries, err := files.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if !e.Mode.IsDir() && !mayComeBack(e.Name) {
			out = append(out, e.Name)
		}
	}
	return out, nil
}

// fetchFiles finds the archive and checks it on this machine.
func (o *restoreOptions) fetchFiles(ctx context.Context) (*restore.Files, string, error) {
	ids, err := readIdentities(o.identities, machine.CredDrillKey)
	if err != nil {
		return nil, "", err
	}
	if o.file != "" {
		f, err := restore.FilesFromFile(ctx, o.file, ids)
		return f, o.file, err
	}
	b, err := o.backup()
	if err != nil {
		return nil, "", err
	}
	dests, err := destinations(b)
	if err != nil {
		return nil, "", err
	}
	var p restorePlan
	choice, err := o.choose(ctx, &p, dests)
	if err != nil {
		return nil, "", err
	}
	f, err := restore.FetchFiles(ctx, choice, ids, o.work)
	from := fmt.Sprintf("%s, from %s", choice.Manifest.ID, choice.Destination.Name())
	return f, strings.Join(append([]string{from}, p.warnings...), "; "), err
}

func filesError(err error) error {
	switch {
	case errors.Is(err, restore.ErrNewer):
		return &Error{Code: ExitOperator, Err: err, Hint: "look at them; --overwrite replaces them, another --files DIR leaves them alone"}
	case errors.Is(err, restore.ErrUnsafe):
		return &Error{Code: ExitDrift, Err: err, Hint: "this archive was not made by strongroom: nothing was unpacked"}
	case errors.Is(err, restore.ErrNoFiles):
		return &Error{Code: ExitDrift, Err: err, Hint: "choose another snapshot with --id (strongroom snapshot list)"}
	}
	return restoreError(err)
}
