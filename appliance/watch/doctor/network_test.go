package doctor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What one unit notes down and another reads is the same as what a doctor with a
// network finds.
func TestSurveyedIsTheSame(t *testing.T) {
	for _, c := range broken {
		// What looks at the network, and two that don't.
		if !slices.Contains([]string{"tls", "tls13", "listeners", "firewall", "sys-closed", "swap", "leaks"}, c.id) {
			continue
		}
		t.Run(c.id+"/"+c.name, func(t *testing.T) {
			b, s := healthy(t)
			c.do(t, b, s)
			want := verdicts(Examine(t.Context(), *s))
			file := filepath.Join(t.TempDir(), "network.json")
			if err := Survey(t.Context(), b, b, "vault.example.com").Save(file); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// The network is gone for the one who reads.
			for p := range b.files {
				if strings.HasPrefix(p, netDir) {
					delete(b.files, p)
				}
			}
			b.hellos, b.answers = nil, nil
			delete(b.commands, "nft -j -t list ruleset")
			if s.Machine, s.Front, err = Surveyed(b, data); err != nil {
				t.Fatal(err)
			}
			if got := verdicts(Examine(t.Context(), *s)); !slices.Equal(got, want) {
				t.Errorf("surveyed:\n%s\nby itself:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func verdicts(r Report) []string {
	var out []string
	for _, i := range r.Items {
		out = append(out, i.ID+" "+i.Verdict)
	}
	return out
}

// Without a survey, and with one that knows no domain, the network is not seen:
// that is no fault of the machine's, and everything else is examined.
func TestUnsurveyed(t *testing.T) {
	for name, survey := range map[string]func(*testing.T, *box) (Machine, Front){
		"no survey": func(_ *testing.T, b *box) (Machine, Front) { return Unsurveyed(b, fs.ErrNotExist) },
		"one without a domain": func(t *testing.T, b *box) (Machine, Front) {
			data, err := json.Marshal(Survey(t.Context(), b, b, ""))
			if err != nil {
				t.Fatal(err)
			}
			m, f, err := Surveyed(b, data)
			if err != nil {
				t.Fatal(err)
			}
			return m, f
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := healthy(t)
			s.Machine, s.Front = survey(t, b)
			for _, i := range Examine(t.Context(), *s).Items {
				want := "pass"
				switch i.ID {
				case "tls", "tls13", "sys-closed":
					want = "skip"
				case "listeners", "firewall":
					if name == "no survey" {
						want = "skip"
					}
				}
				if i.Verdict != want {
					t.Errorf("%s: %s, want %s: %+v", i.ID, i.Verdict, want, i.Reasons)
				}
			}
		})
	}
}

func TestSurveyedRefuses(t *testing.T) {
	b, _ := healthy(t)
	n := Survey(t.Context(), b, b, "vault.example.com")
	for name, c := range map[string]struct {
		change func(*Network)
		want   string
	}{
		"old":           {func(n *Network) { n.At = n.At.Add(-time.Hour) }, "1h0m0s old"},
		"of the future": {func(n *Network) { n.At = n.At.Add(time.Hour) }, "old"},
		"format":        {func(n *Network) { n.Format = 2 }, "format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			one := n
			c.change(&one)
			data, err := json.Marshal(one)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := Surveyed(b, data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v", err)
			}
		})
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	m, front, err := Surveyed(b, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := front.Get(t.Context(), "another.example.com", healthPath); !errors.Is(err, errNotSurveyed) {
		t.Errorf("another name: %v", err)
	}
	if _, err := m.ReadFile(netDir + "unix"); !errors.Is(err, errNotSurveyed) {
		t.Errorf("another table: %v", err)
	}
	if _, err := m.ReadFile("/etc/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another file: %v", err)
	}
}
