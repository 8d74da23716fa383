package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/command"
	"strongroom.example/appliance/base/words"
)

// OSMachine is the real one. With a Root other than "" all files are below it.
type OSMachine struct{ Root string }

var _ Machine = OSMachine{}

func (o OSMachine) path(p string) string { return filepath.Join("/", o.Root, p) }

// Now implements Machine.
func (OSMachine) Now() time.Time { return time.Now() }

// Self implements Machine.
func (OSMachine) Self() int { return os.Getpid() }

// Hostname implements Machine. A machine without a name is one all the same.
func (OSMachine) Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// maxRead bounds what is read of one file or command, in bytes.
const maxRead = 16 << 20

// ReadFile implements Machine.
func (o OSMachine) ReadFile(p string) ([]byte, error) {
	f, err := os.OpenFile(o.path(p), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRead))
}

// Stat implements Machine.
func (o OSMachine) Stat(p string) (Info, error) {
	fi, err := os.Lstat(o.path(p))
	if err != nil {
		return Info{}, err
	}
	info := Info{Mode: fi.Mode().Perm(), Type: fi.Mode().Type(), Size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		info.UID, info.GID = int(st.Uid), int(st.Gid)
	}
	return info, nil
}

// ReadDir implements Machine.
func (o OSMachine) ReadDir(p string) ([]string, error) {
	entries, err := os.ReadDir(o.path(p))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Sum implements Machine.
func (o OSMachine) Sum(p string) (string, error) {
	f, err := os.OpenFile(o.path(p), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %q: %w", p, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// commandPatience bounds one command.
const commandPatience = 30 * time.Second

// Run implements Machine. The environment is a fixed one: the doctor's own may
// hold a token.
func (o OSMachine) Run(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	out := &limited{left: maxRead}
	err := o.Stream(ctx, out, args...)
	return out.Bytes(), err
}

// Stream implements Machine, with the same environment.
func (OSMachine) Stream(ctx context.Context, to io.Writer, args ...string) error {
	cmd := command.New(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = to, &limited{buf: &stderr, left: 4 << 10}
	err := cmd.Run()
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%s: %w", args[0], ctx.Err())
	case err != nil:
		return fmt.Errorf("%s: %w: %s", args[0], err, words.Line(stderr.String(), maxText))
	}
	return nil
}

// limited takes all and keeps its beginning.
type limited struct {
	buf  *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.buf == nil {
		l.buf = new(bytes.Buffer)
	}
	n := min(len(p), l.left)
	l.buf.Write(p[:n])
	l.left -= n
	return len(p), nil
}

func (l *limited) Bytes() []byte {
	if l.buf == nil {
		return nil
	}
	return l.buf.Bytes()
}

// SetMode implements Machine. It follows no link.
func (o OSMachine) SetMode(p string, mode fs.FileMode) error { return o.setMode(p, mode, func() {}) }

// setMode changes the very file that it has looked at: whoever owns the folder
// may put a link in its place at any time. between is called after the look.
func (o OSMachine) setMode(p string, mode fs.FileMode, between func()) error {
	fd, err := unix.Open(o.path(p), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: p, Err: err}
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return fmt.Errorf("%q is a link", p)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !info.IsDir() {
		return fmt.Errorf("%q has a second name, which may be another's file", p)
	}
	between()
	// fchmod(2) takes no descriptor of O_PATH; what /proc names is that file,
	// wherever its name leads by now.
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

// SetOwner implements Machine. It follows no link.
func (o OSMachine) SetOwner(p string, uid, gid int) error { return os.Lchown(o.path(p), uid, gid) }

// Replace implements Machine.
func (o OSMachine) Replace(p string, data []byte) error {
	info, err := o.Stat(p)
	if err != nil {
		return err
	}
	if info.Type != 0 {
		return fmt.Errorf("%q is not a regular file", p)
	}
	f, err := atomicfile.Create(o.path(p), info.Mode)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chown(info.UID, info.GID); err != nil {
		return err
	}
	return f.Commit()
}
