package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// endWaits ends the reads that wait for a new version of a key. A waiting
// request holds Vault's state lock for reading and a restore wants it for
// writing; until it has it, nobody else is answered (docs/rotate-keys.md). It
// returns how to allow waits again, for a restore that Vault has refused; a
// Vault that was restored has the setting of the snapshot.
//
// A token that may not look at the mounts ends no waits: they end by themselves
// within a minute. The settings are noted in file before they are changed, for a
// restore that is killed.
func endWaits(ctx context.Context, c *vaultapi.Client, file string) (undo func(context.Context) error, err error) {
	was, err := waitsOf(ctx, c)
	undo = func(ctx context.Context) error { return allowWaits(ctx, c, was, file) }
	if err != nil || len(was) == 0 {
		return undo, err
	}
	if err := note(file, func(w *Waits) { w.MaxWait = was }); err != nil {
		return undo, err
	}
	for mount := range was {
		if err := setWait(ctx, c, mount, 0); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

// waitsOf is max_wait, in seconds, of each engine that lets reads wait.
func waitsOf(ctx context.Context, c *vaultapi.Client) (map[string]int64, error) {
	mounts, err := c.Mounts(ctx)
	if denied(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("end waits: list mounts: %w", err)
	}
	was := map[string]int64{}
	for path, m := range mounts {
		if m.Type != machine.PluginName {
			continue
		}
		config, err := c.Read(ctx, path+"config")
		if denied(err) || vaultapi.IsNotFound(err) {
			continue
		}
		var n int64
		if err == nil {
			n, err = config.Number("max_wait")
		}
		if err != nil {
			return nil, fmt.Errorf("end waits at %s: %w", path, err)
		}
		if n > 0 {
			was[path] = n
		}
	}
	return was, nil
}

func setWait(ctx context.Context, c *vaultapi.Client, mount string, seconds int64) error {
	_, err := c.Write(ctx, mount+"config", map[string]any{"max_wait": seconds})
	if err != nil && !denied(err) {
		return fmt.Errorf("set max_wait at %s: %w", mount, err)
	}
	return nil
}

// allowWaits sets what was, and forgets the note of it.
func allowWaits(ctx context.Context, c *vaultapi.Client, was map[string]int64, file string) error {
	var errs []error
	for mount, seconds := range was {
		errs = append(errs, setWait(ctx, c, mount, seconds))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return forgetWaits(file)
}

// Waits is what a restore notes of what it changes before Vault has the snapshot, so
// that it can be taken back when it is killed.
type Waits struct {
	// MaxWait is that of before by mount, in seconds.
	MaxWait map[string]int64 `json:"max_wait"`
	// Epoch is what was in the epoch file, and Raised what is instead; empty where there
	// is none.
	Epoch  string `json:"epoch,omitempty"`
	Raised string `json:"raised,omitempty"`
	// HandedOver says that Vault may have the snapshot: from there on nobody takes the
	// epoch back.
	HandedOver bool `json:"handed_over,omitempty"`
}

// ParseWaits reads such a note.
func ParseWaits(data []byte) (Waits, error) {
	var w Waits
	if err := statefile.Decode(data, 0, &w); err != nil {
		return Waits{}, fmt.Errorf("note of a restore: %w", err)
	}
	for mount, seconds := range w.MaxWait {
		if seconds < 0 || !strings.HasSuffix(mount, "/") {
			return Waits{}, fmt.Errorf("note of a restore: max_wait of %q is %d", mount, seconds)
		}
	}
	return w, nil
}

// note adds to what is noted in file, before it is done. It is passed over where there
// is no appliance, and so no folder for it.
func note(file string, add func(*Waits)) error {
	if file == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(file)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	w, err := loadWaits(file)
	if err != nil {
		return err
	}
	add(&w)
	if err := statefile.Save(file, w, 0o640); err != nil {
		return fmt.Errorf("note of a restore: %w", err)
	}
	return nil
}

// loadWaits is empty where there is no note.
func loadWaits(file string) (Waits, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Waits{}, nil
	}
	if err != nil {
		return Waits{}, fmt.Errorf("note of a restore: %w", err)
	}
	w, err := ParseWaits(data)
	if err != nil {
		return Waits{}, fmt.Errorf("%q: %w", file, err)
	}
	return w, nil
}

func forgetWaits(file string) error {
	if file == "" {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget max_wait: %w", err)
	}
	return nil
}

// putBack takes back what a killed restore has changed: waits that it has ended, where
// nobody has allowed them since, and the epoch that it has raised for a snapshot which
// Vault was never given.
func putBack(ctx context.Context, c *vaultapi.Client, file, epochFile string) error {
	if file == "" {
		return nil
	}
	w, err := loadWaits(file)
	if err != nil {
		return err
	}
	if err := w.lowerEpoch(epochFile); err != nil {
		return err
	}
	if len(w.MaxWait) == 0 {
		return forgetWaits(file)
	}
	now, err := waitsOf(ctx, c)
	if err != nil {
		return err
	}
	maps.DeleteFunc(w.MaxWait, func(mount string, _ int64) bool { return now[mount] > 0 })
	return allowWaits(ctx, c, w.MaxWait, file)
}

// lowerEpoch takes back an epoch that was raised for nothing, where it is still the one.
func (w Waits) lowerEpoch(epochFile string) error {
	if epochFile == "" || w.Epoch == "" || w.HandedOver {
		return nil
	}
	now, err := os.ReadFile(epochFile)
	if err != nil {
		return fmt.Errorf("epoch file: %w", err)
	}
	if string(now) != w.Raised {
		return nil // it was never raised, or somebody else has since
	}
	fi, err := os.Stat(epochFile)
	if err != nil {
		return fmt.Errorf("epoch file: %w", err)
	}
	return replaceKeepingOwner(epochFile, []byte(w.Epoch), fi)
}

func denied(err error) bool {
	return vaultapi.IsDenied(err)
}
