package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxAnswer bounds what a person can say at a prompt, in bytes.
const maxAnswer = 1 << 10

// askLine reads one line that a person types, without the spaces around it; what
// ends without a newline is a line as well. A read of a terminal can't be
// interrupted, so when ctx ends first askLine gives its cause and leaves the
// read to end with the program. An answer that came too late is none.
func askLine(ctx context.Context, in io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	said := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(in, maxAnswer)).ReadString('\n')
		said <- answer{line, err}
	}()
	var a answer
	select {
	case <-ctx.Done():
	case a = <-said:
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("wait for an answer: %w", context.Cause(ctx))
	}
	if a.err != nil && !errors.Is(a.err, io.EOF) {
		return "", fmt.Errorf("read the answer: %w", a.err)
	}
	return strings.TrimSpace(a.line), nil
}
