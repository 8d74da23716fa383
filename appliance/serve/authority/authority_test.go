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
