package cli

import (
	"bytes"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// The last words never say more than was looked at.
func TestPrintRemains(t *testing.T) {
	left := func(file string) migrate.Leftover {
		return migrate.Leftover{Names: []string{"A", "B"}, File: file, Line: 3, Form: "base64", Do: "take it out"}
	}
	for name, tt := range map[string]struct {
		r    migrate.Remains
		want string
	}{
		"nothing moved": {migrate.Remains{Files: 3}, "3 files searched for 0 values\n"},
		"all gone":      {migrate.Remains{Files: 3, Values: 2}, "no .env file holds a moved secret any more, nor does another file; 3 files searched for 2 values\n"},
		"elsewhere": {migrate.Remains{Files: 3, Values: 2, Left: []migrate.Leftover{left("a.yml")}},
			"left: a.yml:3: holds the value of A, B (base64): take it out\nno .env file holds a moved secret that was searched for, but one stands at 1 place elsewhere; 3 files searched for 2 values\n"},
		"in a .env file": {migrate.Remains{Files: 3, Values: 2, Left: []migrate.Leftover{left("x/.env")}},
			"left: x/.env:3: holds the value of A, B (base64): take it out\na moved value still stands at 1 place, .env files among them; 3 files searched for 2 values\n"},
		"not everything": {migrate.Remains{
			Files: 3, Values: 2, NotSearched: []migrate.NotSearched{{Name: "A", File: ".env", Why: "a number"}},
			NotLookedAt: []migrate.Problem{{File: "x.zip", Why: "compressed"}}, Uses: []migrate.Problem{{File: "a.sh", Line: 4, Why: "names A"}},
		}, "use: a.sh:4: names A\nnot looked at: x.zip: compressed\nnot searched for: A of .env: a number\nno .env file holds a moved secret that was searched for, nor does another file that was looked at; 3 files searched for 2 values, and not for 1; not looked at: 1 place\n"},
	} {
		var out bytes.Buffer
		printRemains(&out, tt.r, 0)
		if out.String() != tt.want {
			t.Errorf("%s:\n%s", name, strings.TrimSpace(out.String()))
		}
	}
}

// Before a cutover the .env files do hold the secrets.
func TestPrintRemainsBeforeCutover(t *testing.T) {
	for want, r := range map[string]migrate.Remains{
		"beside that, no .env file holds a moved secret, nor does another file; 3 files": {Files: 3, Values: 2},
		"beside that, no .env file holds a moved secret that was searched for, but one":  {Files: 3, Values: 2, Left: []migrate.Leftover{{Names: []string{"A"}, File: "a.yml"}}},
		"beside that, no .env file holds a moved secret that was searched for, nor does": {Files: 3, Values: 2, NotSearched: []migrate.NotSearched{{Name: "A"}}},
	} {
		var out bytes.Buffer
		printRemains(&out, r, 2)
		if want = "not cut over yet: 2 variables; " + want; !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}

func TestPlaced(t *testing.T) {
	for why, want := range map[string]string{"line 7: A is written: see": "a.py:7: A is written: see", "as patched it reads x": "a.py: as patched it reads x", "line up": "a.py: line up"} {
		if got := placed("a.py", why); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
