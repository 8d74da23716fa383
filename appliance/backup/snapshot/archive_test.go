package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCheckArchive(t *testing.T) {
	replace := func(name string, f func(*member)) func([]member) []member {
		return func(ms []member) []member {
			for i := range ms {
				if ms[i].name == name {
					f(&ms[i])
				}
			}
			return ms
		}
	}
	without := func(name string) func([]member) []member {
		return func(ms []member) []member {
			var out []member
			for _, m := range ms {
				if m.name != name {
					out = append(out, m)
				}
			}
			return out
		}
	}
	sums := func(f func(string) string) func([]member) []member {
		return replace("SHA256SUMS", func(m *member) { m.data = []byte(f(string(m.data))) })
	}
	tests := []struct {
		name string
		spec archiveSpec
		want error
	}{
		{"sound", archiveSpec{}, nil},
		{"empty state", archiveSpec{state: []byte{}}, nil},
		{"without sealed sums, as of an unsealed store", archiveSpec{members: without("SHA256SUMS.sealed")}, nil},
		{"no meta.json", archiveSpec{members: without("meta.json")}, ErrTruncated},
		{"no state.bin", archiveSpec{members: without("state.bin")}, ErrTruncated},
		{"no SHA256SUMS", archiveSpec{members: without("SHA256SUMS")}, ErrTruncated},
		{"nothing in it", archiveSpec{members: func([]member) []member { return nil }}, ErrTruncated},
		{"state changed", archiveSpec{members: replace("state.bin", func(m *member) { m.data[17] ^= 1 })}, ErrCorrupt},
		{"state cut", archiveSpec{members: replace("state.bin", func(m *member) { m.data = m.data[:len(m.data)-1] })}, ErrCorrupt},
		{"meta changed", archiveSpec{members: replace("meta.json", func(m *member) {
			m.data = bytes.Replace(m.data, []byte(`"Index":42`), []byte(`"Index":43`), 1)
		})}, ErrCorrupt},
		{"raft index 0", archiveSpec{index: 0, members: metaOf(`{"Index":0,"Term":1,"Size":3000}`)}, ErrCorrupt},
		{"meta is no JSON", archiveSpec{members: metaOf(`{"Index":1`)}, ErrCorrupt},
		{"meta has another size", archiveSpec{members: metaOf(`{"Index":1,"Term":1,"Size":2999}`)}, ErrCorrupt},
		{"meta too large for Vault", archiveSpec{members: metaOf(`{"Index":1,"Term":1,"Size":3000,"x":"` + strings.Repeat("x", 8192) + `"}`)}, ErrCorrupt},
		{"unknown member", archiveSpec{members: func(ms []member) []member {
			return append(ms, member{name: "../../etc/passwd", data: []byte("x")})
		}}, ErrCorrupt},
		{"member twice", archiveSpec{members: func(ms []member) []member { return append(ms, ms[1]) }}, ErrCorrupt},
		{"state is a link", archiveSpec{members: replace("state.bin", func(m *member) { m.typ = tar.TypeSymlink })}, ErrCorrupt},
		{"sums name one member", archiveSpec{members: sums(func(s string) string { return s[:strings.Index(s, "\n")+1] })}, ErrCorrupt},
		{"sums name a third", archiveSpec{members: sums(func(s string) string { return s + strings.Repeat("0", 64) + "  other\n" })}, ErrCorrupt},
		{"sums name one twice", archiveSpec{members: sums(func(s string) string { return s + s })}, ErrCorrupt},
		{"sums have a short line", archiveSpec{members: sums(func(s string) string { return "abcd  meta.json\n" + s })}, ErrCorrupt},
		{"sums are empty", archiveSpec{members: sums(func(string) string { return "" })}, ErrCorrupt},
		{"not gzip", archiveSpec{wrap: func([]byte) []byte { return []byte("<html>502 Bad Gateway</html>") }}, ErrCorrupt},
		{"nothing at all", archiveSpec{wrap: func([]byte) []byte { return nil }}, ErrTruncated},
		{"bytes behind", archiveSpec{wrap: func(b []byte) []byte { return append(b, 0) }}, ErrTrailing},
		{"a second archive behind", archiveSpec{wrap: func(b []byte) []byte { return append(b, b...) }}, ErrTrailing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := CheckArchive(bytes.NewReader(buildArchive(t, tt.spec)))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if tt.want == nil && (a.Index != 42 || a.Term != 3) {
				t.Errorf("got index %d, term %d, want 42, 3", a.Index, a.Term)
			}
		})
	}
}

// metaOf replaces meta.json and puts its right sum into SHA256SUMS.
func metaOf(text string) func([]member) []member {
	return func(ms []member) []member {
		ms[0].data = []byte(text)
		ms[2].data = []byte(sha256Hex(ms[0].data) + "  meta.json\n" + sha256Hex(ms[1].data) + "  state.bin\n")
		return ms
	}
}

func TestCheckArchiveGivesTheSourcesError(t *testing.T) {
	broken := errors.New("connection reset")
	whole := buildArchive(t, archiveSpec{})
	for n := range len(whole) {
		r := io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken))
		if _, err := CheckArchive(r); !errors.Is(err, broken) || archiveFault(err) {
			t.Fatalf("after %d bytes: got %v, want the source's error", n, err)
		}
	}
}

func TestCheckArchiveTruncatedAtEveryLength(t *testing.T) {
	whole := buildArchive(t, archiveSpec{})
	for n := range len(whole) {
		if _, err := CheckArchive(bytes.NewReader(whole[:n])); !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d of %d bytes: got %v, want %v", n, len(whole), err, ErrTruncated)
		}
	}
}

// Bits that no sum of the archive covers, as gzip's modification time and the
// padding before a stored block, do not change what it holds. The manifest's sum
// covers them too (TestVerifyCorruptAtEveryByte).
func TestCheckArchiveCorruptAtEveryByte(t *testing.T) {
	whole := buildArchive(t, archiveSpec{})
	content := gunzip(t, whole)
	accepted := 0
	flips := []byte{0x01, 0x80, 0xff}
	for n := range len(whole) {
		these := flips
		if testing.Short() { // one of them at each byte
			these = flips[n%len(flips):][:1]
		}
		for _, flip := range these {
			bad := bytes.Clone(whole)
			bad[n] ^= flip
			_, err := CheckArchive(bytes.NewReader(bad))
			switch {
			case archiveFault(err):
			case err != nil:
				t.Fatalf("byte %d xor %#x: got %v, want a fault of the archive", n, flip, err)
			case !bytes.Equal(gunzip(t, bad), content):
				t.Fatalf("byte %d xor %#x: accepted with other content", n, flip)
			default:
				accepted++
			}
		}
	}
	if accepted > 40 {
		t.Errorf("%d changes made no difference: the check cannot be looking", accepted)
	}
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func FuzzCheckArchive(f *testing.F) {
	whole := buildArchive(f, archiveSpec{})
	f.Add(whole)
	f.Add(whole[:100])
	f.Add(buildArchive(f, archiveSpec{state: []byte{}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := CheckArchive(bytes.NewReader(b))
		if err != nil && !archiveFault(err) {
			t.Fatalf("a fault without a sentinel: %v", err)
		}
		if err == nil && a.Index == 0 {
			t.Fatal("accepted raft index 0")
		}
	})
}
