package restore

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/serve/kms"
)

// archiveSealedBy is a raft snapshot whose sums k has signed, in the wrapping of
// Vault's message.
func archiveSealedBy(t *testing.T, k *kms.Keyset, other bool) string {
	t.Helper()
	state, meta := []byte("state"), []byte(`{"Index":7,"Term":1,"Size":5}`)
	one, two := fmt.Sprintf("%x  meta.json\n", sha256.Sum256(meta)), fmt.Sprintf("%x  state.bin\n", sha256.Sum256(state))
	members := []struct {
		name string
		data []byte
	}{{"meta.json", meta}, {"state.bin", state}, {"SHA256SUMS", []byte(one + two)}}
	if k != nil {
		signed := two + one // Vault's order is a map's
		if other {
			signed = strings.Replace(signed, signed[:8], "00000000", 1)
		}
		ciphertext, err := k.Encrypt([]byte(signed))
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, struct {
			name string
			data []byte
		}{"SHA256SUMS.sealed", append(append([]byte{0x0a, 0x7f}, ciphertext...), 0x2a, 0x0c)})
	}
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, m := range members {
		if err := tw.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.snap")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSealedBy(t *testing.T) {
	keyset := func() *kms.Keyset {
		k, err := kms.NewKeyset()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	mine, other := keyset(), keyset()
	rotated, err := mine.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		by     *kms.Keyset
		change bool
		with   *kms.Keyset
		want   error
	}{
		{"the same key", mine, false, mine, nil},
		{"a later version of it", mine, false, rotated, nil},
		{"an earlier version of it", rotated, false, mine, ErrOtherSeal},
		{"another key", other, false, mine, ErrOtherSeal},
		{"signed for other content", mine, true, mine, snapshot.ErrCorrupt},
		{"not signed", nil, false, mine, ErrOtherSeal},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := FromFile(t.Context(), archiveSealedBy(t, c.by, c.change), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if err := k.SealedBy(t.Context(), c.with); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
