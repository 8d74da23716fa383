package doctor

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// secretKinds are what must never lie about in clear. What matches is never
// quoted.
func secretKinds() []secretKind {
	return []secretKind{
		{"a Vault token", "hv", regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{24,}`)},
		{"an old Vault token", "s.", regexp.MustCompile(`(?:^|[\s="'])s\.[A-Za-z0-9]{24}(?:$|[\s"'])`)},
		{"an age identity", "AGE-SECRET-KEY-", regexp.MustCompile(`AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,}`)},
		{"a private key", "PRIVATE KEY-----", regexp.MustCompile(`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----`)},
	}
}

type secretKind struct {
	what string
	// near is in every line that pattern matches in: a journal is long, and
	// finding bytes is many times as fast.
	near    string
	pattern *regexp.Regexp
}

// in says whether a line of the text matches.
func (k secretKind) in(text []byte) bool {
	for {
		i := bytes.Index(text, []byte(k.near))
		if i < 0 {
			return false
		}
		line := text[bytes.LastIndexByte(text[:i], '\n')+1:]
		rest := []byte(nil)
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			line, rest = line[:end], line[end+1:]
		}
		if k.pattern.Match(line) {
			return true
		}
		text = rest
	}
}

// assigned are settings whose value is a secret, in the files of ours and of
// systemd. A placeholder, a path or a variable is none.
var assigned = regexp.MustCompile(`(?im)^[ \t]*(?:Environment=)?"?[a-z0-9_.-]*(?:password|passwd|secret_key|secret_id|access_key|api_key|private_key|token)"?[ \t]*[=:][ \t]*"?([^"\s]+)`)

// inURL is a password in a URL.
var inURL = regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^/\s:@"']+:([^/\s@"']+)@`)

// secretsIn names the kinds of secrets in a text.
func secretsIn(text []byte) []string {
	var out []string
	for _, k := range secretKinds() {
		if k.in(text) {
			out = append(out, k.what)
		}
	}
	return out
}

// settingsIn names the settings in a configuration that hold a secret.
func settingsIn(text []byte) []string {
	var out []string
	for _, m := range assigned.FindAllSubmatch(text, -1) {
		if v := string(m[1]); !harmless(v) {
			name, _, _ := strings.Cut(strings.TrimSpace(string(m[0])), "=")
			out = append(out, strings.TrimSpace(name))
		}
	}
	for _, m := range inURL.FindAllSubmatch(text, -1) {
		if !harmless(string(m[1])) {
			out = append(out, "a password in a URL")
		}
	}
	return out
}

// harmless says whether a value is none by its look.
func harmless(v string) bool {
	v = strings.Trim(v, `"'`)
	switch {
	case len(v) < 6, strings.HasPrefix(v, "/"), strings.ContainsAny(v, "${}<>%"), strings.Contains(v, "…"):
		return true
	case v == "unused", v == "false", v == "true", strings.Trim(v, "*x.") == "":
		return true
	}
	return false
}

func ownCleartext(_ context.Context, e *exam) { e.cleartext(nil, machine.Etc) }

func unitCleartext(_ context.Context, e *exam) { e.cleartext(nil, machine.UnitDir) }

func systemCleartext(_ context.Context, e *exam) {
	e.cleartext([]string{"/etc/environment", "/etc/fstab"}, "/etc/default", "/etc/profile.d", "/etc/environment.d", "/etc/cron.d")
}

// cleartext searches files, and those in folders and in the folders of drop-ins
// there.
func (e *exam) cleartext(files []string, dirs ...string) {
	for _, dir := range dirs {
		for _, p := range e.filesIn(dir) {
			files = append(files, p)
			if strings.HasSuffix(p, ".d") {
				files = append(files, e.filesIn(p)...)
			}
		}
	}
	n := 0
	for _, p := range files {
		info, err := e.Machine.Stat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Type != 0 {
			continue
		}
		if err != nil {
			e.unseen(p, err)
			continue
		}
		b, err := e.Machine.ReadFile(p)
		if err != nil {
			e.unseen(p, err)
			continue
		}
		n++
		for _, what := range append(secretsIn(b), settingsIn(b)...) {
			e.fail("move it into a systemd credential: systemd-creds encrypt --with-key=host; then change it, since it was in clear", "%s holds %s", p, what)
		}
	}
	e.found(n, "files in "+strings.Join(dirs, ", "), "%s searched for tokens, keys, passwords", words.Count(n, "file"))
}

// filesIn are the paths in a folder, which need not be there.
func (e *exam) filesIn(dir string) []string {
	names, err := e.Machine.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.unseen(dir, err)
	}
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = path.Join(dir, n)
	}
	return paths
}

// sealedCredentials looks whether each credential is really encrypted.
func sealedCredentials(_ context.Context, e *exam) {
	names, err := e.Machine.ReadDir(machine.CredentialDir)
	if err != nil {
		e.unseen(machine.CredentialDir, err)
		return
	}
	ways := map[string]int{}
	for _, n := range names {
		p := path.Join(machine.CredentialDir, n)
		b, err := e.Machine.ReadFile(p)
		if err != nil {
			e.unseen(p, err)
			continue
		}
		if why := unsealed(b); why != "" {
			remedy := "move it away, " + reinstall + ", and change the secret"
			if n == machine.CredMasterKey {
				remedy = "strongroom kms import, as docs/unseal.md has it, then strongroom kms rotate"
			}
			e.fail(remedy, "%s %s", p, why)
			continue
		}
		ways[e.sealed(p, b)]++
	}
	e.found(len(names), machine.CredentialDir, "%s looked at", words.Count(len(names), "credential"))
	for _, how := range slices.Sorted(maps.Keys(ways)) {
		e.yes(machine.CredentialDir, "%d sealed %s", ways[how], how)
	}
}

// sealed says how a credential is sealed, and finds fault with a way that locks
// the machine out, or that is another than [unseal] has.
func (e *exam) sealed(p string, b []byte) string {
	s, known := credential.Inspect(b)
	switch {
	case !known:
		return "in a way that this version does not know"
	case s.Way == "":
		e.fail(reinstall+": it seals it anew", "%s is sealed %s: an update of Secure Boot or of systemd can keep it from ever opening again", p, s)
	case e.NoConfig == nil && (e.Config.Unseal.Seal == config.SealHost && s.Way != credential.Host || e.Config.Unseal.Seal == config.SealTPM && s.Way != credential.TPM):
		e.warn(reinstall+": it seals it anew", "%s is sealed %s, and [unseal] has seal = %q", p, s, e.Config.Unseal.Seal)
	}
	return s.String()
}

// unsealed says why a file is no encrypted credential, systemd-creds(1); "" if
// it is one.
func unsealed(data []byte) string {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), ""))
	switch {
	case err != nil || len(raw) < 16+12+16:
		return "is not an encrypted credential"
	case bytes.HasPrefix(raw, []byte(credential.NoKey)):
		return "is encrypted with no key"
	}
	// What is encrypted has no text in it.
	printable := 0
	for _, c := range raw[16:] {
		if c >= ' ' && c < 0x7f {
			printable++
		}
	}
	if printable*10 > len(raw[16:])*8 {
		return "holds text, and is not encrypted"
	}
	return ""
}

// maxHistory bounds the users whose histories are read.
const maxHistory = 200

func historyIgnored(_ context.Context, e *exam) {
	b, err := e.Machine.ReadFile(machine.HistoryFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.fail(reinstall, "%s is not there: shells keep vault's command lines", machine.HistoryFile)
	case err != nil:
		e.unseen(machine.HistoryFile, err)
	case !strings.Contains(string(b), "HISTIGNORE=") || !strings.Contains(string(b), "vault*"):
		e.fail(reinstall, "%s does not keep vault's command lines out of histories", machine.HistoryFile)
	default:
		e.yes(machine.HistoryFile, "HISTIGNORE has vault*")
	}
}

func historiesClean(_ context.Context, e *exam) {
	a, ok := e.people()
	if !ok {
		return
	}
	people, n := 0, 0
	for i, u := range a.users {
		if i == maxHistory {
			e.unseen("homes", fmt.Errorf("only %d users were looked at", maxHistory))
			break
		}
		if !u.canLogIn() || u.home == "" || u.home == "/" {
			continue
		}
		people++
		for _, f := range []string{".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".ash_history"} {
			p := path.Join(u.home, f)
			b, err := e.Machine.ReadFile(p)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				e.unseen(p, err)
				continue
			}
			n++
			for _, what := range secretsIn(b) {
				e.fail("revoke or change it, then take the line out of "+p, "%s holds %s", p, what)
			}
		}
	}
	e.found(people, "histories of people", "%s of %s searched for tokens and keys", words.Count(n, "file"), words.Count(people, "user"))
}

// journalPatience bounds the search of the journal. Its size is systemd's to
// bound; a day of it is rarely more than some hundred MiB.
const journalPatience = 3 * time.Minute

// journalLeaks searches the journal's last day as it comes, the newest first.
func journalLeaks(ctx context.Context, e *exam) {
	ctx, cancel := context.WithTimeout(ctx, journalPatience)
	defer cancel()
	var s sieve
	err := e.Machine.Stream(ctx, &s, "journalctl", "--quiet", "--no-pager", "--output=cat", "--reverse", "--since=-25h")
	s.end()
	e.found(s.lines, "journalctl --since=-25h", "%s searched", words.Count(s.lines, "line"))
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		// A large journal is no fault, so it is no failure; but no pass either.
		e.unseen("older lines of the journal", fmt.Errorf("only the newest %d could be searched in %v", s.lines, journalPatience))
	case err != nil:
		e.unseen("journalctl", err)
	}
	for _, what := range s.found {
		e.fail("revoke or change it; journalctl --rotate && journalctl --vacuum-time=1s forgets the lines", "the journal holds %s", what)
	}
}

// others are the processes but for the doctor's own, which may hold the operator's
// VAULT_TOKEN.
func (e *exam) others() ([]process, bool) {
	all, err := e.processes()
	if err != nil {
		e.unseen("processes", err)
		return nil, false
	}
	return slices.DeleteFunc(slices.Clone(all), func(p process) bool { return p.pid == e.Machine.Self() }), true
}

// ofProcesses reads a file of each process, NUL between its parts, and answers
// with how many there were.
func (e *exam) ofProcesses(file, what string, leak func(p process, what string)) {
	all, ok := e.others()
	if !ok {
		return
	}
	n := 0
	var hidden error
	for _, p := range all {
		b, err := e.Machine.ReadFile(p.file(file))
		switch {
		case ended(err):
			continue
		case err != nil:
			hidden = err
			continue
		}
		n++
		for _, what := range secretsIn(bytes.ReplaceAll(b, []byte{0}, []byte("\n"))) {
			leak(p, what)
		}
	}
	e.found(n, "/proc/*/"+file, "%s searched", words.Count(n, what))
	if hidden != nil {
		// Once: a machine has many.
		e.unseen(what+"s of other users' processes", hidden)
	}
}

func argumentLeaks(_ context.Context, e *exam) {
	e.ofProcesses("cmdline", "command line", func(p process, what string) {
		e.fail("revoke or change it; give secrets in files or on standard input", "the arguments of process %d (%s) hold %s", p.pid, p.name, what)
	})
}

func environmentLeaks(_ context.Context, e *exam) {
	e.ofProcesses("environ", "environment", func(p process, what string) {
		cgroup, err := e.Machine.ReadFile(p.file("cgroup"))
		if err == nil && !strings.Contains(string(cgroup), "/system.slice/") {
			e.warn("unset VAULT_TOKEN when done; vault login keeps it in a file", "the environment of process %d (%s), somebody's session, holds %s", p.pid, p.name, what)
			return
		}
		e.fail("revoke or change it; use LoadCredential= in the unit", "the environment of process %d (%s) holds %s", p.pid, p.name, what)
	})
}
