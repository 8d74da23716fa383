package migrate

import (
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
)

const (
	// maxUnpacked bounds what is unpacked of one file, in bytes.
	maxUnpacked = 64 << 20
	// maxNested bounds archives in archives.
	maxNested = 3
)

// compressed begin so; what is in them cannot be seen from outside. Those
// without a reader are not looked into.
var compressed = []struct {
	magic, name string
	open        func(data []byte) (io.Reader, error)
}{
	{"\x1f\x8b", "gzip", func(data []byte) (io.Reader, error) { return gzip.NewReader(bytes.NewReader(data)) }},
	{"BZh", "bzip2", func(data []byte) (io.Reader, error) { return bzip2.NewReader(bytes.NewReader(data)), nil }},
	{"x\x01", "zlib", openZlib}, {"x\x9c", "zlib", openZlib}, {"x\xda", "zlib", openZlib},
	{"PK\x03\x04", "zip", nil}, {"\xfd7zXZ\x00", "xz", nil}, {"\x28\xb5\x2f\xfd", "zstd", nil}, {"7z\xbc\xaf\x27\x1c", "7z", nil},
	{"Rar!\x1a\x07", "rar", nil}, {"%PDF-", "PDF", nil}, {"\x04\x22\x4d\x18", "lz4", nil},
}

func openZlib(data []byte) (io.Reader, error) { return zlib.NewReader(bytes.NewReader(data)) }

// unpacked hands over what lies in a compressed file, if it is one; an archive's
// files one by one. why says what was not looked into; it is empty for a file
// that is not compressed.
func unpacked(data []byte, visit func(plain []byte)) (why string) {
	u := &unpacker{left: maxUnpacked, visit: visit}
	u.open(data, maxNested)
	return u.why
}

type unpacker struct {
	left  int64 // bytes that may still be unpacked
	visit func(plain []byte)
	why   string
}

func (u *unpacker) open(data []byte, depth int) {
	for _, c := range compressed {
		switch {
		case !bytes.HasPrefix(data, []byte(c.magic)):
		case c.name == "zip" && depth > 0:
			u.zip(data, depth)
		case c.open == nil || depth == 0:
			u.not("compressed (" + c.name + "): not looked into")
		default:
			r, err := c.open(data)
			if c.name == "zlib" && err != nil {
				return // two bytes that say little: a text
			}
			u.all(c.name, r, err, depth)
		}
	}
}

func (u *unpacker) not(why string) {
	if u.why == "" {
		u.why = why
	}
}

// all reads one stream to its end.
func (u *unpacker) all(name string, r io.Reader, err error, depth int) {
	var plain []byte
	if err == nil {
		plain, err = io.ReadAll(io.LimitReader(r, u.left+1))
	}
	if int64(len(plain)) > u.left {
		plain, err = plain[:u.left], nil
		u.not("compressed (" + name + "): not looked into to its end, since it is too large")
	}
	u.left -= int64(len(plain))
	switch {
	case errors.Is(err, zip.ErrAlgorithm):
		u.not("compressed (" + name + "): not looked into")
	case err != nil && name != "zlib":
		u.not("compressed (" + name + "): damaged, or not looked into to its end")
	}
	if len(plain) > 0 {
		u.visit(plain)
		u.open(plain, depth-1)
	}
}

func (u *unpacker) zip(data []byte, depth int) {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		u.not("compressed (zip): damaged, or not looked into to its end")
		return
	}
	for _, f := range r.File {
		u.visit([]byte(f.Name + "\n" + f.Comment))
		if f.Flags&1 != 0 {
			u.not("compressed (zip): encrypted, not looked into")
			continue
		}
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		in, err := f.Open()
		u.all("zip", in, err, depth)
		if err == nil {
			_ = in.Close() // it was read to its end, or why is set
		}
	}
}
