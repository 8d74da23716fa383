package migrate

import (
	"bytes"
	"slices"
	"testing"
)

// The search in one pass finds what a plain search does, and reading objects of
// git that are damaged ends.
func FuzzNeedles(f *testing.F) {
	f.Add("canary-4711", "s3cr3t-0815", []byte("x canary-4711 s3cr3t-0815 canary"))
	f.Add("aaaaaaab", "aaaaaaaa", []byte("aaaaaaaaaaaaaaaab"))
	f.Add("\x00\x00\x00\x00\x00\x00\x00\x01", "tree 40000", []byte("40000 a\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, a, b string, data []byte) {
		n := newNeedles()
		n.put("a", "", a)
		n.put("b", "", b)
		found := n.keysIn(data)
		for key, value := range map[string]string{"a": a, "b": b} {
			if len(value) < freeStanding {
				continue
			}
			if want := bytes.Contains(data, []byte(value)); want != slices.Contains(found, key) {
				t.Errorf("%q in %q: %v", value, data, !want)
			}
		}
		n.add("c", a)
		treeEntries(data, 20, func(bool, string) {})
		parseCommit("id", data)
		passwordsIn(a)
	})
}
