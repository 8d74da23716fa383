package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestReadSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, tt := range []struct {
		name, text string
		fails      bool
	}{{"empty", "", false}, {"less", "ab", false}, {"just", "abcd", false}, {"more", "abcde", true}} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := ReadSmall(path, 4)
		if (err != nil) != tt.fails || !tt.fails && string(b) != tt.text {
			t.Errorf("%s: %q, %v", tt.name, b, err)
		}
		if err != nil && (!strings.Contains(err.Error(), path) || strings.Contains(err.Error(), tt.text)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := ReadSmall(path+"-none", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ReadSmall(filepath.Dir(path), 4); err == nil {
		t.Error("a folder is read")
	}
	// What has no end is not read to it.
	if _, err := ReadSmall("/dev/zero", 4); err == nil {
		t.Error("no end is read")
	}
	pipe := path + "-pipe"
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadSmall(pipe, 4); len(b) != 0 || err != nil {
		t.Errorf("a pipe that nobody writes to: %q, %v", b, err)
	}
	// A shell's <(…) has a writer from the start, which may take its time.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		runtime.Gosched()
		_, _ = w.WriteString("ab")
		_ = w.Close()
	}()
	if b, err := ReadSmall(fmt.Sprintf("/dev/fd/%d", r.Fd()), 4); string(b) != "ab" || err != nil {
		t.Errorf("a pipe: %q, %v", b, err)
	}
}
