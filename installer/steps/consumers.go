package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/systemd"
)

// started is the content of machine.StartedFile: what each unit has read at its last
// start that was one of ours. A unit that systemd has started since has another
// invocation, and has read what was there then.
type started struct {
	Format int                    `json:"format"`
	Units  map[string]startedUnit `json:"units"`
}

type startedUnit struct {
	Invocation string            `json:"invocation"`
	Files      map[string]string `json:"files"` // SHA-256 by path
}

const startedFormat = 1

// readStarted gives what was noted. What can't be read says nothing, and is written anew.
func (e *Env) readStarted() (started, error) {
	s := started{Format: startedFormat, Units: map[string]startedUnit{}}
	b, err := e.Host.ReadFile(machine.StartedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	var got started
	if statefile.Decode(b, startedFormat, &got) != nil || got.Units == nil {
		return s, nil
	}
	return got, nil
}

// reads are the files that a unit reads when it starts: the one table of consumers,
// which the units themselves are.
func (e *Env) reads(unit string) ([]string, error) {
	files := []string{path.Join(machine.UnitDir, unit)}
	dir := files[0] + ".d"
	names, err := e.Host.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, n := range names {
		if path.Ext(n) == ".conf" {
			files = append(files, path.Join(dir, n))
		}
	}
	var texts [][]byte
	for _, f := range files {
		b, err := e.Host.ReadFile(f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		texts = append(texts, b)
	}
	return append(files, systemd.Reads(texts...)...), nil
}

// sums are the files' SHA-256; a file that is not there has none.
func (e *Env) sums(files []string) (map[string]string, error) {
	out := map[string]string{}
	for _, f := range files {
		sum, err := e.sum(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[f] = sum
	}
	return out, nil
}

// sum is a file's SHA-256. A large one is read once a run.
func (e *Env) sum(file string) (string, error) {
	info, err := e.Host.Stat(file)
	if err != nil {
		return "", err
	}
	if info.Type != 0 || info.Size < 1<<20 {
		return e.Host.Sum(file)
	}
	key := fmt.Sprintf("%s %d %d", file, info.Size, info.ModTime.UnixNano())
	if e.known == nil {
		e.known = map[string]string{}
	}
	if e.known[key] == "" {
		if e.known[key], err = e.Host.Sum(file); err != nil {
			return "", err
		}
	}
	return e.known[key], nil
}

// stale names a file that a running unit has not read as it is, or as it will be where
// nothing is changed yet; "" for none. What was noted at its start decides. Times do only
// where nothing was noted or systemd has started it since: they may lie in the future, and
// then one restart more settles it.
func (e *Env) stale(ctx context.Context, unit string, u host.Unit) (string, error) {
	files, err := e.reads(unit)
	if err != nil {
		return "", err
	}
	all, err := e.readStarted()
	if err != nil {
		return "", err
	}
	noted, known := all.Units[unit]
	now, err := e.sums(files)
	if err != nil {
		return "", err
	}
	written := map[string]bool{} // of those that will be
	for _, c := range engine.Foreseen(ctx) {
		if strings.HasPrefix(c.What, path.Join(machine.UnitDir, unit)+".d/") && !slices.Contains(files, c.What) {
			return c.What, nil
		}
		for _, f := range files {
			switch will := e.wanted[f].SHA256; {
			case c.What == f && will != "" && c.To != "":
				now[f], written[f] = will, true
			case c.What == f, strings.HasPrefix(f, c.What+"/"):
				return c.What, nil
			}
		}
	}
	if known && maps.Equal(noted.Files, now) {
		return "", nil
	}
	for _, f := range files {
		if known && noted.Files[f] == now[f] {
			continue
		}
		if written[f] || known && noted.Invocation == u.Invocation {
			return f, nil
		}
		info, err := e.Host.Stat(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if info.ModTime.After(u.Since) {
			return f, nil
		}
	}
	if known && noted.Invocation == u.Invocation {
		for _, f := range slices.Sorted(maps.Keys(noted.Files)) {
			if _, there := now[f]; !there {
				return f, nil // a drop-in that is gone, or what it named
			}
		}
	}
	return "", nil
}

// startNoted starts a unit, or restarts one that runs, and notes what it has read.
func (e *Env) startNoted(ctx context.Context, unit string, start func(context.Context, string) error) error {
	files, err := e.reads(unit)
	if err != nil {
		return err
	}
	sums, err := e.sums(files)
	if err != nil {
		return err
	}
	if err := start(ctx, unit); err != nil {
		return err
	}
	u, err := e.Host.Unit(context.WithoutCancel(ctx), unit)
	if err != nil {
		return err
	}
	all, err := e.readStarted()
	if err != nil {
		return err
	}
	all.Units[unit] = startedUnit{u.Invocation, sums}
	b, err := statefile.Encode(all)
	if err != nil {
		return fmt.Errorf("note what %s has read: %w", unit, err)
	}
	return e.Host.Write(machine.StartedFile, bytes.NewReader(b), root(0o600))
}

// RestartStale restarts the daemons that have not read what is there now, and starts
// those without which there is no service.
func (e *Env) RestartStale(ctx context.Context, core ...string) error {
	for _, unit := range systemd.Daemons() {
		u, err := e.Host.Unit(ctx, unit)
		if err != nil {
			return err
		}
		if u.Load != "loaded" {
			continue
		}
		needed := slices.Contains(core, unit)
		if u.Active != "active" {
			if needed {
				if err := e.startNoted(ctx, unit, e.Host.Restart); err != nil {
					return err
				}
			}
			continue
		}
		f, err := e.stale(ctx, unit, u)
		if err != nil {
			return err
		}
		if f != "" {
			if err := e.startNoted(ctx, unit, e.Host.Restart); err != nil {
				return err
			}
		}
	}
	return nil
}
