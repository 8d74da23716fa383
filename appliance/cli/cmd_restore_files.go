package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/restore"
)

// restoreFiles are the flags of a restore of the files beside a snapshot.
type restoreFiles struct {
	dir       string
	overwrite bool
}

func (o *restoreFiles) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.dir, "files", "", "unpack the files kept beside the snapshot under this folder, and touch nothing else; / for their own places, without what is this machine's own: epoch, credentials, keys, tls, what the installer writes")
	f.BoolVar(&o.overwrite, "overwrite", false, "with --files: replace files that are newer, too")
}

func runRestoreFiles(c *cobra.Command, o restoreOptions) error {
	if fi, err := os.Stat(o.files.dir); err != nil || !fi.IsDir() {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--files %q is no folder", o.files.dir), Hint: "make it first: mkdir -m 700 " + o.files.dir}
	}
	ctx := c.Context()
	src, err := o.source(true)
	if err != nil {
		return filesError(err)
	}
	files, from, err := src.FetchFiles(ctx)
	if err != nil {
		return filesError(err)
	}
	defer files.Close()
	opts, left, err := files.InPlace(ctx, restore.UnpackOptions{Root: o.files.dir, Overwrite: o.files.overwrite, KeepOwners: os.Geteuid() == 0})
	if err != nil {
		return filesError(err)
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
