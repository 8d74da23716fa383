package proc

import (
	"os"
	"testing"
)

func TestResident(t *testing.T) {
	b, err := Resident(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if b < 1<<20 || b > 1<<36 {
		t.Fatalf("a test program of %d bytes", b)
	}
	if _, err := Resident(0); err == nil {
		t.Fatal("there is no process 0")
	}
}

func TestChildOf(t *testing.T) {
	s := NewSet()
	c := start(t, s, "exec sleep 300", nil)
	if got := ChildOf(os.Getpid()); got != c.PID() {
		t.Fatalf("got child %d, want %d", got, c.PID())
	}
	if got := ChildOf(c.PID()); got != 0 {
		t.Fatalf("sleep has no child, got %d", got)
	}
}
