package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// index is one of pip's with a wheel for this processor, one for another, and a source
// archive.
func index(t *testing.T, wheel []byte, page func(name, sum string) (kind, text string)) *httptest.Server {
	t.Helper()
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	name := "a_b-1.0-py3-none-manylinux_2_17_" + machine + ".whl"
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "canary" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/team/simple/a-b/":
			kind, text := page(name, fmt.Sprintf("%x", sha256.Sum256(wheel)))
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write([]byte(text))
		case "/files/" + name:
			_, _ = w.Write(wheel)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestWheel(t *testing.T) {
	var wheel bytes.Buffer
	z := zip.NewWriter(&wheel)
	f, err := z.Create("a_b-1.0.data/purelib/a/bin/prog")
	if err == nil {
		_, err = f.Write([]byte("#!/bin/sh\n"))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	right := fmt.Sprintf("%x", sha256.Sum256(wheel.Bytes()))
	other := strings.Repeat("0", 64)
	asHTML := func(name, sum string) (string, string) {
		return "text/html", `<a href="../../../files/a_b-1.0.tar.gz#sha256=` + other + `">x</a>
<a data-requires-python="&gt;=3.8" href='../../../files/a_b-1.0-py3-none-win.whl#sha256=` + other + `'>x</a>
<a href="../../../files/` + name + "#sha256=" + sum + `">y</a>`
	}
	asJSON := func(name, sum string) (string, string) {
		return "application/vnd.pypi.simple.v1+json", fmt.Sprintf(`{"meta":{"api-version":"1.0"},"files":[{"url":"%%","hashes":{}},{"filename":"x","url":"/files/a_b-1.0.tar.gz","hashes":{"sha256":%q}},{"url":"/files/%s","hashes":{"sha256":%q}}]}`, sum, name, sum)
	}
	for name, tt := range map[string]struct {
		page func(name, sum string) (kind, text string)
		pin  string
		end  string
		user string
		file bool // pip's configuration file in place of its variables
		says string
	}{
		"HTML":                        {page: asHTML},
		"JSON":                        {page: asJSON},
		"by the configuration file":   {page: asHTML, file: true},
		"another sum is pinned":       {page: asHTML, pin: "a" + other[1:], says: "none is a pinned wheel"},
		"the index lies about a sum":  {page: func(name, _ string) (string, string) { return asHTML(name, other) }, pin: other, says: "has the SHA-256 " + right},
		"no such file in it":          {page: asHTML, end: "bin/other", says: `holds no "bin/other"`},
		"no list":                     {page: func(string, string) (string, string) { return "text/html", "hello" }, says: "of the 0 files"},
		"a list in another form":      {page: func(string, string) (string, string) { return "application/json", "[" }, says: "not in its form"},
		"refused":                     {page: asHTML, user: "you", says: "401"},
		"the project is not pinned":   {page: asHTML, pin: "none", says: "pins no file"},
		"a wheel that is no archive":  {page: func(name, _ string) (string, string) { return asHTML(name, other) }, pin: other, says: "nothing is kept"},
		"the index answers otherwise": {page: func(string, string) (string, string) { return "application/json", `{"files":"x"}` }, says: "not in its form"},
	} {
		t.Run(name, func(t *testing.T) {
			s := index(t, wheel.Bytes(), tt.page)
			dir := t.TempDir()
			write := func(name, text string) string {
				p := filepath.Join(dir, name)
				if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return p
			}
			ca := write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
			user := "me"
			if tt.user != "" {
				user = tt.user
			}
			at := strings.Replace(s.URL, "https://", "https://"+user+":canary@", 1) + "/team/simple/"
			t.Setenv("HOME", dir)
			t.Setenv("PIP_INDEX_URL", at)
			t.Setenv("PIP_CERT", ca)
			t.Setenv("PIP_CONFIG_FILE", filepath.Join(dir, "none"))
			if tt.file {
				t.Setenv("PIP_INDEX_URL", "")
				t.Setenv("PIP_CERT", "")
				t.Setenv("PIP_CONFIG_FILE", write("pip.conf", "[install]\nindex-url = https://x.invalid/\n[global]\nindex-url = "+at+"\ncert="+ca+"\n"))
			}
			pin := right
			if tt.pin != "" {
				pin = tt.pin
			}
			line := "a-b==1.0 \\\n    --hash=sha256:" + pin + "\n"
			if tt.pin == "none" {
				line = "a-bc==1.0 \\\n    --hash=sha256:" + right + "\n"
			}
			pins := write("requirements.txt", "first==1 \\\n    --hash=sha256:"+other+"\n"+line+"    # via x\nlast==1 \\\n    --hash=sha256:"+other+"\n")
			end := "purelib/a/bin/prog"
			if tt.end != "" {
				end = tt.end
			}
			out := filepath.Join(dir, "out")
			err := run(t.Context(), []string{pins, "a-b", end, out})
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("it tells the password: %v", err)
			}
			fi, none := os.Stat(out)
			if (none == nil) != (tt.says == "") || none == nil && fi.Mode().Perm() != 0o755 {
				t.Errorf("the program: %v, %v", fi, none)
			}
			if left, err := filepath.Glob(out + ".part*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
