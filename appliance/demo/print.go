package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// printer shows the demo's progress: one line a step, with a tick and its
// time, and below it what there is to see.
type printer struct {
	out      io.Writer
	terminal bool
	began    time.Time
}

func newPrinter(out io.Writer, width int) *printer {
	return &printer{out: out, terminal: width > 0, began: time.Now()}
}

// titleWidth is where the times stand, in columns.
const titleWidth = 44

func (p *printer) printf(format string, args ...any) {
	// Nobody is left to tell when the terminal has gone; the demo ends by the
	// signal that comes with that.
	_, _ = fmt.Fprintf(p.out, format, args...)
}

func (p *printer) begin(dir string) {
	p.printf("\nStrongroom, the whole appliance in %s\n\n", dir)
}

// start shows a step as under way and returns what ends it.
func (p *printer) start(title string) func(detail string, err error) {
	began := time.Now()
	if p.terminal {
		p.printf("  … %s", title)
	}
	return func(detail string, err error) {
		tick := "✓"
		if err != nil {
			tick = "✗"
		}
		if p.terminal {
			p.printf("\r\033[K")
		}
		pad := strings.Repeat(" ", max(1, titleWidth-utf8.RuneCountInString(title)))
		p.printf("  %s %s%s%5.2f s\n", tick, title, pad, time.Since(began).Seconds())
		if err == nil {
			for line := range strings.Lines(detail) {
				p.printf("      %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
}

func (p *printer) end(text string) {
	p.printf("\n  all of it in %.1f s\n\n%s\n", time.Since(p.began).Seconds(), text)
}
