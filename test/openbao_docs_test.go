package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	installer "strongroom.example/installer/cli"
)

func openBaoBlock(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "openbao.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^<!-- test: " + name + " -->\n```sh\n(.*?)^```$").FindSubmatch(page)
	if m == nil {
		t.Fatalf("docs/openbao.md has no block %q", name)
	}
	return string(m[1])
}

// The page's way to a program that is OpenBao's, with a release of our own: it ends
// with the sum of a good one, and unpacks none that is not.
func TestOpenBaoReleaseIsChecked(t *testing.T) {
	for _, p := range []string{"gpg", "curl", "sha256sum"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	const archive = "openbao_2.7.2_linux_amd64.tar.gz"
	good := map[string][]byte{archive: tarOf(t, "bao", "a program")}
	keys := t.TempDir()
	gpg := func(home string, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "gpg", append([]string{"--batch", "--quiet", "--homedir", filepath.Join(keys, home)}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %q: %v\n%s", args, err, stderr.Bytes())
		}
		return out
	}
	for _, home := range []string{"theirs", "others"} {
		if err := os.Mkdir(filepath.Join(keys, home), 0o700); err != nil {
			t.Fatal(err)
		}
		gpg(home, "--passphrase", "", "--quick-generate-key", home+"@example.com", "ed25519", "sign", "never")
		t.Cleanup(func() {
			_ = exec.Command("gpgconf", "--homedir", filepath.Join(keys, home), "--kill", "all").Run() // its agent
		})
	}
	sums := fmt.Appendf(nil, "%x  %s\n%064x  another.tar.gz\n", sha256.Sum256(good[archive]), archive, 1)
	sign := func(home string, data []byte) []byte {
		file := filepath.Join(t.TempDir(), "sums")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return gpg(home, "--output", "-", "--detach-sign", file)
	}
	good["checksums.txt"], good["checksums.txt.gpgsig"] = sums, sign("theirs", sums)
	good["openbao-gpg-pub-20240618.asc"] = gpg("theirs", "--armor", "--export")

	text := openBaoBlock(t, "verify")
	for name, c := range map[string]struct {
		lie    func(map[string][]byte)
		passes bool
	}{
		"as released":           {func(map[string][]byte) {}, true},
		"another archive":       {func(r map[string][]byte) { r[archive] = tarOf(t, "bao", "another") }, false},
		"other sums":            {func(r map[string][]byte) { r["checksums.txt"] = append(sums, '\n') }, false},
		"signed by another key": {func(r map[string][]byte) { r["checksums.txt.gpgsig"] = sign("others", sums) }, false},
		"sums without it": {func(r map[string][]byte) {
			r["checksums.txt"] = []byte(fmt.Sprintf("%064x  another.tar.gz\n", 1))
			r["checksums.txt.gpgsig"] = sign("theirs", r["checksums.txt"])
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			release := maps.Clone(good)
			c.lie(release)
			served, work := t.TempDir(), t.TempDir()
			for f, data := range release {
				if err := os.WriteFile(filepath.Join(served, f), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			local := regexp.MustCompile(`https://\S+/`).ReplaceAllString(text, "file://"+served+"/")
			cmd := exec.CommandContext(t.Context(), "bash", "-c", local)
			cmd.Dir, cmd.Env = work, append(os.Environ(), "TMPDIR="+work)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			t.Cleanup(func() {
				homes, _ := filepath.Glob(filepath.Join(work, "tmp.*"))
				for _, h := range homes {
					_ = exec.Command("gpgconf", "--homedir", h, "--kill", "all").Run()
				}
			})
			want := fmt.Sprintf("%x  bao\n", sha256.Sum256([]byte("a program")))
			if (err == nil) != c.passes || strings.HasSuffix(string(out), want) != c.passes {
				t.Errorf("%v, %s%s", err, out, stderr.Bytes())
			}
			if _, err := os.Stat(filepath.Join(work, "bao")); (err == nil) != c.passes {
				t.Errorf("a program: %v", err)
			}
		})
	}
}

func tarOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The page's installation is a command that the installer takes.
func TestOpenBaoInstallation(t *testing.T) {
	line := strings.ReplaceAll(openBaoBlock(t, "install"), "\\\n", " ")
	args := strings.Fields(line)[2:]
	verb, rest, err := installer.New("test", "").Find(args)
	if err != nil || verb.Name() != "install" {
		t.Fatalf("%q: %v", line, err)
	}
	if err := verb.ParseFlags(rest); err != nil {
		t.Errorf("%q: %v", line, err)
	}
}
