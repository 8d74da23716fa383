package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"strongroom.example/config/machine"
	"strongroom.example/systemd"
)

// Memory is a machine in memory, for tests: files, accounts, commands and
// services, and a count of the actions that change it, any of which can be
// made to fail. Like a real one's, its commands and services do nothing once their
// context has ended. It is not safe for concurrent use.
type Memory struct {
	Files  map[string]*Node
	Users  map[string]User
	Groups map[string]Group
	Units  map[string]*Unit
	// Commands answers for a program's name; one that isn't there is
	// ErrNotFound.
	Commands map[string]func(c Command, stdin []byte) (Output, error)
	ofFiles  []string // units that ReloadUnits has found
	// Calls are the commands that ran.
	Calls []string
	// OnStart is called when a unit has been started or restarted.
	OnStart map[string]func() error
	// Mounts are the folders that other file systems are mounted on; ReadOnly are those
	// below which nothing can be changed, and Full those below which there is no room, or
	// no inode, for anything more.
	Mounts, ReadOnly, Full []string
	// Total and Free are the disk's bytes.
	Total, Free uint64
	// Clock moves a millisecond at each write and each start of a unit.
	Clock time.Time

	// Actions counts what has changed the machine. FailAt is the one that
	// fails, from 1; AfterEffect lets it take effect first.
	Actions     int
	FailAt      int
	AfterEffect bool
	// Strike, if set, is called in the place of the fault, and the action goes on.
	Strike func()
}

// Node is a file, folder or link of a Memory.
type Node struct {
	Info
	Data []byte
}

// ErrInjected is what the action at FailAt fails with.
var ErrInjected = errors.New("injected fault")

var (
	_ FS       = (*Memory)(nil)
	_ Accounts = (*Memory)(nil)
	_ Runner   = (*Memory)(nil)
	_ Services = (*Memory)(nil)
)

// NewMemory is a machine with an empty root folder.
func NewMemory() *Memory {
	return &Memory{
		Files:    map[string]*Node{"/": {Info: Info{Attr: Attr{Mode: 0o755}, Type: fs.ModeDir}}},
		Users:    map[string]User{},
		Groups:   map[string]Group{},
		Units:    map[string]*Unit{},
		Commands: map[string]func(Command, []byte) (Output, error){},
		OnStart:  map[string]func() error{},
		Clock:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Total:    40 << 30,
		Free:     38 << 30,
	}
}

// Host is the whole of it.
func (m *Memory) Host() *Host {
	return &Host{FS: m, Accounts: m, Runner: m, Services: m, Now: func() time.Time { return m.Clock }}
}

func (m *Memory) tick() time.Time {
	m.Clock = m.Clock.Add(time.Millisecond)
	return m.Clock
}

// action counts effect and fails it if it is its turn.
func (m *Memory) action(effect func() error) error {
	m.Actions++
	if m.Actions != m.FailAt {
		return effect()
	}
	if m.Strike != nil {
		m.Strike()
		return effect()
	}
	if !m.AfterEffect {
		return ErrInjected
	}
	_ = effect() // how it would have ended nobody learns
	return ErrInjected
}

func fault(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

// below says whether p is one of some folders, or below one.
func below(folders []string, p string) bool {
	return slices.ContainsFunc(folders, func(at string) bool { return p == at || strings.HasPrefix(p, at+"/") })
}

// changeable fails where nothing can be changed.
func (m *Memory) changeable(op, p string) error {
	if below(m.ReadOnly, p) {
		return fault(op, p, syscall.EROFS)
	}
	return nil
}

// parent fails unless something can be made in path's parent.
func (m *Memory) parent(op, p string) error {
	if err := m.changeable(op, p); err != nil {
		return err
	}
	if below(m.Full, p) {
		return fault(op, p, syscall.ENOSPC)
	}
	n, ok := m.Files[path.Dir(p)]
	if !ok {
		return fault(op, p, fs.ErrNotExist)
	}
	if n.Type != fs.ModeDir {
		return fault(op, p, errors.New("not a directory"))
	}
	return nil
}

// Stat implements FS.
func (m *Memory) Stat(p string) (Info, error) {
	n, ok := m.Files[path.Clean(p)]
	if !ok {
		return Info{}, fault("stat", p, fs.ErrNotExist)
	}
	info := n.Info
	info.Size = int64(len(n.Data))
	return info, nil
}

// resolve follows a link at the end of p.
func (m *Memory) resolve(op, p string) (*Node, error) {
	p = path.Clean(p)
	for range 8 {
		n, ok := m.Files[p]
		if !ok {
			return nil, fault(op, p, fs.ErrNotExist)
		}
		if n.Type != fs.ModeSymlink {
			return n, nil
		}
		if p = n.Target; !path.IsAbs(p) {
			return nil, fault(op, p, errors.New("a relative link"))
		}
	}
	return nil, fault(op, p, errors.New("too many links"))
}

// ReadFile implements FS.
func (m *Memory) ReadFile(p string) ([]byte, error) {
	n, err := m.resolve("open", p)
	if err != nil {
		return nil, err
	}
	if n.Type != 0 {
		return nil, fault("read", p, errors.New("is a directory"))
	}
	return slices.Clone(n.Data), nil
}

// Open implements FS.
func (m *Memory) Open(p string) (io.ReadCloser, error) {
	b, err := m.ReadFile(p)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// ReadDir implements FS.
func (m *Memory) ReadDir(p string) ([]string, error) {
	n, err := m.resolve("open", p)
	if err != nil {
		return nil, err
	}
	if n.Type != fs.ModeDir {
		return nil, fault("readdir", p, errors.New("not a directory"))
	}
	names := []string{}
	for f := range m.Files {
		if f != "/" && path.Dir(f) == path.Clean(p) {
			names = append(names, path.Base(f))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Write implements FS.
func (m *Memory) Write(p string, r io.Reader, a Attr) error {
	p = path.Clean(p)
	b, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("write %q: %w", p, err)
	}
	return m.action(func() error {
		if err := m.parent("write", p); err != nil {
			return err
		}
		if n, ok := m.Files[p]; ok && n.Type == fs.ModeDir {
			return fault("write", p, errors.New("is a directory"))
		}
		m.Files[p] = &Node{Info: Info{Attr: a, ModTime: m.tick()}, Data: b}
		return nil
	})
}

// Mkdir implements FS.
func (m *Memory) Mkdir(p string, a Attr) error {
	p = path.Clean(p)
	return m.action(func() error {
		n, ok := m.Files[p]
		if ok && n.Type == fs.ModeDir {
			if err := m.changeable("mkdir", p); err != nil {
				return err
			}
			n.Attr = a
			return nil
		}
		if ok {
			return fmt.Errorf("%q is there and is not a folder", p)
		}
		if err := m.parent("mkdir", p); err != nil {
			return err
		}
		m.Files[p] = &Node{Info: Info{Attr: a, Type: fs.ModeDir}}
		return nil
	})
}

// SetAttr implements FS.
func (m *Memory) SetAttr(p string, a Attr) error {
	return m.action(func() error {
		n, ok := m.Files[path.Clean(p)]
		if !ok {
			return fault("chmod", p, fs.ErrNotExist)
		}
		if err := m.changeable("chmod", path.Clean(p)); err != nil {
			return err
		}
		n.Attr = a
		return nil
	})
}

// Symlink implements FS.
func (m *Memory) Symlink(target, p string) error {
	p = path.Clean(p)
	return m.action(func() error {
		if err := m.parent("symlink", p); err != nil {
			return err
		}
		if n, ok := m.Files[p]; ok && n.Type != fs.ModeSymlink {
			return fmt.Errorf("%q is there and is not a link", p)
		}
		m.Files[p] = &Node{Info: Info{Attr: Attr{Mode: 0o777}, Type: fs.ModeSymlink, Target: target}}
		return nil
	})
}

// Rename implements FS.
func (m *Memory) Rename(old, new string) error {
	old, new = path.Clean(old), path.Clean(new)
	return m.action(func() error {
		if err := errors.Join(m.changeable("rename", old), m.changeable("rename", new)); err != nil {
			return err
		}
		if in, ok := m.Files[path.Dir(new)]; !ok || in.Type != fs.ModeDir {
			return fault("rename", new, fs.ErrNotExist)
		}
		if _, ok := m.Files[old]; !ok {
			return fault("rename", old, fs.ErrNotExist)
		}
		if _, ok := m.Files[new]; ok {
			return fault("rename", new, fs.ErrExist)
		}
		if m.mounted(old) {
			return fault("rename", old, syscall.EBUSY)
		}
		moved := map[string]*Node{}
		for f, n := range m.Files {
			if rest, ok := strings.CutPrefix(f, old); ok && (rest == "" || rest[0] == '/') {
				moved[new+rest] = n
				delete(m.Files, f)
			}
		}
		maps.Copy(m.Files, moved)
		return nil
	})
}

// mounted says whether a file system is mounted at p, or below it.
func (m *Memory) mounted(p string) bool {
	return slices.ContainsFunc(m.Mounts, func(at string) bool { return at == p || strings.HasPrefix(at, p+"/") })
}

// Remove implements FS.
func (m *Memory) Remove(p string) error {
	p = path.Clean(p)
	if _, ok := m.Files[p]; !ok {
		return nil
	}
	return m.action(func() error {
		if err := m.changeable("remove", p); err != nil {
			return err
		}
		for f := range m.Files {
			if f != p && path.Dir(f) == p {
				return fault("remove", p, errors.New("directory not empty"))
			}
		}
		if m.mounted(p) {
			return fault("remove", p, syscall.EBUSY)
		}
		delete(m.Files, p)
		return nil
	})
}

// RemoveAll implements FS.
func (m *Memory) RemoveAll(p string) error {
	p = path.Clean(p)
	if p == "/" {
		return errors.New("refusing to remove \"/\"")
	}
	return m.action(func() error {
		if _, ok := m.Files[p]; ok {
			if err := m.changeable("remove", p); err != nil {
				return err
			}
		}
		// What is mounted is emptied, and stays with the folders on the way to it.
		busy := false
		maps.DeleteFunc(m.Files, func(f string, _ *Node) bool {
			if f != p && !strings.HasPrefix(f, p+"/") {
				return false
			}
			on := m.mounted(f)
			busy = busy || on
			return !on
		})
		if busy {
			return fault("remove", p, syscall.EBUSY)
		}
		return nil
	})
}

// Space implements FS.
func (m *Memory) Space(string) (total, free uint64, err error) { return m.Total, m.Free, nil }

// User implements Accounts.
func (m *Memory) User(name string) (User, error) {
	u, ok := m.Users[name]
	if !ok {
		return User{}, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	return u, nil
}

// Group implements Accounts.
func (m *Memory) Group(name string) (Group, error) {
	g, ok := m.Groups[name]
	if !ok {
		return Group{}, fmt.Errorf("group %q: %w", name, ErrNotFound)
	}
	return g, nil
}

// AddSystemUser implements Accounts.
func (m *Memory) AddSystemUser(ctx context.Context, name, comment string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkAccount(name, comment); err != nil {
		return err
	}
	if _, ok := m.Users[name]; ok {
		return nil
	}
	return m.action(func() error {
		id := 999 - len(m.Users)
		m.Groups[name] = Group{Name: name, GID: id}
		m.Users[name] = User{Name: name, UID: id, GID: id, Comment: comment, Home: "/", Shell: "/usr/sbin/nologin"}
		return nil
	})
}

// Run implements Runner. It counts as an action, since the machine can't know
// what a command changes.
func (m *Memory) Run(ctx context.Context, c Command) (Output, error) {
	if err := ctx.Err(); err != nil {
		return Output{}, err
	}
	f, ok := m.Commands[path.Base(c.Args[0])]
	if !ok {
		return Output{}, fmt.Errorf("command %q: %w", c.Args[0], ErrNotFound)
	}
	var stdin []byte
	if c.Stdin != nil {
		var err error
		if stdin, err = io.ReadAll(c.Stdin); err != nil {
			return Output{}, err
		}
	}
	m.Calls = append(m.Calls, c.String())
	var out Output
	err := m.action(func() (err error) {
		out, err = f(c, stdin)
		return err
	})
	return out, err
}

// Unit implements Services.
func (m *Memory) Unit(ctx context.Context, name string) (Unit, error) {
	if err := ctx.Err(); err != nil {
		return Unit{}, err
	}
	if u, ok := m.Units[name]; ok {
		return *u, nil
	}
	return Unit{Load: "not-found", Active: "inactive", Sub: "dead"}, nil
}

// ReloadUnits implements Services: unit files below /etc/systemd/system become
// units.
func (m *Memory) ReloadUnits(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.action(func() error {
		for f := range m.Files {
			name := path.Base(f)
			if path.Dir(f) != machine.UnitDir || path.Ext(name) == ".d" {
				continue
			}
			if _, ok := m.Units[name]; !ok {
				m.Units[name] = &Unit{Load: "loaded", Active: "inactive", Sub: "dead", Enabled: "disabled"}
				m.ofFiles = append(m.ofFiles, name)
			}
		}
		for _, name := range m.ofFiles {
			u := m.Units[name]
			if _, there := m.Files[path.Join(machine.UnitDir, name)]; !there && u != nil && u.Active == "inactive" {
				delete(m.Units, name)
			}
		}
		return nil
	})
}

// Enable implements Services.
func (m *Memory) Enable(ctx context.Context, names ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit(names, func(_ string, u *Unit) error { u.Enabled = "enabled"; return nil })
}

// Disable implements Services.
func (m *Memory) Disable(ctx context.Context, names ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit(names, func(_ string, u *Unit) error { u.Enabled = "disabled"; return nil })
}

// Start implements Services.
func (m *Memory) Start(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit([]string{name}, func(name string, u *Unit) error {
		if u.Active == "active" {
			return nil
		}
		return m.started(name, u)
	})
}

// Restart implements Services.
func (m *Memory) Restart(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit([]string{name}, m.started)
}

// Stop implements Services.
func (m *Memory) Stop(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit([]string{name}, func(_ string, u *Unit) error {
		u.Active, u.Sub = "inactive", "dead"
		return nil
	})
}

// StopTogether implements Services.
func (m *Memory) StopTogether(ctx context.Context, names ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit(names, func(_ string, u *Unit) error {
		u.Active, u.Sub = "inactive", "dead"
		return nil
	})
}

// ReloadService implements Services.
func (m *Memory) ReloadService(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.eachUnit([]string{name}, func(name string, u *Unit) error {
		if u.Active != "active" {
			return fmt.Errorf("unit %q: is %s", name, u.Active)
		}
		u.Changed = m.tick()
		return nil
	})
}

// ResetFailed implements Services.
func (m *Memory) ResetFailed(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u, ok := m.Units[name]
	if !ok || u.Active != "failed" {
		return nil
	}
	return m.action(func() error { u.Active, u.Sub = "inactive", "dead"; return nil })
}

func (m *Memory) started(name string, u *Unit) error {
	if f := m.OnStart[name]; f != nil {
		if err := f(); err != nil {
			u.Active, u.Sub = "failed", "failed"
			return err
		}
	}
	u.Active, u.Sub, u.Since = "active", "running", m.tick()
	u.Invocation = strconv.FormatInt(u.Since.UnixNano(), 16)
	u.Changed = u.Since
	if m.oneshot(name) {
		u.Active, u.Sub = "inactive", "dead" // it has come to its end
	}
	return nil
}

// oneshot says whether a unit ends by itself, by its file or by the appliance's own.
func (m *Memory) oneshot(name string) bool {
	text, err := m.ReadFile(path.Join(machine.UnitDir, name))
	if err != nil {
		if text, err = systemd.Unit(name); err != nil {
			return false
		}
	}
	return bytes.Contains(text, []byte("\nType=oneshot\n")) && !bytes.Contains(text, []byte("\nRemainAfterExit=yes\n"))
}

func (m *Memory) eachUnit(names []string, f func(string, *Unit) error) error {
	return m.action(func() error {
		for _, name := range names {
			u, ok := m.Units[name]
			if !ok {
				return fmt.Errorf("unit %q: %w", name, ErrNotFound)
			}
			if err := f(name, u); err != nil {
				return err
			}
		}
		return nil
	})
}
