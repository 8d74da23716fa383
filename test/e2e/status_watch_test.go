package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strongroom.example/test/vaulttest"
)

// pseudoTerminal gives both ends of one, 100 columns wide: pty(7).
func pseudoTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminal here:", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestStatusWatch redraws a real terminal until it is interrupted, in colours
// unless they are unwanted.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	bin := vaulttest.Bin(t, "strongroom")
	for name, c := range map[string]struct {
		env    string
		colour bool
	}{"colours": {"TERM=xterm", true}, "NO_COLOR": {"NO_COLOR=1", false}, "dumb": {"TERM=dumb", false}} {
		t.Run(name, func(t *testing.T) {
			master, slave := pseudoTerminal(t)
			cmd := exec.Command(bin, "status", "--watch", "--interval", "1s", "--config", "/none", "--states", "/none", "--address", "unix:///none")
			cmd.Env = []string{"HOME=" + t.TempDir(), c.env}
			cmd.Stdout, cmd.Stderr = slave, slave
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if err := slave.Close(); err != nil {
				t.Fatal(err)
			}
			var seen bytes.Buffer
			buf := make([]byte, 4096)
			for strings.Count(seen.String(), "\x1b[H") < 2 {
				n, err := master.Read(buf)
				if err != nil {
					t.Fatalf("%v after:\n%s", err, seen.String())
				}
				seen.Write(buf[:n])
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			// Its last words must be read, or it could wait for the terminal.
			go func() {
				for {
					if _, err := master.Read(buf); err != nil {
						return
					}
				}
			}()
			if err := cmd.Wait(); err != nil {
				t.Errorf("interrupted: %v", err)
			}
			if got := strings.Contains(seen.String(), "\x1b[31m"); got != c.colour {
				t.Errorf("colours = %t:\n%q", got, seen.String())
			}
			if !strings.Contains(seen.String(), "does not answer") {
				t.Errorf("it shows nothing:\n%s", seen.String())
			}
		})
	}
}
