package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asked gives what Serve answers to text.
func asked(t testing.TB, folder, text string) (a Answer, err error) {
	t.Helper()
	var out bytes.Buffer
	err = Serve(struct {
		io.Reader
		io.Writer
	}{strings.NewReader(text), &out}, folder, []string{"vault.example.com"}, time.Now())
	if decode := json.Unmarshal(out.Bytes(), &a); decode != nil || (err == nil) != (a.Error == "") {
		t.Fatalf("%v, and answers %q", err, out.String())
	}
	return a, err
}

func request(t testing.TB) []byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"bank.example"}}, private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A root whose key could not be written is none: the next question makes one.
func TestKeyThatCannotBeWritten(t *testing.T) {
	folder := t.TempDir()
	text, err := json.Marshal(Question{Request: request(t)})
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(folder, keyFile)
	if err := os.Symlink("/dev/null", key); err != nil { // is empty, and is not written
		t.Fatal(err)
	}
	if _, err := asked(t, folder, string(text)); err == nil {
		t.Fatal("there is a root whose key is nowhere")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if a, err := asked(t, folder, string(text)); err != nil || a.Intermediate == "" {
		t.Errorf("afterwards: %v", err)
	}
}

// Whatever is damaged when a root is given up, and wherever that stops: no key goes that
// fits a root which clients hold, and the next root is another.
func TestRetire(t *testing.T) {
	text, err := json.Marshal(Question{Request: request(t)})
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(t *testing.T, at func(string) string){
		"whole":                   func(*testing.T, func(string) string) {},
		"its certificate is gone": func(t *testing.T, at func(string) string) { remove(t, at(rootFile)) },
		"its certificate is damaged": func(t *testing.T, at func(string) string) {
			if err := os.WriteFile(at(rootFile), make([]byte, 300), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, cut := range []string{"", "before the files go", "between the two"} {
			t.Run(name+", "+cut, func(t *testing.T) {
				folder := t.TempDir()
				at := func(name string) string { return filepath.Join(folder, name) }
				a, err := asked(t, folder, string(text))
				if err != nil {
					t.Fatal(err)
				}
				key, err := os.ReadFile(at(keyFile))
				if err != nil {
					t.Fatal(err)
				}
				do(t, at)
				if err := Retire(folder, []byte(a.Root)); err != nil {
					t.Fatal(err)
				}
				if cut != "" {
					if err := os.WriteFile(at(keyFile), key, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if cut == "before the files go" {
					if err := os.WriteFile(at(rootFile), []byte(a.Root), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				again, err := asked(t, folder, string(text))
				if err != nil || again.Root == a.Root || !again.HasRetired(ReadRoot([]byte(a.Root))) {
					t.Errorf("the next root: %v", err)
				}
				kept, err := os.ReadFile(at(retiredPrefix + Fingerprint(ReadRoot([]byte(a.Root))) + ".key"))
				if err != nil || !bytes.Equal(kept, key) {
					t.Errorf("the key is gone: %v", err)
				}
			})
		}
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// Whatever is asked, the root stays, its key is in no answer, and what is signed can sign
// for no longer than it should, and for nobody's names but its own.
func FuzzServe(f *testing.F) {
	folder := f.TempDir()
	whole, err := json.Marshal(Question{Request: request(f)})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := asked(f, folder, string(whole)); err != nil {
		f.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(folder, rootFile))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "{", "[]", "{}", `{"request":"AAAA"}`, `{"request":""}`, `{"trusted":"x"}`, string(whole), string(whole[:len(whole)-9]),
		`{"request":"` + strings.Repeat("A", most) + `"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, _ := asked(t, folder, text)
		if now, err := os.ReadFile(filepath.Join(folder, rootFile)); err != nil || !bytes.Equal(now, root) {
			t.Fatalf("the root has changed: %v", err)
		}
		if all, _ := json.Marshal(a); strings.Contains(string(all), "PRIVATE") {
			t.Error("the key is in the answer")
		}
		if a.Intermediate == "" {
			return
		}
		inter := ReadRoot([]byte(a.Intermediate))
		if inter == nil || inter.MaxPathLen != 0 || !inter.MaxPathLenZero || inter.NotAfter.After(time.Now().Add(IntermediateLife)) || len(inter.DNSNames) > 0 ||
			inter.CheckSignatureFrom(ReadRoot(root)) != nil {
			t.Errorf("it has signed %+v", inter)
		}
	})
}
