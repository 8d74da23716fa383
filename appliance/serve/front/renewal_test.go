package front

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRenewalUnderWay(t *testing.T) {
	c := Config{}
	c.Files.Cert = filepath.Join(t.TempDir(), "files.pem")
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		name string
		at   time.Duration
		do   func() error
		want bool
	}{
		{"the first", 0, nil, true},
		{"soon after", 10 * time.Second, nil, true},
		{"just before the end", RenewalPatience - time.Second, nil, true},
		{"at the end", RenewalPatience, nil, false},
		{"the next renewal", RenewalPatience + time.Second, nil, true},
		{"which fits in the end", 2*RenewalPatience + time.Second, func() error { return RenewalOver(c) }, true},
		{"a note that was left", time.Hour, nil, true},
		{"a clock that was set back", 0, nil, true},
		{"a damaged note", 2 * RenewalPatience, func() error { return os.WriteFile(renewalNote(c), []byte("x"), 0o600) }, true},
	} {
		if step.do != nil {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := RenewalUnderWay(c, start.Add(step.at)); err != nil || got != step.want {
			t.Errorf("%s: %t, %v, want %t", step.name, got, err, step.want)
		}
	}
	c.Files.Cert = filepath.Join(c.Files.Cert, "no", "folder")
	if again, err := RenewalUnderWay(c, start); again || err == nil {
		t.Errorf("without a place for the note: %t, %v", again, err)
	}
}
