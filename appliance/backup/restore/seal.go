package restore

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/appliance/backup/snapshot"
)

// Decrypter opens what Vault's seal has encrypted; *kms.Keyset is one.
type Decrypter interface {
	// Decrypt gives the plaintext of Vault's own form, "vault:v1:…".
	Decrypt(ciphertext string) ([]byte, error)
}

// maxSums bounds the small members of an archive, in bytes, as Vault does.
const maxSums = 8191

// sealed finds what a transit seal has encrypted, in the message that Vault
// wraps it in.
var sealed = regexp.MustCompile(`vault:v[0-9]+:[A-Za-z0-9+/]+={0,2}`)

// SealedBy checks without a Vault that the master key is the one that the
// snapshot was sealed with: Vault signs the archive's sums by encrypting them
// with its seal, and refuses an archive whose signature it can't open.
// ErrOtherSeal where it is another key, or where nothing is signed.
func (c *Checked) SealedBy(ctx context.Context, key Decrypter) error {
	if !c.Archive.Sealed {
		return fmt.Errorf("%w: nothing in it is signed; a Vault without auto-unseal has made it", ErrOtherSeal)
	}
	var sums, signed []byte
	err := c.Open(ctx, func(r io.Reader) error {
		gz, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%w: %w", snapshot.ErrCorrupt, err)
		}
		for tr := tar.NewReader(gz); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("%w: %w", snapshot.ErrCorrupt, err)
			}
			var into *[]byte
			switch h.Name {
			case "SHA256SUMS":
				into = &sums
			case "SHA256SUMS.sealed":
				into = &signed
			default:
				continue
			}
			if *into, err = io.ReadAll(io.LimitReader(tr, maxSums)); err != nil {
				return fmt.Errorf("%w: %w", snapshot.ErrCorrupt, err)
			}
		}
		// The checksums behind the archive are compared when its end is read.
		_, err = io.Copy(io.Discard, io.MultiReader(gz, r))
		return err
	})
	if err != nil {
		return err
	}
	var faults []error
	for _, ciphertext := range sealed.FindAll(signed, -1) {
		plain, err := key.Decrypt(string(ciphertext))
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if !sameLines(plain, sums) {
			return fmt.Errorf("%w: what is signed are other sums", snapshot.ErrCorrupt)
		}
		return nil
	}
	return fmt.Errorf("%w: %w", ErrOtherSeal, errors.Join(append(faults, errors.New("no signature opens with it"))...))
}

// sameLines compares lists of sums, whose order says nothing: Vault writes them
// twice, each time in another one.
func sameLines(a, b []byte) bool {
	sorted := func(text []byte) []string {
		return slices.Sorted(strings.Lines(strings.TrimSuffix(string(text), "\n") + "\n"))
	}
	return slices.Equal(sorted(a), sorted(b))
}
