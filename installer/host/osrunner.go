package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"strongroom.example/appliance/base/command"
)

// OSRunner runs real commands.
type OSRunner struct{}

var _ Runner = OSRunner{}

// Run implements Runner.
func (OSRunner) Run(ctx context.Context, c Command) (Output, error) {
	cmd := command.New(ctx, c.Args[0], c.Args[1:]...)
	cmd.Stdin, cmd.Env = c.Stdin, command.Environ(c.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := Output{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	if ctx.Err() != nil {
		return out, fmt.Errorf("%s: %w", c, ctx.Err())
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, nil
	case errors.As(err, &exit):
		return out, &ExitError{Command: c.String(), Code: exit.ExitCode(), Stderr: lastLines(stderr.String(), 5)}
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return out, fmt.Errorf("command %q: %w", c.Args[0], ErrNotFound)
	}
	return out, fmt.Errorf("%s: %w", c, err)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
