package doctor

import (
	"slices"
	"strings"
	"testing"
)

func TestInMatchBlocks(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		blocks int
		bad    []string
	}{
		"none":             {"PasswordAuthentication yes\n", 0, nil}, // sshd -T tells
		"one that is fine": {"Match User git\n  AllowTcpForwarding no\n", 1, nil},
		"passwords": {"Match Address 10.0.0.0/8\n\tPasswordAuthentication yes\n", 1,
			[]string{`"Match Address 10.0.0.0/8" has passwordauthentication "yes"`}},
		"in small letters, with =, quoted": {"match all\npasswordauthentication=\"yes\"", 1,
			[]string{`"match all" has passwordauthentication "yes"`}},
		"by its old name":  {"Match all\nChallengeResponseAuthentication yes\n", 1, []string{`"Match all" has kbdinteractiveauthentication "yes"`}},
		"in a comment":     {"Match all\n#PasswordAuthentication yes\n# PasswordAuthentication yes\n", 1, nil},
		"two blocks":       {"Match User a\nPermitRootLogin no\nMatch User root\nPermitRootLogin yes\n", 2, []string{`"Match User root" has permitrootlogin "yes"`}},
		"no value, no end": {"Match all\nPasswordAuthentication", 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			blocks, bad := inMatchBlocks(c.text)
			if blocks != c.blocks || !slices.Equal(bad, c.bad) {
				t.Errorf("%d, %q; want %d, %q", blocks, bad, c.blocks, c.bad)
			}
		})
	}
}

func FuzzInMatchBlocks(f *testing.F) {
	f.Add("Match all\nPasswordAuthentication yes\n")
	f.Add("=\nMatch =")
	f.Fuzz(func(t *testing.T, text string) {
		if blocks, bad := inMatchBlocks(text); len(bad) > 0 && blocks == 0 || blocks > strings.Count(text, "\n")+1 {
			t.Errorf("%d blocks, %q", blocks, bad)
		}
	})
}
