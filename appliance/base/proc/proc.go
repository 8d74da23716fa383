// Package proc runs child processes that cannot outlive their parent: each one
// is in a process group of its own, is killed by the kernel when the parent
// dies, and is ended with its whole group when the Set is closed.
//
// It is not systemd: on an installed machine the units do this. It serves what
// runs a Vault of its own for a while (the demo, a drill, a rehearsal).
package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartPause lets a child that dies at once not spin.
const restartPause = 100 * time.Millisecond

// maxQuickDeaths in a row (each within quickLife of its start) make a
// restarting child count as failed.
const (
	maxQuickDeaths = 3
	quickLife      = 2 * time.Second
)

// Spec is one child.
type Spec struct {
	Name    string // for messages
	Path    string // the program
	Args    []string
	Env     []string  // all of it; nothing is inherited. Never a secret.
	Stdin   io.Reader // read once, at the first start; may hold a secret
	LogFile string    // appended to, mode 0600; standard output and error
	Restart bool      // start again when it ends without Stop
	// Grace is how long Stop waits after SIGTERM before SIGKILL; 0 means 10 s.
	Grace time.Duration
}

// Set starts children and ends them all, last started first.
type Set struct {
	starts chan func()

	mu       sync.Mutex
	children []*Child
	closed   bool
}

// NewSet makes an empty set.
func NewSet() *Set {
	s := &Set{starts: make(chan func())}
	// The kernel's parent-death signal belongs to the thread that forked. This
	// goroutine keeps its thread for the life of the set and makes every fork.
	go func() {
		runtime.LockOSThread()
		for start := range s.starts {
			start()
		}
	}()
	return s
}

// Start runs spec. The error says why it could not be started; an early death
// shows in Child.Done and Child.Err.
func (s *Set) Start(spec Spec) (*Child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("start %s: the set is closed", spec.Name)
	}
	c := &Child{spec: spec, set: s, done: make(chan struct{})}
	if err := c.start(spec.Stdin); err != nil {
		return nil, err
	}
	s.children = append(s.children, c)
	go c.watch()
	return c, nil
}

// Close stops every child, last started first, and returns when all of them
// are gone.
func (s *Set) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	children := s.children
	s.mu.Unlock()
	var errs []error
	for i := len(children) - 1; i >= 0; i-- {
		errs = append(errs, children[i].Stop())
	}
	close(s.starts)
	return errors.Join(errs...)
}

// Child is a process of a Set, restarted or not.
type Child struct {
	spec Spec
	set  *Set
	done chan struct{} // closed when it is gone for good

	mu       sync.Mutex
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the present process is reaped
	waitErr  error         // of the process last reaped; read after exited
	stopping bool
	killed   bool  // by Kill, so its death says nothing about it
	err      error // why it is gone; read after done
}

// Done is closed when the child has ended and will not be started again.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err says why the child ended, with the end of its log; call it after Done.
func (c *Child) Err() error {
	<-c.done
	return c.err
}

// PID of the present process.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd.Process.Pid
}

func (c *Child) start(stdin io.Reader) error {
	log, err := os.OpenFile(c.spec.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.spec.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(c.spec.Path, c.spec.Args...)
	cmd.Env = c.spec.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would inherit ours
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	c.set.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", c.spec.Name, err)
	}
	exited := make(chan struct{})
	c.mu.Lock()
	c.cmd, c.exited = cmd, exited
	c.mu.Unlock()
	go func() {
		// What it leaves in its group (a plugin, say) goes with it. Until it is
		// reaped its number cannot have passed to somebody else's group.
		awaitExit(cmd.Process.Pid)
		killGroup(cmd.Process.Pid, syscall.SIGKILL)
		err := cmd.Wait()
		c.mu.Lock()
		c.waitErr = err
		c.mu.Unlock()
		close(exited)
	}()
	return nil
}

// watch restarts the child as its spec says, and closes done in the end.
func (c *Child) watch() {
	defer close(c.done)
	quick := 0
	for {
		c.mu.Lock()
		exited := c.exited
		c.mu.Unlock()
		began := time.Now()
		<-exited

		c.mu.Lock()
		err, stopping, killed := c.waitErr, c.stopping, c.killed
		c.killed = false
		c.mu.Unlock()
		if stopping {
			return
		}
		if !killed && time.Since(began) < quickLife {
			quick++
		} else {
			quick = 0
		}
		if !c.spec.Restart || quick >= maxQuickDeaths {
			c.err = c.fault(err)
			return
		}
		time.Sleep(restartPause)
		if c.isStopping() {
			return
		}
		if err := c.start(nil); err != nil {
			c.err = err
			return
		}
		// A Stop that came while the new process was starting saw the old one.
		if c.isStopping() {
			c.end()
			return
		}
	}
}

func (c *Child) isStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// Kill sends SIGKILL to the present process and its group, and returns when it
// is reaped. A restarting child comes back.
func (c *Child) Kill() {
	c.mu.Lock()
	c.killed = true
	pid, exited := c.cmd.Process.Pid, c.exited
	c.mu.Unlock()
	killGroup(pid, syscall.SIGKILL)
	<-exited
}

// Stop ends the child for good: SIGTERM, its grace, SIGKILL.
func (c *Child) Stop() error {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	c.end()
	<-c.done
	return nil
}

func (c *Child) end() {
	grace := c.spec.Grace
	if grace == 0 {
		grace = 10 * time.Second
	}
	c.mu.Lock()
	pid, exited := c.cmd.Process.Pid, c.exited
	c.mu.Unlock()
	select {
	case <-exited:
		return
	default:
	}
	killOne(pid, syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(grace):
		killGroup(pid, syscall.SIGKILL)
		<-exited
	}
}

// awaitExit returns when our child pid has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// killGroup and killOne ignore errors: the process may be gone already, which
// is what they are for. The pid is our unreaped child's or its group's.
func killGroup(pid int, sig syscall.Signal) { _ = syscall.Kill(-pid, sig) }

func killOne(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) }

func (c *Child) fault(waitErr error) error {
	how := "it ended"
	if waitErr != nil {
		how = waitErr.Error()
	}
	if tail := logTail(c.spec.LogFile, 5); tail != "" {
		return fmt.Errorf("%s ended by itself (%s); its last words:\n%s", c.spec.Name, how, tail)
	}
	return fmt.Errorf("%s ended by itself (%s)", c.spec.Name, how)
}

// logTail is the last n lines of a log, indented.
func logTail(path string, n int) string {
	const window = 4096 // bytes
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, window))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "    " + strings.Join(lines, "\n    ")
}

// WaitUp runs ready, which must return when its context ends, and gives up as
// soon as the child is gone.
func (c *Child) WaitUp(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.done:
			cancel(c.Err())
		case <-ctx.Done():
		}
	}()
	err := ready(ctx)
	select {
	case <-c.done:
		return c.Err()
	default:
		return err
	}
}
