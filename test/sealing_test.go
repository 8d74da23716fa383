package test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sealers may name systemd-creds in code: where it is called, and what stands in
// for it. Only the first has it encrypt.
var sealers = map[string]bool{
	"appliance/base/credential/seal.go":           true,
	"installer/steps/step_sealing.go":             true,
	"appliance/base/credential/credtest/swtpm.go": true,
}

// byHand are flags with which a person may seal.
var byHand = regexp.MustCompile(`--with-key=host( |$|[);,])|--with-key=host\+tpm2 --tpm2-pcrs=23`)

// TestOneSealer: nothing but credential.Seal seals. systemd's defaults bind to
// PCR 7 before 258, and a Secure Boot update then locks the machine out. What
// pages, messages and scripts have a person type says its flags.
func TestOneSealer(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Skipf("no list of files: %v", err)
	}
	seen := 0
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || name == "test/sealing_test.go" || !bytes.Contains(b, []byte("systemd-creds")) {
			continue
		}
		seen++
		for _, fault := range sealingFaults(name, b) {
			t.Error(fault)
		}
	}
	if seen < 5 {
		t.Errorf("only %d files speak of systemd-creds", seen)
	}
}

func sealingFaults(name string, text []byte) []string {
	var faults []string
	code := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		_, after, ok := strings.Cut(line, "systemd-creds")
		if !ok || code && strings.HasPrefix(strings.TrimSpace(line), "//") {
			continue
		}
		if code && strings.Contains(line, `"systemd-creds"`) && !sealers[name] {
			faults = append(faults, name+": calls systemd-creds: credential.Seal and credential.Unseal do: "+line)
		}
		if _, args, ok := strings.Cut(after, "encrypt"); ok && !sealers[name] && !byHand.MatchString(args) {
			faults = append(faults, name+": seals by systemd's default: "+line)
		}
	}
	return faults
}

func TestOneSealerSees(t *testing.T) {
	for text, want := range map[string]int{
		"docs/x.md\nsystemd-creds encrypt --name=x - y":                                            1,
		"docs/x.md\nsystemd-creds encrypt --with-key=auto --name=x - y":                            1,
		"docs/x.md\nsystemd-creds encrypt --with-key=tpm2 --tpm2-pcrs= --name=x - y":               1,
		"docs/x.md\nsystemd-creds encrypt --with-key=host+tpm2 --name=x - y":                       1,
		"docs/x.md\nsystemd-creds encrypt --with-key=host+tpm2 --tpm2-pcrs=23 --name=x - y":        0,
		"docs/x.md\nsystemd-creds encrypt --with-key=host --name=x - y":                            0,
		"docs/x.md\nsystemd-creds decrypt --name=x y -":                                            0,
		"scripts/x\nsystemd-creds -q encrypt x y":                                                  1,
		"a/x.go\nc := exec.Command(\"systemd-creds\", verb)":                                       1,
		"a/x.go\n// systemd-creds encrypt binds to PCR 7":                                          0,
		"a/x_test.go\nm.sh(t, `systemd-creds encrypt a b`)":                                        1,
		"appliance/base/credential/seal.go\nc := command.New(ctx, \"systemd-creds\", \"encrypt\")": 0,
	} {
		name, body, _ := strings.Cut(text, "\n")
		if got := sealingFaults(name, []byte(body)); len(got) != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
