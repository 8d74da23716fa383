package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
)

// rawArchive is a raft snapshot archive of state, as Vault makes it.
func rawArchive(state []byte) []byte {
	meta := fmt.Appendf(nil, `{"Version":1,"ID":"2-100-1764000000000","Index":100,"Term":2,"Size":%d}`, len(state))
	sums := fmt.Appendf(nil, "%x  meta.json\n%x  state.bin\n", sha256.Sum256(meta), sha256.Sum256(state))
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		data []byte
	}{{"meta.json", meta}, {"state.bin", state}, {"SHA256SUMS", sums}} {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.data))}); err != nil {
			panic(err)
		}
		if _, err := t.Write(f.data); err != nil {
			panic(err)
		}
	}
	if err := t.Close(); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// rawState is what rawArchive was given.
func rawState(archive []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		panic(err)
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err != nil {
			panic(err)
		}
		if h.Name != "state.bin" {
			continue
		}
		b, err := io.ReadAll(t)
		if err != nil {
			panic(err)
		}
		return b
	}
}
