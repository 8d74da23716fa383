package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A pipe is read as long as somebody writes, and is not waited for.
func TestReadPipe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	// It would wait here for ever, if it waited.
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), "is a pipe, and nothing was written to it") {
		t.Errorf("nobody writes: %v", err)
	}
	w, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		data []byte
		err  error
	}
	got := make(chan result, 1)
	go func() {
		data, err := Read(file)
		got <- result{data, err}
	}()
	// More than the pipe holds: all of it is written once it is being read.
	text := strings.Repeat("# a line\n", 20000)
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-got; r.err != nil || string(r.data) != text {
		t.Errorf("somebody writes: %d bytes, %v", len(r.data), r.err)
	}
}
