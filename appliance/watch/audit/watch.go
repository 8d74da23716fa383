package audit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/alert"
)

// Answer is what became of a request that Vault must log.
type Answer int

// The answers.
const (
	// Idle: it is sealed, a standby, or not there: it writes no log now.
	Idle Answer = iota
	// Logged: it has answered, and so has written.
	Logged
	// Mute: it refuses everybody, as it does when it can write to no audit device.
	Mute
	// Silent: it does not answer in time, as when a device blocks.
	Silent
)

// WatchOptions is what Watch needs.
type WatchOptions struct {
	// Dir holds the logs; StateDir, which is root's, the ledger.
	Dir, StateDir string
	// Deletions is the state folder of Rotate, where it has noted what it deletes
	// before its time. It says whose deed that was, and hides none.
	Deletions string
	// Keep is how long rotated logs must stay.
	Keep time.Duration
	// Repeat is after what time a fault that lasts is told again.
	Repeat time.Duration
	// Ask makes a request that Vault must log; nil: it is not asked.
	Ask func(context.Context) Answer
	// Tell is called with what nobody was told of yet.
	Tell func(losses []Loss, faults []alert.Fault)

	// Doubt says why the clock is not to be believed: then nothing is too old. May be nil.
	Doubt func() error

	Now   func() time.Time                           // time.Now when nil
	Pause func(context.Context, time.Duration) error // really pauses when nil

	// Born is when the machine was installed, zero where nobody knows; when nil, the folder
	// that StateDir is in tells. Only a machine that was installed just now has no ledger.
	Born func() time.Time

	// budget is how much of rotated logs one look reads at most, in bytes, but for what it
	// must read to say that nothing is lost: a machine's old logs are read over many looks.
	budget int64
}

const (
	// readEvery is how often the logs that Vault writes are read to their ends. What of
	// them was changed, and not only cut, is seen then, or when they are rotated.
	readEvery = 10 * time.Minute
	// looks is how often what seems to be lost is looked for: a log that is being rotated
	// or compressed has no name, or two, for a moment.
	looks     = 8
	lookAgain = 2 * time.Second
	// askAgain bounds asking again: where one device blocks, Vault takes long for each
	// answer, and what is wrong is to be told within a minute.
	askAgain = 20 * time.Second
)

// Watch compares the logs with what must be there, and asks Vault whether it still writes
// to them. What is lost and what is wrong is in the ledger when it returns, and told. An
// error says that it could not look; then the ledger is as it was, but for what was found
// before.
func Watch(ctx context.Context, o WatchOptions) (Ledger, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Pause == nil {
		o.Pause = pause.For
	}
	if o.Born == nil {
		o.Born = func() time.Time { return born(filepath.Dir(o.StateDir)) }
	}
	if o.budget == 0 {
		o.budget = 256 << 20
	}
	unlock, err := lockLedger(o.StateDir)
	if err != nil {
		return Ledger{}, err
	}
	defer unlock()
	w := &watch{WatchOptions: o, now: o.Now().UTC(), doubted: o.Doubt != nil && o.Doubt() != nil}
	l, err := w.load()
	if err != nil {
		return l, err
	}
	l.At = w.now
	faults, err := w.look(ctx, &l)
	if err != nil {
		return l, err
	}
	l.Faults = alert.Remember(l.Faults, faults, w.now)
	l.Losses = slices.DeleteFunc(l.Losses, func(x Loss) bool { return x.Told && !w.doubted && w.now.Sub(x.At) > o.Keep })
	if n := len(l.Losses); n > maxLosses {
		l.Losses = l.Losses[n-maxLosses:]
	}
	// The commit point: what was found is known from here on, whoever is told of it.
	if err := l.save(o.StateDir); err != nil {
		return l, err
	}
	return l, w.tell(&l)
}

// tell tells what is due, and notes that it was. One that is killed in between tells
// twice.
func (w *watch) tell(l *Ledger) error {
	var losses []Loss
	for n := range l.Losses {
		if x := &l.Losses[n]; !x.Told {
			losses = append(losses, *x)
			x.Told = true
		}
	}
	faults := alert.Due(l.Faults, w.now, w.Repeat)
	if len(losses)+len(faults) == 0 {
		return nil
	}
	if w.Tell != nil {
		w.Tell(losses, faults)
	}
	return l.save(w.StateDir)
}

// watch is one look under way.
type watch struct {
	WatchOptions
	dir *dirfs.Dir
	now time.Time
	// doubted says that now may be any time.
	doubted bool

	read bool  // the logs that Vault writes are read to their ends
	left int64 // bytes of rotated logs that it may yet read

	deletions Deletions
}

// load reads the ledger. One that is damaged or not there is begun anew, and that is a
// loss, but on a machine that is new: nobody knows any more what there must be.
func (w *watch) load() (Ledger, error) {
	l, err := LoadLedger(w.StateDir)
	if errors.Is(err, statefile.ErrNone) || errors.Is(err, statefile.ErrCorrupt) {
		l := Ledger{Begun: w.now}
		if age := w.now.Sub(w.Born()); age > fresh || errors.Is(err, statefile.ErrCorrupt) {
			l.Losses = []Loss{{Name: ledgerFile, Until: w.now, Cause: NoLedger, At: w.now}}
		}
		return l, nil
	}
	return l, err
}

// fresh is how old a machine is at most that may have no ledger.
const fresh = 30 * time.Minute

// born is when a folder was made; zero where its file system does not know.
func born(dir string) time.Time {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}

// The faults, by the beginnings of their ids; the name of a log follows.
const (
	faultFolder    = "folder"
	faultMute      = "mute"
	faultSilent    = "silent"
	faultMissing   = "missing "
	faultUnwritten = "unwritten "
)

func (w *watch) look(ctx context.Context, l *Ledger) ([]alert.Fault, error) {
	var err error
	// What Rotate has written down is asked first: what is gone by then and is not in
	// it, is not its deed. Without it all is somebody else's.
	w.deletions, err = LoadDeletions(w.Deletions)
	if err != nil {
		w.deletions = Deletions{}
	}
	w.dir, err = dirfs.Open(w.Dir)
	if err != nil {
		return []alert.Fault{{ID: faultFolder, Text: fmt.Sprintf("the folder of the audit logs can't be opened: %v", err), Hint: "ls -ld " + w.Dir + "; systemctl restart vault makes it anew"}}, nil
	}
	defer w.dir.Close()
	answer, faults, err := w.ask(ctx, l)
	if err != nil {
		return nil, err
	}
	if answer == Silent {
		// What blocks Vault may block who reads: this is told now, and the logs are compared
		// when it is over.
		odd, err := w.absent(*l)
		return append(faults, odd...), err
	}
	w.read = w.now.Sub(l.Read) >= readEvery || w.now.Before(l.Read)
	for n := 1; ; n++ {
		w.left = w.budget
		c, err := w.compare(ctx, *l)
		if err != nil {
			return nil, err
		}
		// Whoever has no Vault that writes, has none that makes a log anew.
		again := len(c.losses) > 0 || len(c.missing) > 0 && answer != Idle
		if again && n < looks {
			if err := w.Pause(ctx, lookAgain); err != nil {
				return nil, err
			}
			if w.deletions, err = LoadDeletions(w.Deletions); err != nil {
				w.deletions = Deletions{}
			}
			continue
		}
		l.Files, l.Losses = c.files, append(l.Losses, c.losses...)
		for _, f := range l.Files {
			if f.Live && !slices.Contains(l.Logs, f.Name) {
				l.Logs = append(l.Logs, f.Name)
			}
		}
		if w.read {
			l.Read = w.now
		}
		for _, m := range c.missing {
			if answer != Idle || m.odd {
				faults = slices.DeleteFunc(faults, func(f alert.Fault) bool { return f.ID == faultUnwritten+m.name })
				faults = append(faults, w.missed(m))
			}
		}
		return faults, nil
	}
}

func (w *watch) missed(m absent) alert.Fault {
	hint := reopen
	if m.odd {
		hint = "move " + w.dir.Path(m.name) + " away, then " + reopen
	}
	return alert.Fault{ID: faultMissing + m.name, Text: m.text(), Hint: hint}
}

// absent are the logs that are not there, or something else, without a look into any file.
func (w *watch) absent(l Ledger) ([]alert.Fault, error) {
	there, err := lookAt(w.dir)
	if err != nil {
		return nil, err
	}
	var out []alert.Fault
	for _, name := range l.Logs {
		if s := there[name]; s == nil || !s.Plain {
			out = append(out, w.missed(absent{name, s != nil}))
		}
	}
	return out, nil
}

// reopen is what has Vault make its logs anew.
const reopen = "systemctl reload vault; if it stays: docs/monitoring.md, audit logs"

// ask has Vault log something, and looks which logs have grown: those that have before
// and do not, it does not write to any more. A log that is rotated meanwhile is asked
// about again.
func (w *watch) ask(ctx context.Context, l *Ledger) (Answer, []alert.Fault, error) {
	if w.Ask == nil {
		return Idle, nil, nil
	}
	began := w.Now()
	for n := 1; ; n++ {
		before, err := lookAt(w.dir)
		if err != nil {
			return Idle, nil, err
		}
		answer := w.Ask(ctx)
		after, err := lookAt(w.dir)
		if err != nil {
			return Idle, nil, err
		}
		var faults []alert.Fault
		switch answer {
		case Mute:
			faults = append(faults, alert.Fault{ID: faultMute, Text: "Vault answers nobody: so it does when it can write to no audit device", Hint: "df -h " + w.Dir + " and make room; else journalctl -u vault, then systemctl restart vault"})
		case Silent:
			faults = append(faults, alert.Fault{ID: faultSilent, Text: "Vault does not answer a request that it must log: an audit device blocks, or Vault hangs", Hint: "df -h " + w.Dir + "; journalctl -k -n 50; mend what blocks, then systemctl restart vault"})
		case Logged:
			for name, a := range after {
				b := before[name]
				if !a.live() || !a.Plain || b == nil || a.Inode != b.Inode || a.size <= b.size {
					continue
				}
				if !slices.Contains(l.Written, name) {
					l.Written = append(l.Written, name)
					slices.Sort(l.Written)
				}
			}
			for _, name := range l.Written {
				a, b := after[name], before[name]
				if a == nil || b == nil || a.Inode != b.Inode || a.size <= b.size {
					faults = append(faults, alert.Fault{ID: faultUnwritten + name, Text: fmt.Sprintf("Vault answers, and does not write to %s: it writes to another file, or the device fails", name), Hint: reopen})
				}
			}
		}
		if answer != Logged || len(faults) == 0 || n == looks || w.Now().Sub(began) > askAgain {
			return answer, faults, nil
		}
		if err := w.Pause(ctx, lookAgain); err != nil {
			return Idle, nil, err
		}
	}
}
