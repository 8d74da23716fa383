package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/test/vaulttest"
)

const escrowCanary = "canary-escrow-0815"

// escrowBench is a machine's escrow folder, the operator's copy of it, and the
// operator's SSH key.
type escrowBench struct {
	machine, copy, key string
	path               string // where the operator's programs are
	strongroom         string
}

func newEscrow(t *testing.T) escrowBench {
	t.Helper()
	b := escrowBench{machine: t.TempDir(), copy: t.TempDir(), path: t.TempDir(), strongroom: vaulttest.Bin(t, "strongroom")}
	// The age of the people who wrote it, not our use of its library.
	if out, err := exec.Command("go", "build", "-C", filepath.Join(vaulttest.Root(t), "test", "devtools"), "-o", filepath.Join(b.path, "age"), "filippo.io/age/cmd/age").CombinedOutput(); err != nil {
		t.Fatalf("build age: %v\n%s", err, out)
	}
	b.key = filepath.Join(b.copy, "id_ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", b.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	pub, err := os.ReadFile(b.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := agessh.ParseRecipient(strings.TrimSpace(string(pub)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]age.Recipient{"master-key.age": mine, "recovery-keys-1.age": mine, "recovery-keys-2.age": other.Recipient(), "admin.age": mine} {
		plain := []byte(escrowCanary + " " + name + "\n")
		sealed, err := escrow.Seal(plain, to)
		if err != nil {
			t.Fatal(err)
		}
		checks, err := escrow.NewChecks(name, sealed, plain, "", rand.Reader, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		text, err := checks.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for path, data := range map[string][]byte{filepath.Join(b.machine, name): sealed, filepath.Join(b.machine, checks.Name()): text, filepath.Join(b.copy, name): sealed} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

// on runs strongroom on the machine.
func (b escrowBench) on(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	return b.run(t, stdin, b.strongroom, append([]string{"escrow", "--escrow", b.machine}, args...)...)
}

func (b escrowBench) run(t *testing.T, stdin, name string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = b.copy
	cmd.Env = []string{"PATH=" + b.path + ":" + filepath.Dir(b.strongroom) + ":/usr/bin:/bin", "HOME=" + b.copy}
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), escrowCanary) {
		t.Errorf("%s %q prints what is in the escrow", name, args)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// The lines that "challenge" prints are run as they are, by a shell with age
// and sha256sum, and by this program: each confirms.
func TestEscrowConfirm(t *testing.T) {
	t.Parallel()
	b := newEscrow(t)
	if code, out := b.on(t, "", "status"); code != 3 || strings.Count(out, "only copy is on this disk") != 4 {
		t.Fatalf("status before: %d\n%s", code, out)
	}
	code, out := b.on(t, "", "challenge", "master-key.age", "admin.age")
	lines := regexp.MustCompile(`(?m)^  (\{ echo .* \| sha256sum)$`).FindAllStringSubmatch(out, -1)
	if code != 0 || len(lines) != 2 {
		t.Fatalf("challenge: %d\n%s", code, out)
	}
	var sums []string
	for _, l := range lines {
		line := strings.ReplaceAll(l[1], "~/.ssh/id_ed25519", b.key)
		code, sum := b.run(t, "", "sh", "-c", line)
		if code != 0 {
			t.Fatalf("%s: %d\n%s", line, code, sum)
		}
		sums = append(sums, strings.Fields(sum)[0])
	}
	// There is no credential of a master key here.
	if code, out := b.on(t, "", append([]string{"confirm", "--credential="}, sums...)...); code != 0 || strings.Count(out, "confirmed:") != 2 || !strings.Contains(out, "2 of 4") {
		t.Fatalf("confirm: %d\n%s", code, out)
	}
	if code, out := b.on(t, "", "confirm", "--credential=", sums[0]); code != 4 || !strings.Contains(out, "no challenge is open") {
		t.Errorf("the same answer again: %d\n%s", code, out)
	}

	// The other way, through pipes; one file is somebody else's.
	code, question := b.on(t, "", "challenge", "--json")
	var ch escrow.Challenge
	if err := json.Unmarshal([]byte(question), &ch); err != nil || code != 0 || len(ch.Questions) != 4 {
		t.Fatalf("challenge: %d %v\n%s", code, err, question)
	}
	code, answers := b.run(t, question, b.strongroom, "escrow", "answer", "--escrow", ".", "--identity", b.key)
	if code != 0 || !strings.Contains(answers, "passed over: recovery-keys-2.age") {
		t.Fatalf("answer: %d\n%s", code, answers)
	}
	answers = regexp.MustCompile(`(?m)^passed over.*\n`).ReplaceAllString(answers, "")
	if code, out := b.on(t, answers, "confirm", "--credential="); code != 0 || strings.Count(out, "confirmed:") != 3 {
		t.Fatalf("confirm: %d\n%s", code, out)
	}
	if code, out := b.on(t, "", "status"); code != 3 || !strings.Contains(out, "1 of 4 escrow files") {
		t.Errorf("status after: %d\n%s", code, out)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a wrong answer", []string{"confirm", "--credential=", strings.Repeat("0", 64)}, 4, "fits none of the open challenges"},
		{"an unknown file", []string{"challenge", "none.age"}, 2, "no such escrow file"},
		{"a path for a file", []string{"answer", "--identity", b.key, "../x.age:" + strings.Repeat("0", 32)}, 2, "want a name such as"},
		{"no identity", []string{"answer", "admin.age:" + strings.Repeat("0", 32)}, 2, "no identity"},
	} {
		if code, out := b.on(t, "", c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d\n%s", c.name, code, out)
		}
	}
}
