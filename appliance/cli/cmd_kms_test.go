package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
)

// runKMSCLI gives exit code, standard output and what was reported.
func runKMSCLI(t *testing.T, stdin string, args ...string) (int, string, string) {
	t.Helper()
	return runCLI(t, stdin, append([]string{"kms"}, args...)...)
}

func runCLI(t *testing.T, stdin string, args ...string) (int, string, string) {
	t.Helper()
	c := New("1.2.3 (abc)")
	var out, errOut bytes.Buffer
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&errOut)
	c.SetArgs(args)
	code := Report(&errOut, c.ExecuteContext(t.Context()))
	return code, out.String(), errOut.String()
}

func TestKMSKeyLife(t *testing.T) {
	t.Run("escrow as a file", func(t *testing.T) { kmsKeyLife(t, func(file string) string { return file }) })
	t.Run("escrow as its folder", func(t *testing.T) { kmsKeyLife(t, filepath.Dir) })
	t.Run("escrow as its folder, with a slash", func(t *testing.T) {
		kmsKeyLife(t, func(file string) string { return filepath.Dir(file) + "/" })
	})
}

// kmsKeyLife names the escrow to rotate as named does.
func kmsKeyLife(t *testing.T, named func(file string) string) {
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	first, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := first.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	key, esc := filepath.Join(dir, "key"), filepath.Join(dir, "master-key.age")
	if err := os.WriteFile(key, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	where := []string{"--key-file", key}

	code, out, said := runKMSCLI(t, "", append([]string{"fingerprint"}, where...)...)
	if code != ExitOK || !strings.HasPrefix(out, first.Fingerprint()+"  versions [1]") {
		t.Fatalf("fingerprint: %d %q %q", code, out, said)
	}
	code, out, said = runKMSCLI(t, "", append([]string{"export", "--recipient", id.Recipient().String(), "--output", esc}, where...)...)
	if code != ExitOK || strings.Contains(out, "BEGIN") {
		t.Fatalf("export: %d %q %q", code, out, said)
	}
	open := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := escrow.Open(b, id)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	// As the operator does it, off the machine.
	if code, out, said = runKMSCLI(t, open(esc), "fingerprint", "--stdin"); code != ExitOK || !strings.Contains(out, first.Fingerprint()) {
		t.Fatalf("fingerprint of the escrow: %d %q %q", code, out, said)
	}

	rotate := append([]string{"rotate", "--escrow", named(esc)}, where...)
	if code, _, said = runKMSCLI(t, "AAAA\n", append(rotate, "--confirm", "--no-restart")...); code != ExitOperator || !strings.Contains(said, "no rotation") {
		t.Fatalf("confirm with nothing to confirm: %d %q", code, said)
	}
	if code, _, said = runKMSCLI(t, "", rotate...); code != ExitUsage || !strings.Contains(said, "--recipient") {
		t.Fatalf("rotate for nobody: %d %q", code, said)
	}
	if code, out, said = runKMSCLI(t, "", append(rotate, "--recipient", id.Recipient().String())...); code != ExitOperator || !strings.Contains(said, "--confirm") {
		t.Fatalf("rotate: %d %q %q", code, out, said)
	}
	word := regexp.MustCompile(`[A-Z2-7]{4}-[A-Z2-7]{4}-[A-Z2-7]{4}`).FindString(open(esc + ".next"))
	if strings.Contains(out+said, word) {
		t.Fatal("the code that proves the escrow was opened is shown on the machine")
	}
	if code, _, said = runKMSCLI(t, "AAAA-AAAA-AAAA\n", append(rotate, "--confirm", "--no-restart")...); code != ExitOperator || !strings.Contains(said, "nothing was changed") {
		t.Fatalf("a wrong code: %d %q", code, said)
	}
	if code, out, said = runKMSCLI(t, word+"\n", append(rotate, "--confirm", "--no-restart")...); code != ExitOK || !strings.Contains(out, "Version 2") {
		t.Fatalf("the right code: %d %q %q", code, out, said)
	}
	if code, out, said = runKMSCLI(t, "", append([]string{"fingerprint"}, where...)...); code != ExitOK || !strings.Contains(out, "versions [1 2]") {
		t.Fatalf("fingerprint after the rotation: %d %q %q", code, out, said)
	}
	if code, out, said = runKMSCLI(t, open(esc), "fingerprint", "--stdin"); code != ExitOK || !strings.Contains(out, "versions [1 2]") {
		t.Fatalf("fingerprint of the new escrow: %d %q %q", code, out, said)
	}
	// The code was proof that it opens.
	if files, err := escrow.LoadStatus(dir); err != nil || len(files) != 1 || files[0].File != "master-key.age" || files[0].By != escrow.ByRotation {
		t.Errorf("%+v, %v", files, err)
	}
	if code, _, said = runKMSCLI(t, "", "rotate", "--key-file", key, "--escrow", filepath.Join(key, "below"), "--recipient", id.Recipient().String()); code != ExitUsage || !strings.Contains(said, "--escrow") {
		t.Errorf("an escrow below a file: %d %q", code, said)
	}
}

// What is exported into the escrow's folder can be confirmed like what the
// installer has put there.
func TestKMSExportCanBeConfirmed(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	id := newIdentity(t)
	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	key, own := filepath.Join(elsewhere, "key"), filepath.Join(elsewhere, "own")
	for path, text := range map[string]string{key: string(plain), own: id.String(), filepath.Join(dir, escrow.ConfirmationFile): `{"format":1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	export := func(out string) (int, string, string) {
		return runKMSCLI(t, "", "export", "--key-file", key, "--recipient", id.Recipient().String(), "--output", out)
	}
	if code, out, said := export(filepath.Join(elsewhere, "master-key.age")); code != ExitOK || strings.Contains(out, "challenge") {
		t.Fatalf("export elsewhere: %d %q %q", code, out, said)
	}
	if left, err := filepath.Glob(filepath.Join(elsewhere, "check-*")); err != nil || len(left) > 0 {
		t.Errorf("challenges outside the escrow's folder: %q, %v", left, err)
	}
	if code, _, said := export(filepath.Join(dir, "Master.key")); code == ExitOK || !strings.Contains(said, "want a name such as master-key.age") {
		t.Errorf("export under an odd name: %d %q", code, said)
	}
	if code, out, said := export(filepath.Join(dir, "master-key.age")); code != ExitOK || !strings.Contains(out, "escrow challenge master-key.age") {
		t.Fatalf("export into the escrow: %d %q %q", code, out, said)
	}
	ch, err := escrow.Folder{Dir: dir, Now: time.Now}.Ask("master-key.age")
	if err != nil {
		t.Fatal(err)
	}
	code, answer := runDrillCLI(t, "escrow", "answer", "--escrow", dir, "--identity", own, "master-key.age:"+ch.Questions[0].Nonce)
	if code != ExitOK {
		t.Fatalf("answer: %d %q", code, answer)
	}
	code, out := runDrillCLI(t, "escrow", "confirm", "--escrow", dir, "--credential", "", strings.Fields(answer)[0])
	if code != ExitOK || !strings.Contains(out, "confirmed: master-key.age") {
		t.Errorf("confirm: %d %q", code, out)
	}
}

func TestKMSRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, data string, mode os.FileMode) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := file("good", string(whole), 0o600)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"no key at all", []string{"--socket", dir + "/s"}, ExitOperator, "no master key"},
		{"missing key file", []string{"--socket", dir + "/s", "--key-file", dir + "/absent"}, ExitOperator, "absent"},
		{"truncated key", []string{"--socket", dir + "/s", "--key-file", file("cut", string(whole[:200]), 0o600)}, ExitOperator, "truncated"},
		{"still encrypted", []string{"--socket", dir + "/s", "--key-file", file("age", "-----BEGIN AGE ENCRYPTED FILE-----\nx\n", 0o600)}, ExitOperator, "still encrypted"},
		{"key for all to read", []string{"--socket", dir + "/s", "--key-file", file("open", string(whole), 0o644)}, ExitFailed, "mode 0644"},
		{"no socket", []string{"--key-file", good}, ExitUsage, "--socket"},
		{"occupied socket path", []string{"--socket", good, "--key-file", good}, ExitFailed, "isn't a socket"},
		{"uid of everybody", []string{"--socket", dir + "/s", "--allow-uid", "65534", "--key-file", good}, ExitUsage, "65534"},
		{"uid that is none", []string{"--allow-uid", "vault"}, ExitUsage, "vault"},
		{"key name with a slash", []string{"--key-name", "a/b"}, ExitUsage, "a/b"},
		{"secret key as recipient", []string{"export", "--key-file", good, "--output", dir + "/out", "--recipient", "AGE-SECRET-KEY-1QQQ"}, ExitUsage, "secret key"},
		{"recipient that is none", []string{"export", "--key-file", good, "--output", dir + "/out", "--recipient", dir + "/none"}, ExitUsage, "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, _, said := runKMSCLI(t, "", tt.args...)
			if code != tt.want || !strings.Contains(said, tt.says) {
				t.Fatalf("exit code %d, said %q; want %d and %q", code, said, tt.want, tt.says)
			}
			if strings.Contains(said, "AGE-SECRET-KEY-1QQQ") {
				t.Fatal("a secret key is repeated")
			}
		})
	}
}
