package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// program is a running strongroom whose output is watched.
type program struct {
	cmd *exec.Cmd
	tmp string // its TMPDIR

	mu   sync.Mutex
	out  bytes.Buffer
	news chan struct{} // closed and replaced when output comes
	end  chan struct{}
}

// startDemo runs `strongroom demo` with a temporary folder of its own.
func startDemo(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{tmp: vaulttest.Dir(t), news: make(chan struct{}), end: make(chan struct{})}
	vaultBin := vaulttest.Bin(t, "vault")
	vaulttest.Bin(t, "vault-plugin-secrets-apikeys")
	p.cmd = exec.Command(vaulttest.Bin(t, "strongroom"), append([]string{"demo"}, args...)...)
	p.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.tmp, "TMPDIR=" + p.tmp, "VAULT_BIN=" + vaultBin}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state tells all
		close(p.end)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.end
		if t.Failed() {
			t.Logf("demo %q printed:\n%s", args, p.output())
		}
	})
	return p
}

// Write takes the program's output.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	close(p.news)
	p.news = make(chan struct{})
	return len(b), nil
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// waitFor returns all output once want is in it.
func (p *program) waitFor(t *testing.T, want string) string {
	t.Helper()
	timeout := time.After(2 * vaulttest.Patience)
	for {
		p.mu.Lock()
		out, news := p.out.String(), p.news
		p.mu.Unlock()
		if strings.Contains(out, want) {
			return out
		}
		select {
		case <-news:
		case <-p.end:
			if out := p.output(); strings.Contains(out, want) {
				return out
			}
			t.Fatalf("the program ended and had not printed %q", want)
		case <-timeout:
			t.Fatalf("the program has not printed %q", want)
		}
	}
}

func (p *program) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code; -1 after a signal.
func (p *program) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.end:
	case <-time.After(2 * vaulttest.Patience):
		t.Fatal("the program does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// assertGone waits until no process has dir in its command line and none of
// them listens; a kill takes a moment to be seen.
func assertGone(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(vaulttest.Patience)
	for {
		left := processesOf(t, dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes are left:\n%s", strings.Join(left, "\n"))
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.Contains(line, []byte(dir)) {
			found = append(found, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func assertEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
	}
}

// exports is the environment that the program told a person to set.
func exports(t *testing.T, out string) []string {
	t.Helper()
	line := match(t, out, `export (VAULT_ADDR=\S+ VAULT_CACERT=\S+)`)
	return append(strings.Fields(line), "PATH=/usr/bin:/bin", "HOME="+vaulttest.Dir(t))
}

func match(t *testing.T, s, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(s)
	if m == nil {
		t.Fatalf("no %q in:\n%s", pattern, s)
	}
	return m[1]
}

// vault runs the stock CLI and returns its trimmed output.
func vault(t *testing.T, env []string, stdin string, args ...string) string {
	t.Helper()
	_ = vaulttest.Bin(t, "vault")
	out, err := vaultTry(env, stdin, args...)
	if err != nil {
		t.Fatalf("vault %s: %v: %s", strings.Join(args[:min(2, len(args))], " "), err, out)
	}
	return out
}

func vaultTry(env []string, stdin string, args ...string) (string, error) {
	bin := os.Getenv("VAULT_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "vault")
	}
	cmd := exec.Command(bin, args...)
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	// Standard error holds warnings that are no part of the answer.
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}
