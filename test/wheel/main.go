// Command wheel fetches one program out of a Python wheel that a requirements file pins
// by hash, without Python:
//
//	wheel REQUIREMENTS PROJECT END-OF-NAME OUTPUT
//
// The index is pip's: PIP_INDEX_URL, or index-url of its configuration file, else its
// default; PIP_CERT or cert is the index's authority. It is for tests and the demo.
package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "wheel:", err)
		os.Exit(1)
	}
}

// maxWheel is more than a wheel has, in bytes.
const maxWheel = 512 << 20

func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("usage: wheel REQUIREMENTS PROJECT END-OF-NAME OUTPUT")
	}
	pins, err := pinned(args[0], args[1])
	if err != nil {
		return err
	}
	client, index, err := pip()
	if err != nil {
		return err
	}
	page, err := url.Parse(strings.TrimSuffix(index, "/") + "/" + args[1] + "/")
	if err != nil {
		return errors.New("the index's address is no URL")
	}
	text, kind, err := get(ctx, client, page, 64<<20)
	if err != nil {
		return err
	}
	name, file, sum, err := choose(page, text, kind, pins)
	if err != nil {
		return fmt.Errorf("%s: %w", page.Redacted(), err)
	}
	wheel, _, err := get(ctx, client, file, maxWheel)
	if err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(wheel)); got != sum {
		return fmt.Errorf("%s has the SHA-256 %s, and %s is pinned: nothing is kept", name, got, sum)
	}
	return extract(wheel, args[2], args[3])
}

// pinned are the sums of a project's files.
func pinned(requirements, project string) ([]string, error) {
	f, err := os.Open(requirements)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var pins []string
	on := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, " ") {
			on = strings.HasPrefix(line, project+"==")
		}
		if _, sum, ok := strings.Cut(line, "--hash=sha256:"); ok && on {
			pins = append(pins, strings.Fields(sum)[0])
		}
	}
	if len(pins) == 0 {
		return nil, fmt.Errorf("%q pins no file of %q", requirements, project)
	}
	return pins, nil
}

// pip is how pip would ask, and where.
func pip() (*http.Client, string, error) {
	set := map[string]string{"index-url": "https://pypi.org/simple", "cert": ""}
	for _, file := range []string{"/etc/pip.conf", os.ExpandEnv("$HOME/.pip/pip.conf"), os.ExpandEnv("$HOME/.config/pip/pip.conf"), os.Getenv("PIP_CONFIG_FILE")} {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		section := ""
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				section = line
			}
			key, value, ok := strings.Cut(line, "=")
			if _, known := set[strings.TrimSpace(key)]; ok && known && section == "[global]" {
				set[strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
	}
	for key, variable := range map[string]string{"index-url": "PIP_INDEX_URL", "cert": "PIP_CERT"} {
		if v := os.Getenv(variable); v != "" {
			set[key] = v
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if set["cert"] != "" {
		pem, err := os.ReadFile(set["cert"])
		if err != nil {
			return nil, "", err
		}
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, "", err
		}
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport}, set["index-url"], nil
}

func get(ctx context.Context, c *http.Client, from *url.URL, most int64) (body []byte, kind string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return nil, "", errors.New("a file's address is no URL")
	}
	// https://packaging.python.org/en/latest/specifications/simple-repository-api/
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json, text/html;q=0.2, */*;q=0.1")
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s answers %s", from.Redacted(), resp.Status)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("%s has more than %d bytes", from.Redacted(), most)
	}
	return body, resp.Header.Get("Content-Type"), err
}

var anchor = regexp.MustCompile(`(?i)<a\s[^>]*href\s*=\s*["']([^"']+)["']`)

// choose finds the pinned wheel for this processor.
func choose(page *url.URL, text []byte, kind string, pins []string) (name string, at *url.URL, sum string, err error) {
	var refs []string // with the sum as fragment
	if strings.Contains(kind, "json") {
		var list struct {
			Files []struct {
				URL    string            `json:"url"`
				Hashes map[string]string `json:"hashes"`
			} `json:"files"`
		}
		if err := json.Unmarshal(text, &list); err != nil {
			return "", nil, "", errors.New("the index's list is not in its form")
		}
		for _, f := range list.Files {
			refs = append(refs, f.URL+"#sha256="+f.Hashes["sha256"])
		}
	} else {
		for _, m := range anchor.FindAllSubmatch(text, -1) {
			refs = append(refs, html.UnescapeString(string(m[1])))
		}
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	for _, ref := range refs {
		u, err := page.Parse(ref)
		if err != nil {
			continue // of somebody else's file
		}
		sum, name := strings.TrimPrefix(u.Fragment, "sha256="), u.Path[strings.LastIndexByte(u.Path, '/')+1:]
		u.Fragment = ""
		if machine != "" && slices.Contains(pins, sum) && strings.HasSuffix(name, ".whl") && strings.Contains(name, machine) {
			return name, u, sum, nil
		}
	}
	return "", nil, "", fmt.Errorf("of the %d files that it lists none is a pinned wheel for %s", len(refs), runtime.GOARCH)
}

// extract writes the one file whose name ends so; out appears only when it is whole.
func extract(wheel []byte, end, out string) error {
	z, err := zip.NewReader(bytes.NewReader(wheel), int64(len(wheel)))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, end) })
	if i < 0 {
		return fmt.Errorf("the wheel holds no %q", end)
	}
	in, err := z.File[i].Open()
	if err != nil {
		return err
	}
	defer in.Close()
	part, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = io.Copy(part, in)
	if err = errors.Join(err, part.Chmod(0o755), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), out)
}
