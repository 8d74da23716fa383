package access

import (
	"fmt"
	"strings"
	"testing"
)

const note = "vault login -method=userpass username=admin\n" + canary + "\n"

func TestParsePerson(t *testing.T) {
	for text, want := range map[string]string{
		note: "userpass",
		"vault login -method=userpass -path=strongroom-local username=admin\n" + canary: "strongroom-local",
		"vault login -method=userpass username=admin\n\n":                               "",
		"vault login\npassword\n":                                                       "",
		"vault login username=a/../b\npassword":                                         "",
		"vault login -path=a/../b username=a\npassword":                                 "",
		"vault login -path= username=a\npassword":                                       "",
		"vault login username=a\none\ntwo":                                              "",
		"":                                                                              "",
	} {
		p, err := ParsePerson([]byte(text))
		if p.Mount != want || (err == nil) != (want != "") {
			t.Errorf("%q: %v, %v", text, p, err)
		}
		if shown := fmt.Sprintf("%v %+v %#v %v", p, p, p, err); strings.Contains(shown, canary) {
			t.Errorf("printed: %s", shown)
		}
	}
}

func FuzzParsePerson(f *testing.F) {
	f.Add([]byte(note))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePerson(data)
		if err == nil && (p.User == "" || p.Password == "" || strings.ContainsAny(p.User, "/\n ") || strings.ContainsAny(p.Mount, "/\n ") || strings.Contains(p.Password, "\n")) {
			t.Errorf("%v", p)
		}
	})
}
