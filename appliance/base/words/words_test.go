package words

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 secrets", 1: "1 secret", -1: "-1 secret", 2: "2 secrets"} {
		if got := Count(n, "secret"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	if got := Count(2, "loss"); got != "2 losses" {
		t.Errorf("got %q", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 200 << 20: "200 MiB", 5 << 40: "5.0 TiB", 1 << 60: "1048576 TiB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestList(t *testing.T) {
	if got := List([]string{"a", "b"}, 2); got != "a, b" {
		t.Errorf("all of them: %q", got)
	}
	if got := List([]string{"a", "b", "c", "d"}, 2); got != "a, b and 2 more" {
		t.Errorf("some of them: %q", got)
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{" two\n\twords ", "two words"},
		{"\x1b[2Jred\u0085", "�[2Jred�"},
		{strings.Repeat("ü", 11), strings.Repeat("ü", 10) + "…"},
		{strings.Repeat("ü", 10), strings.Repeat("ü", 10)},
	} {
		if got := Line(c.in, 10); got != c.want {
			t.Errorf("Line(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	if got := Clean("a\tb\nc\rd\x7f"); got != "a\tb\nc�d�" {
		t.Errorf("Clean = %q", got)
	}
}

func TestPaint(t *testing.T) {
	if got := Paint(true, Red, "x") + Paint(false, Red, "x") + Paint(true, "", "x"); got != "\x1b[31mx\x1b[0mxx" {
		t.Errorf("%q", got)
	}
}
