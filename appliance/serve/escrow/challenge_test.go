package escrow

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
)

const canary = "canary-secret-of-the-escrow"

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// bench is an escrow of two files in a folder.
type bench struct {
	Folder
	now   time.Time
	plain map[string][]byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{now: noon, plain: map[string][]byte{}}
	b.Folder = Folder{Dir: t.TempDir(), Now: func() time.Time { return b.now }}
	b.put(t, "master-key.age", []byte(canary+" master\n"), "SHA256:one")
	b.put(t, "admin.age", []byte(canary+" admin\n"), "")
	return b
}

func (b *bench) put(t *testing.T, name string, plain []byte, key string) {
	t.Helper()
	sealed, err := Seal(plain, identity(t).Recipient())
	if err != nil {
		t.Fatal(err)
	}
	checks, err := NewChecks(name, sealed, plain, key, rand.Reader, b.now)
	if err != nil {
		t.Fatal(err)
	}
	text, err := checks.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b.place(t, checks.Name(), text)
	b.place(t, name, sealed)
	b.plain[name] = plain
}

func (b *bench) place(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := atomicfile.Write(filepath.Join(b.Dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// answers are the right ones.
func (b *bench) answers(ch Challenge) []string {
	var out []string
	for _, q := range ch.Questions {
		out = append(out, Answer(q.Nonce, b.plain[q.File])+"  -")
	}
	return out
}

func (b *bench) ask(t *testing.T, names ...string) Challenge {
	t.Helper()
	ch, err := b.Ask(names...)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// confirmed are the files that count as confirmed.
func (b *bench) confirmed(t *testing.T) []string {
	t.Helper()
	files, err := LoadStatus(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if f.Confirmed() {
			out = append(out, f.File)
		}
	}
	return out
}

func TestAnswerIsWhatStockToolsPrint(t *testing.T) {
	// { echo 00ff; printf 'secret\n'; } | sha256sum
	sum := sha256.Sum256([]byte("00ff\nsecret\n"))
	if got, want := Answer("00ff", []byte("secret\n")), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestConfirm(t *testing.T) {
	all := []string{"admin.age", "master-key.age"}
	for _, c := range []struct {
		name string
		// between the challenge and its answer; gives the answers.
		do   func(*testing.T, *bench, Challenge) []string
		want []string
		err  error
	}{
		{"all", func(_ *testing.T, b *bench, ch Challenge) []string { return b.answers(ch) }, all, nil},
		{"in upper case", func(_ *testing.T, b *bench, ch Challenge) []string {
			return []string{strings.ToUpper(b.answers(ch)[0])}
		}, all[:1], nil},
		{"one of two", func(_ *testing.T, b *bench, ch Challenge) []string { return b.answers(ch)[1:] }, all[1:], nil},
		{"one right, one wrong", func(_ *testing.T, b *bench, ch Challenge) []string {
			return []string{b.answers(ch)[0], strings.Repeat("0", 64)}
		}, all[:1], ErrWrongAnswer},
		{"none", func(*testing.T, *bench, Challenge) []string { return nil }, nil, ErrWrongAnswer},
		{"no sum at all", func(*testing.T, *bench, Challenge) []string { return []string{"", "hello"} }, nil, ErrWrongAnswer},
		{"the nonce", func(_ *testing.T, _ *bench, ch Challenge) []string { return []string{ch.Questions[0].Nonce} }, nil, ErrWrongAnswer},
		{"what the machine keeps of the answer", func(_ *testing.T, b *bench, ch Challenge) []string {
			o, err := b.load()
			if err != nil {
				return nil
			}
			return []string{o.Open[0].AnswerSHA256}
		}, nil, ErrWrongAnswer},
		{"another content", func(_ *testing.T, b *bench, ch Challenge) []string {
			return []string{Answer(ch.Questions[0].Nonce, []byte("other"))}
		}, nil, ErrWrongAnswer},
		{"a moment before it expires", func(_ *testing.T, b *bench, ch Challenge) []string {
			b.now = noon.Add(ChallengeLife - time.Second)
			return b.answers(ch)
		}, all, nil},
		{"expired", func(_ *testing.T, b *bench, ch Challenge) []string {
			b.now = noon.Add(ChallengeLife)
			return b.answers(ch)
		}, nil, ErrExpired},
		{"of an earlier challenge", func(t *testing.T, b *bench, ch Challenge) []string {
			old := b.answers(ch)
			b.ask(t)
			return old
		}, nil, ErrWrongAnswer},
		{"twice", func(t *testing.T, b *bench, ch Challenge) []string {
			if _, err := b.Confirm(b.answers(ch)); err != nil {
				t.Fatal(err)
			}
			return b.answers(ch)
		}, all, ErrNoChallenge},
		{"the file has been replaced", func(t *testing.T, b *bench, ch Challenge) []string {
			a := b.answers(ch)
			b.put(t, "admin.age", []byte("new"), "")
			return a
		}, all[1:], ErrReplaced},
		{"the file has been taken off the machine", func(t *testing.T, b *bench, ch Challenge) []string {
			if err := os.Remove(filepath.Join(b.Dir, "master-key.age")); err != nil {
				t.Fatal(err)
			}
			return b.answers(ch)
		}, all, nil},
		{"another master key is in force", func(_ *testing.T, b *bench, ch Challenge) []string {
			b.KeyInForce = func() (string, error) { return "SHA256:two", nil }
			return b.answers(ch)
		}, all[:1], ErrReplaced},
		{"the same master key is in force", func(_ *testing.T, b *bench, ch Challenge) []string {
			b.KeyInForce = func() (string, error) { return "SHA256:one", nil }
			return b.answers(ch)
		}, all, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			ch := b.ask(t)
			_, err := b.Confirm(c.do(t, b, ch))
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if got := b.confirmed(t); !slices.Equal(got, c.want) {
				t.Errorf("confirmed %v, want %v", got, c.want)
			}
		})
	}
}

func TestConfirmationEndsWithTheFile(t *testing.T) {
	b := newBench(t)
	if _, err := b.Confirm(b.answers(b.ask(t))); err != nil {
		t.Fatal(err)
	}
	b.now = noon.Add(time.Hour)
	b.put(t, "master-key.age", []byte(canary+" rotated"), "SHA256:two")
	files, err := LoadStatus(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if replaced := f.File == "master-key.age"; f.Replaced != replaced || f.Confirmed() == replaced {
			t.Errorf("%+v", f)
		}
	}
	if err := Record(b.Dir, "master-key.age", ByRotation, "SHA256:two", b.now); err != nil {
		t.Fatal(err)
	}
	if got := b.confirmed(t); len(got) != 2 {
		t.Errorf("confirmed %v", got)
	}
}

func TestAsk(t *testing.T) {
	b := newBench(t)
	seen := map[string]bool{}
	for range checksPerFile {
		for _, q := range b.ask(t, "admin.age").Questions {
			if q.File != "admin.age" || seen[q.Nonce] {
				t.Fatalf("asked twice, or about another file: %+v", q)
			}
			seen[q.Nonce] = true
		}
	}
	if _, err := b.Ask("admin.age"); !errors.Is(err, ErrUsedUp) {
		t.Errorf("error %v", err)
	}
	ch := b.ask(t)
	if len(ch.Questions) != 1 || !slices.Equal(ch.Spent, []string{"admin.age"}) {
		t.Errorf("%+v", ch)
	}
	if _, err := b.Ask("../admin.age"); !errors.Is(err, ErrUnknownFile) {
		t.Errorf("error %v", err)
	}
	if _, err := (Folder{Dir: t.TempDir(), Now: b.Now}).Ask(); !errors.Is(err, ErrUnknownFile) {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := (Folder{Dir: filepath.Join(t.TempDir(), "none"), Now: b.Now}).Confirm([]string{"x"}); !errors.Is(err, ErrNoChallenge) {
		t.Errorf("no folder: %v", err)
	}
}

func TestNothingOfTheContentIsKept(t *testing.T) {
	b := newBench(t)
	if _, err := b.Confirm(b.answers(b.ask(t))[:1]); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(b.Dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(canary)) {
			t.Errorf("%s holds the content in clear", e.Name())
		}
		for name, plain := range b.plain {
			if bytes.Contains(data, []byte(sum(plain))) {
				t.Errorf("%s holds a plain hash of %s", e.Name(), name)
			}
		}
	}
}

// The nth write fails, for every n: nothing is confirmed that was not, the
// state stays readable, and the next try ends well.
func TestWritesFail(t *testing.T) {
	failed := errors.New("disk full")
	for n := 1; ; n++ {
		b := newBench(t)
		count := 0
		b.write = func(path string, data []byte, perm fs.FileMode) error {
			if count++; count == n {
				return failed
			}
			return atomicfile.Write(path, data, perm)
		}
		ch, err := b.Ask()
		if err == nil {
			_, err = b.Confirm(b.answers(ch)[:1])
		}
		if err == nil {
			if n < 5 {
				t.Fatalf("only %d writes", n-1)
			}
			return
		}
		if !errors.Is(err, failed) {
			t.Fatalf("write %d: %v", n, err)
		}
		if got := b.confirmed(t); len(got) != 0 {
			t.Errorf("write %d: confirmed %v", n, got)
		}
		b.write = nil
		if _, err := b.Confirm(b.answers(b.ask(t))); err != nil {
			t.Errorf("write %d: the next try: %v", n, err)
		}
		if got := b.confirmed(t); len(got) != 2 {
			t.Errorf("write %d: confirmed %v", n, got)
		}
	}
}

func TestDamagedState(t *testing.T) {
	for _, c := range []struct{ name, file, text string }{
		{"confirmation is no JSON", ConfirmationFile, "{"},
		{"confirmation of a later format", ConfirmationFile, `{"format":2}`},
		{"confirmation of a path", ConfirmationFile, `{"format":1,"files":{"../x.age":{"sealed_sha256":"` + strings.Repeat("0", 64) + `","at":"2026-11-24T00:00:00Z"}}}`},
		{"confirmation without a sum", ConfirmationFile, `{"format":1,"files":{"admin.age":{"at":"2026-11-24T00:00:00Z"}}}`},
		{"challenges are no JSON", "check-admin.age-0000000000000000.json", "x"},
		{"challenges without answers", "check-admin.age-0000000000000000.json", `{"format":1,"file":"admin.age","sealed_sha256":"` + strings.Repeat("0", 64) + `","unused":[{"nonce":""}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.place(t, c.file, []byte(c.text))
			if files, err := LoadStatus(b.Dir); err == nil {
				t.Errorf("accepted: %+v", files)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	b, _ := statefile.Encode(openChallenge{Format: 1, Open: []openQuestion{{Question: Question{"admin.age", strings.Repeat("a", 32)}}}})
	f.Add(b)
	f.Add([]byte(`{"format":1,"files":{"admin.age":{}}}`))
	f.Add([]byte(`{"format":1,"file":"admin.age","unused":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, err := parseChallenge(data); err == nil {
			for _, q := range o.Open {
				if strings.ContainsAny(q.File, "/.") && filepath.Base(q.File) != q.File {
					t.Errorf("a path got through: %q", q.File)
				}
			}
		}
		if c, err := parseChecks(data); err == nil && filepath.Base(c.Name()) != c.Name() {
			t.Errorf("a path got through: %q", c.Name())
		}
		if c, err := ParseConfirmation(data); err == nil {
			for name := range c.Files {
				if filepath.Base(name) != name {
					t.Errorf("a path got through: %q", name)
				}
			}
		}
		parseAnswer(string(data))
	})
}
