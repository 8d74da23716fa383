package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAskLine(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		in   io.Reader
		want string
		err  error
	}{
		"a line":       {strings.NewReader(" yes \nmore"), "yes", nil},
		"no newline":   {strings.NewReader("yes"), "yes", nil},
		"nothing":      {strings.NewReader(""), "", nil},
		"a fault":      {iotest.ErrReader(broken), "", broken},
		"without end":  {strings.NewReader(strings.Repeat("y", 1<<20)), strings.Repeat("y", maxAnswer), nil},
		"an odd break": {strings.NewReader("yes\r\n"), "yes", nil},
	} {
		got, err := askLine(t.Context(), c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// A person who interrupts a prompt has said nothing, whatever comes then.
func TestAskLineInterrupted(t *testing.T) {
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	silent, end := io.Pipe()
	defer end.Close()
	go cancel(interrupted)
	if got, err := askLine(ctx, silent); got != "" || !errors.Is(err, interrupted) {
		t.Errorf("while it waits: %q, %v", got, err)
	}
	if got, err := askLine(ctx, strings.NewReader("y\n")); got != "" || !errors.Is(err, interrupted) {
		t.Errorf("too late: %q, %v", got, err)
	}
	var out strings.Builder
	if err := agree(ctx, strings.NewReader("y\n"), &out); !errors.Is(err, interrupted) {
		t.Errorf("doctor --fix goes on: %v", err)
	}
}
