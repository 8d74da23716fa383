package payload

import (
	"errors"
	"io"
	"testing"
	"testing/fstest"

	"strongroom.example/config/machine"
)

func TestProgram(t *testing.T) {
	p := New(fstest.MapFS{
		"bin/strongroom": {Data: []byte("abc")},
		"bin/empty":      {},
	})
	got, err := p.Program("strongroom")
	if err != nil {
		t.Fatal(err)
	}
	// SHA-256 of "abc" from FIPS 180-2, appendix B.1.
	if want := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; got.SHA256 != want || got.Size != 3 {
		t.Errorf("program = %+v, want sum %s and size 3", got, want)
	}
	f, err := got.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "abc" {
		t.Errorf("content = %q, %v", b, err)
	}
	for _, name := range []string{"absent", "empty"} {
		if _, err := p.Program(name); !errors.Is(err, ErrMissing) {
			t.Errorf("%s: error = %v, want ErrMissing", name, err)
		}
	}
}

func TestEmbeddedAnswersClearly(t *testing.T) {
	// In a fresh clone only the placeholder is there; after a build, both.
	for _, name := range []string{machine.ProgramName, machine.PluginName} {
		got, err := Embedded().Program(name)
		if err != nil && !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && got.Size == 0 {
			t.Errorf("%s is empty and was taken for a program", name)
		}
	}
}
