// Package program is how both programs run: what interrupts them, and that
// output which was lost is not passed over in silence. The exit codes are fault's.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
)

// Interruptible ends with SIGINT, SIGTERM and the end of the terminal (SIGHUP), a
// lost connection say, but for those that whoever started us wants ignored, as
// nohup(1) does. After stop they kill.
func Interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	var heeded []os.Signal
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			heeded = append(heeded, s)
		}
	}
	if len(heeded) == 0 {
		return context.WithCancel(ctx) // NotifyContext takes none for all
	}
	return signal.NotifyContext(ctx, heeded...)
}

// Run runs a command line, and gives its exit code. Nobody reading on is no reason
// to be killed in the middle of a change: then output goes nowhere. Output that
// could not be written otherwise, to a full disk say, is a failure also of a
// command that does not look.
func Run(ctx context.Context, root *cobra.Command, report func(io.Writer, error) int) int {
	// Handled, and not ignored: that the programs that we run would inherit.
	nobody := make(chan os.Signal, 1)
	signal.Notify(nobody, syscall.SIGPIPE)
	defer signal.Stop(nobody)

	out := &output{file: os.Stdout}
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	lost := out.lost()
	switch {
	case lost == nil:
	case errors.Is(lost, syscall.EPIPE):
		if errors.Is(err, lost) {
			return fault.Failed // as who reads on no more expects it: in silence
		}
	case err == nil:
		err = &fault.Error{Code: fault.Failed, Err: fmt.Errorf("not all output could be written: %w", lost), Hint: "what was to be done is done"}
	}
	return report(os.Stderr, err)
}

// output is standard output, and remembers the first write that failed.
type output struct {
	file *os.File

	mu  sync.Mutex
	err error
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	n, err := o.file.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

// Fd is what a look at the terminal needs.
func (o *output) Fd() uintptr { return o.file.Fd() }

func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
