package recipient_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/config/recipient"
	"strongroom.example/config/recipient/recipienttest"
)

func TestParse(t *testing.T) {
	for _, v := range recipienttest.Vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			r, err := recipient.Parse(v.Text)
			args, argErr := recipient.FromArgs([]string{v.Text})
			file := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(file, []byte("# keys\n\n"+v.Text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			fromFile, fileErr := recipient.FromArgs([]string{file})
			if v.Fault == "" {
				if err != nil || argErr != nil || fileErr != nil || len(args) != 1 || len(fromFile) != 1 {
					t.Fatalf("%v; %v; %v", err, argErr, fileErr)
				}
				again, err := recipient.Parse(r.Line)
				if err != nil || again.Line != r.Line || again.Fingerprint != r.Fingerprint || !strings.HasPrefix(r.Fingerprint, "SHA256:") {
					t.Errorf("%q is read back as %q, %v", r.Line, again.Line, err)
				}
				return
			}
			if err == nil || argErr == nil || !strings.Contains(err.Error(), v.Fault) || !strings.Contains(argErr.Error(), v.Fault) {
				t.Errorf("%v; %v", err, argErr)
			}
			// What is refused for having several lines is several recipients in a file.
			if several := strings.Contains(strings.TrimSpace(v.Text), "\n") && v.Secret == ""; several != (fileErr == nil) {
				t.Errorf("as a file: %v", fileErr)
			}
			for _, err := range []error{err, argErr, fileErr} {
				if err != nil && v.Secret != "" && strings.Contains(err.Error(), v.Secret) {
					t.Error("a private key is quoted")
				}
			}
		})
	}
}

// Every fault of a file is told at once, but that a private key comes before all.
func TestRead(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {"# none\n", "no recipient"},
		"two faults":         {"age1x\nnonsense\n", "line 2"},
		"a line without end": {strings.Repeat("a", 1<<20), "too long"},
		"a private key":      {"nonsense\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n", "line 2: this is a private key, a secret key"},
	} {
		_, err := recipient.Read(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An argument that is no key and no file is quoted where it was meant as a file.
func TestFromArgsQuotes(t *testing.T) {
	for arg, quoted := range map[string]bool{"/no/such/file.pub": true, "~/id.pub": true, "./x": true, "b3BlbnNzaC1rZXktdjE": false} {
		_, err := recipient.FromArgs([]string{arg})
		if err == nil || !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), arg) != quoted {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// Another file than one of recipients is refused in a few lines.
func TestReadTellsTheFirstFaults(t *testing.T) {
	_, err := recipient.Read(strings.NewReader(strings.Repeat("nothing\n", 100)))
	if said := fmt.Sprint(err); !strings.Contains(said, "line 5: ") || strings.Contains(said, "line 6: ") || !strings.HasSuffix(said, "and 95 more lines") {
		t.Errorf("it said %q", said)
	}
}
