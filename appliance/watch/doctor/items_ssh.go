package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"strongroom.example/appliance/base/words"
)

const (
	sshdConfig = "/etc/ssh/sshd_config"
	sshdFolder = sshdConfig + ".d"
)

// sshdSetting is one of sshd_config(5) with the value that lets passwords in, or
// keys not.
type sshdSetting struct{ key, bad string }

func sshdBad() []sshdSetting {
	return []sshdSetting{
		{"passwordauthentication", "yes"},
		{"kbdinteractiveauthentication", "yes"},
		{"permitemptypasswords", "yes"},
		{"permitrootlogin", "yes"},
		{"pubkeyauthentication", "no"},
	}
}

func sshKeysOnly(ctx context.Context, e *exam) {
	out, err := e.Machine.Run(ctx, "sshd", "-T")
	if errors.Is(err, fs.ErrNotExist) {
		switch there, ok := e.sshdConfigured(); {
		case there:
			e.unseen("sshd -T", errors.New("the program is not there, and its configuration is"))
		case ok:
			e.found(len(sshdBad()), "sshd", "neither installed nor configured: it lets nobody in")
		}
		return
	}
	if err != nil {
		e.unseen("sshd -T", err)
		return
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[key] = value
	}
	const remedy = "check that your key lets you in, then: printf 'PasswordAuthentication no\\nKbdInteractiveAuthentication no\\n' >/etc/ssh/sshd_config.d/00-keys-only.conf && sshd -t && systemctl reload ssh"
	for _, s := range sshdBad() {
		value, ok := got[s.key]
		if !ok {
			e.unseen("sshd -T", fmt.Errorf("%s is not in it", s.key))
			continue
		}
		e.found(1, "sshd -T", "%s %s", s.key, value)
		if value == s.bad {
			// Not mended by itself: it may be how somebody gets in.
			e.fail(remedy, "sshd has %s %s", s.key, strconv.Quote(value))
		}
	}
}

// sshdConfigured says whether sshd has a configuration; ok is false where that
// can't be seen.
func (e *exam) sshdConfigured() (there, ok bool) {
	switch _, err := e.Machine.Stat(sshdConfig); {
	case err == nil:
		return true, true
	case errors.Is(err, fs.ErrNotExist):
		return false, true
	default:
		e.unseen(sshdConfig, err)
		return false, false
	}
}

// sshMatchBlocks looks for what sshd -T does not tell: settings for some users,
// addresses or ports only.
func sshMatchBlocks(_ context.Context, e *exam) {
	if there, ok := e.sshdConfigured(); !there {
		if ok {
			e.moot(sshdConfig, "not there")
		}
		return
	}
	files := []string{sshdConfig}
	names, err := e.Machine.ReadDir(sshdFolder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.unseen(sshdFolder, err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".conf") {
			files = append(files, path.Join(sshdFolder, n))
		}
	}
	read, blocks := 0, 0
	for _, f := range files {
		b, err := e.Machine.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			e.unseen(f, err)
			continue
		}
		read++
		n, bad := inMatchBlocks(string(b))
		blocks += n
		for _, m := range bad {
			e.fail("check that a key lets in whom this is for, then take it out of "+f+" && sshd -t && systemctl reload ssh", "%s: %s", f, m)
		}
	}
	e.found(read, "Match in "+sshdConfig, "%s in %s", words.Count(blocks, "block"), words.Count(read, "file"))
}

// inMatchBlocks counts the Match blocks of a configuration, and names what is bad
// in them. A block goes on to the next one, or to the end of its file.
func inMatchBlocks(text string) (blocks int, bad []string) {
	match := ""
	for line := range strings.Lines(text) {
		// A keyword and its values, with white space or one = between.
		f := strings.Fields(strings.Replace(line, "=", " ", 1))
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		key, value := strings.ToLower(f[0]), strings.ToLower(strings.Trim(f[1], `"`))
		if key == "match" {
			blocks++
			match = strings.Join(f, " ")
			continue
		}
		if key == "challengeresponseauthentication" { // its old name
			key = "kbdinteractiveauthentication"
		}
		for _, s := range sshdBad() {
			if match != "" && key == s.key && value == s.bad {
				bad = append(bad, fmt.Sprintf("%q has %s %q", match, key, value))
			}
		}
	}
	return blocks, bad
}
