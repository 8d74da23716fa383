package steps

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// script is a real program that leaves a file where it was run, and what it leaves.
func script(t *testing.T, does string) (file, sum, ran string) {
	t.Helper()
	dir := t.TempDir()
	file, ran = filepath.Join(dir, "bao"), filepath.Join(dir, "ran")
	text := fmt.Sprintf("#!/bin/sh\n[ -z \"$CANARY\" ] && : >%s\n%s\n", ran, does)
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file, fmt.Sprintf("%x", sha256.Sum256([]byte(text))), ran
}

// What the operator brings: its sum first, then what it says, and no more than one
// message.
func TestGivenServer(t *testing.T) {
	t.Setenv("CANARY", "in the environment")
	other := strings.Repeat("0", 64)
	const vault, bao = "echo 'Vault v2.2.2 (abc)'", "echo 'OpenBao v2.7.2 (abc)'"
	for name, c := range map[string]struct {
		want config.Product
		does string
		sum  func(string) string
		runs bool
		says string // in the error
		hint string
	}{
		"OpenBao":                {want: config.ProductOpenBao, does: bao, runs: true},
		"OpenBao, capitals":      {want: config.ProductOpenBao, does: bao, sum: strings.ToUpper, runs: true},
		"Vault":                  {does: vault, runs: true},
		"Vault without a sum":    {does: vault, sum: func(string) string { return "" }, runs: true},
		"OpenBao without a sum":  {want: config.ProductOpenBao, does: bao, sum: func(string) string { return "" }, says: "nothing says which", hint: "--sha256"},
		"another sum":            {want: config.ProductOpenBao, does: bao, sum: func(string) string { return other }, says: "and --sha256 says " + other, hint: "it has not been run"},
		"another sum, for Vault": {does: vault, sum: func(string) string { return other }, says: "and --sha256 says " + other, hint: "it has not been run"},
		"Vault where OpenBao is": {want: config.ProductOpenBao, does: vault, runs: true, says: `is Vault 2.2.2, and vault.product is "openbao"`, hint: "--product vault"},
		"OpenBao where Vault is": {does: bao, runs: true, says: `is OpenBao 2.7.2, and vault.product is "vault"`, hint: "--product openbao"},
		"neither":                {want: config.ProductOpenBao, does: "echo Consul v1.9.0", runs: true, says: "it is neither Vault nor OpenBao", hint: "give --vault-binary a program of OpenBao"},
		"one that fails":         {want: config.ProductOpenBao, does: "echo broken >&2; exit 7", runs: true, says: "broken", hint: "give --vault-binary"},
	} {
		t.Run(name, func(t *testing.T) {
			file, sum, ran := script(t, c.does)
			if c.sum != nil {
				sum = c.sum(sum)
			}
			h := &host.Host{FS: host.OSFS{Root: "/"}, Runner: host.OSRunner{}}
			s, err := GivenServer(t.Context(), h, config.Vault{Product: c.want}, file, sum)
			if _, stat := os.Stat(ran); (stat == nil) != c.runs {
				t.Errorf("it was run: %t", stat == nil)
			}
			var f *fault.Error
			switch {
			case c.says == "" && (err != nil || !s.Product.Is(c.want)):
				t.Errorf("%s, %v", s, err)
			case c.says != "" && (!errors.As(err, &f) || f.Code != fault.Usage || !strings.Contains(err.Error(), c.says) ||
				!strings.Contains(f.Hint, c.hint) || !strings.Contains(f.Hint, "nothing has been changed")):
				t.Errorf("error = %v; hint = %+v", err, f)
			}
		})
	}
	if _, err := GivenServer(t.Context(), &host.Host{FS: host.OSFS{Root: "/"}, Runner: host.OSRunner{}}, config.Vault{Product: config.ProductOpenBao}, t.TempDir()+"/none", other); codeOf(err) != fault.Usage {
		t.Errorf("no such file: %v", err)
	}
}

// One that hangs, with a child that holds its output, is not waited for.
func TestServerThatHangs(t *testing.T) {
	file, _, _ := script(t, "sleep 1000 & sleep 1000")
	_, err := serverOf(t.Context(), host.OSRunner{}, config.ProductOpenBao, file, 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), `no answer to "version" within 300ms`) {
		t.Errorf("error = %v", err)
	}
}

// A file that has become another one since it was judged is not installed.
func TestGivenServerHasChanged(t *testing.T) {
	file, _, _ := script(t, "true")
	src, err := hostSource(&host.Host{FS: host.OSFS{Root: "/"}}, file)
	if err != nil {
		t.Fatal(err)
	}
	read := func() error {
		f, err := src.open()
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(f)
		return errors.Join(err, f.Close())
	}
	if err := read(); err != nil {
		t.Errorf("as it was: %v", err)
	}
	if err := os.WriteFile(file, []byte("another"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("another: %v", err)
	}
}

// OpenBao's storage under Vault comes up active and empty: a change of product where
// there is data is refused, and nothing is touched.
func TestChangeOfProduct(t *testing.T) {
	for name, c := range map[string]struct {
		was    string // in the file; "": none
		is     config.Product
		data   bool
		binary bool
		says   string
	}{
		"a new machine, Vault":         {is: config.ProductVault, binary: true},
		"a new machine, OpenBao":       {is: config.ProductOpenBao, binary: true},
		"a new machine, no OpenBao":    {is: config.ProductOpenBao, says: "--vault-binary FILE --sha256 SUM"},
		"Vault as it was":              {was: "vault\n", is: config.ProductVault, data: true, binary: true},
		"Vault from before the choice": {is: config.ProductVault, data: true, binary: true},
		"OpenBao as it was":            {was: "openbao\n", is: config.ProductOpenBao, data: true, binary: true},
		"killed before there was data": {was: "vault\n", is: config.ProductOpenBao, binary: true},
		"to OpenBao":                   {was: "vault\n", is: config.ProductOpenBao, data: true, binary: true, says: `vault.product is "openbao", and the data on this machine is of "vault"`},
		"to OpenBao, from before":      {is: config.ProductOpenBao, data: true, binary: true, says: `the data on this machine is of "vault"`},
		"to Vault":                     {was: "openbao\n", is: config.ProductVault, data: true, binary: true, says: `the data on this machine is of "openbao"`},
		"to Vault, by download":        {was: "openbao\n", is: config.ProductVault, data: true, says: `the data on this machine is of "openbao"`},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			e := v.env()
			e.Config.Vault.Product = c.is
			if !c.binary {
				e.VaultBinary = ""
			}
			if c.was != "" {
				v.Files[machine.ProductFile] = &host.Node{Data: []byte(c.was)}
			}
			if c.data {
				v.Files[machine.MasterKeyFile] = &host.Node{Data: []byte("sealed")}
			}
			before := len(v.Files)
			_, err := preflight{e}.Check(t.Context())
			if c.says == "" && err != nil || c.says != "" && (codeOf(err) != fault.Operator || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error = %v", err)
			}
			if len(v.Files) != before {
				t.Errorf("%d files, there were %d", len(v.Files), before)
			}
		})
	}
}

func codeOf(err error) int {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	return -1
}
