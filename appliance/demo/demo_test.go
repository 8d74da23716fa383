package demo

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/backup/scratch"
)

func TestFolder(t *testing.T) {
	base := t.TempDir()
	t.Setenv("TMPDIR", base)
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(base, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dir string
		keep      bool
		wantErr   error
		stays     bool
	}{
		{"temporary", "", false, nil, false},
		{"new", filepath.Join(base, "new"), false, nil, false},
		{"new, kept", filepath.Join(base, "kept"), true, nil, true},
		{"there and empty", empty, false, nil, true},
		{"occupied", base, false, scratch.ErrOccupied, true},
		{"below a file", filepath.Join(file, "d"), false, errors.ErrUnsupported, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := openFolder(tt.dir)
			if (err != nil) != (tt.wantErr != nil) {
				t.Fatalf("error %v, want %v", err, tt.wantErr)
			}
			if err != nil {
				if tt.wantErr == scratch.ErrOccupied && !errors.Is(err, scratch.ErrOccupied) {
					t.Fatalf("error %v, want %v", err, tt.wantErr)
				}
				return
			}
			written := filepath.Join(f.path, "sub", "written")
			if err := os.MkdirAll(filepath.Dir(written), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(written, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := f.leave(tt.keep); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(f.path); (err == nil) != tt.stays {
				t.Errorf("folder is there: %t, want %t", err == nil, tt.stays)
			}
			if _, err := os.Stat(written); (err == nil) != tt.keep {
				t.Errorf("content is there: %t, want %t", err == nil, tt.keep)
			}
		})
	}
}

func TestFreeListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for addr, want := range map[string]error{
		"127.0.0.1:0":           nil,
		"0.0.0.0:0":             ErrListen,
		"localhost:0":           ErrListen,
		"127.0.0.1":             ErrListen,
		"192.0.2.1:443":         ErrListen,
		taken.Addr().String():   ErrPortTaken,
		"127.0.0.1:notaservice": ErrPortTaken,
	} {
		got, err := freeListen(addr)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
		if want == nil && strings.HasSuffix(got, ":0") {
			t.Errorf("%s: got %s, which is no port", addr, got)
		}
	}
}

func TestPrinter(t *testing.T) {
	for _, width := range []int{0, 80} {
		var b bytes.Buffer
		p := newPrinter(&b, width)
		p.start("first step")("detail\nmore", nil)
		p.start("second step")("hidden", errors.New("boom"))
		got := b.String()
		for _, want := range []string{"✓ first step", "      detail\n      more\n", "✗ second step"} {
			if !strings.Contains(got, want) {
				t.Errorf("width %d: no %q in %q", width, want, got)
			}
		}
		if strings.Contains(got, "hidden") {
			t.Errorf("a failed step has nothing to show: %q", got)
		}
		if strings.Contains(got, "\033") != (width > 0) {
			t.Errorf("width %d: control sequences belong on a terminal only: %q", width, got)
		}
	}
}
