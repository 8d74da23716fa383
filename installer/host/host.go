// Package host is the machine as the installer sees it: files, accounts,
// commands and services, behind interfaces that a real machine and one in
// memory both fulfil.
//
// It decides nothing. Each mutating call is one action that has either taken
// effect or not when the process is killed in it.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// ErrNotFound says that there is no such account, unit or program.
var ErrNotFound = errors.New("not found")

// Host is one machine.
type Host struct {
	FS
	Accounts
	Runner
	Services
	Now func() time.Time
}

// Retire stops a unit and keeps it from being started at boot.
func (h *Host) Retire(ctx context.Context, name string) error {
	unit, err := h.Unit(ctx, name)
	if err != nil || unit.Load == "not-found" {
		return err
	}
	if unit.Active != "inactive" {
		if err := h.Stop(ctx, name); err != nil {
			return err
		}
	}
	if unit.Enabled == "enabled" {
		return h.Disable(ctx, name)
	}
	return nil
}

// FS is a tree of files; every path is absolute. Missing files are
// fs.ErrNotExist. What a call has changed is on the disk when it returns nil, and
// outlives a power cut.
type FS interface {
	// Stat doesn't follow a link at path's end.
	Stat(path string) (Info, error)
	// ReadFile gives a file's content; fs.ErrNotExist where there is none.
	ReadFile(path string) ([]byte, error)
	// ReadDir gives the names in path, sorted.
	ReadDir(path string) ([]string, error)
	// Open opens a file to be read; fs.ErrNotExist where there is none.
	Open(path string) (io.ReadCloser, error)
	// Write replaces path atomically and durably by what is read from r.
	Write(path string, r io.Reader, a Attr) error
	// Mkdir makes path (parents must be there) with a, or gives a to it if it
	// is a folder already.
	Mkdir(path string, a Attr) error
	// SetAttr changes mode and owner of a file or folder that is there.
	SetAttr(path string, a Attr) error
	// Symlink makes path a link to target, replacing a link but nothing else.
	Symlink(target, path string) error
	// Rename moves old to new, which is on the same file system and must not be there.
	// A folder goes with all that is in it; one that something is mounted on is refused.
	Rename(old, new string) error
	// Remove removes one file, link or empty folder; one that isn't there is
	// no error.
	Remove(path string) error
	// RemoveAll removes path with all that is in it.
	RemoveAll(path string) error
	// Space gives the bytes that the file system of path has and has left.
	Space(path string) (total, free uint64, err error)
}

// Attr is mode (permission bits, setuid excluded) and owner of a file.
type Attr struct {
	Mode     fs.FileMode
	UID, GID int
}

// String is the attributes as plan shows them.
func (a Attr) String() string { return fmt.Sprintf("%04o %d:%d", a.Mode, a.UID, a.GID) }

// Info is what Stat finds.
type Info struct {
	Attr
	Type    fs.FileMode // fs.ModeDir, fs.ModeSymlink, …; 0: a file
	Size    int64       // bytes
	Target  string      // a link's
	ModTime time.Time   // of the content
}

// Accounts are the machine's own users and groups.
type Accounts interface {
	User(name string) (User, error)   // ErrNotFound
	Group(name string) (Group, error) // ErrNotFound
	// AddSystemUser makes a user that nobody can log in as, with a group of
	// its own name. One that is there is no error.
	AddSystemUser(ctx context.Context, name, comment string) error
}

// User is an account.
type User struct {
	Name     string
	UID, GID int
	Comment  string // its full name, in passwd(5)
	Home     string
	Shell    string
}

// Group is a group.
type Group struct {
	Name string
	GID  int
}

// Runner runs the machine's commands.
type Runner interface {
	// Run waits for the command's end. An exit code other than 0 is an
	// *ExitError; a program that isn't there is ErrNotFound.
	Run(ctx context.Context, c Command) (Output, error)
}

// Command is one call, without a shell. Env is added to an environment of the
// installer's own; the caller's is not handed on.
type Command struct {
	Args  []string // never a secret: other users can read them
	Stdin io.Reader
	Env   []string
}

// String is the command for messages.
func (c Command) String() string { return strings.Join(c.Args, " ") }

// Output is what a command printed.
type Output struct{ Stdout, Stderr []byte }

// ExitError is a command that ended badly.
type ExitError struct {
	Command string
	Code    int    // -1: killed by a signal
	Stderr  string // its last lines
}

// Error is the command with its exit code and last lines.
func (e *ExitError) Error() string {
	msg := fmt.Sprintf("%s: exit code %d", e.Command, e.Code)
	if s := strings.TrimSpace(e.Stderr); s != "" {
		msg += ": " + s
	}
	return msg
}

// Services are systemd's units.
type Services interface {
	// Unit gives a unit's state. One that isn't there has Load "not-found".
	Unit(ctx context.Context, name string) (Unit, error)
	// ReloadUnits makes systemd read the unit files again.
	ReloadUnits(ctx context.Context) error
	// Enable has the units started at boot.
	Enable(ctx context.Context, names ...string) error
	// Disable undoes Enable.
	Disable(ctx context.Context, names ...string) error
	// Start, Stop and Restart wait until systemd's job is done, and fail where
	// it fails.
	Start(ctx context.Context, name string) error
	// Stop returns once the unit is inactive.
	Stop(ctx context.Context, name string) error
	// StopTogether stops units of which one starts the other, such as a service and its
	// sockets: none of them is started while another has yet to stop.
	StopTogether(ctx context.Context, names ...string) error
	// Restart is Stop, where it runs, and Start.
	Restart(ctx context.Context, name string) error
	// ReloadService has a running service read its configuration again.
	ReloadService(ctx context.Context, name string) error
	// ResetFailed forgets that a unit has failed, and how often it was started.
	// One that has not failed is no error.
	ResetFailed(ctx context.Context, name string) error
}

// Unit is the state of one, in systemd's words.
type Unit struct {
	Load        string // loaded, not-found, masked, bad-setting, error
	Active      string // active, inactive, failed, activating, …
	Sub         string // running, listening, waiting, dead, …
	Enabled     string // enabled, disabled, static, …
	NeedsReload bool   // the file has changed since systemd read it
	Since       time.Time
	// Invocation is another one after each start; empty for a unit that has not run.
	Invocation string
	// Changed is when its state last did: also when it was reloaded, which
	// leaves Since alone.
	Changed time.Time
}
