package restore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
)

// ageMagic begins every age file that is not armored.
var ageMagic = []byte("age-encryption.org/v1\n")

// FromFile checks a snapshot in a local file: one of ours (age) or a stock one,
// as "vault operator raft snapshot save" writes it.
func FromFile(ctx context.Context, path string, ids []age.Identity) (*Checked, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("snapshot file: %w", err)
	}
	k := &Checked{file: f, ids: ids}
	if err := k.checkFile(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot file %q: %w", path, err), f.Close())
	}
	return k, nil
}

func (c *Checked) checkFile(ctx context.Context, path string) error {
	fi, err := c.file.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("not a plain file")
	}
	c.Size = fi.Size()
	head, err := bufio.NewReader(io.NewSectionReader(c.file, 0, c.Size)).Peek(len(ageMagic))
	if err != nil && err != io.EOF {
		return err
	}
	if !bytes.Equal(head, ageMagic) {
		return c.Open(ctx, func(r io.Reader) (err error) {
			c.Archive, err = snapshot.CheckArchive(r)
			return err
		})
	}
	if len(c.ids) == 0 {
		return fmt.Errorf("%w: it is encrypted, and no identity is given", snapshot.ErrWrongIdentity)
	}
	if c.obj, err = c.measure(path); err != nil {
		return err
	}
	return c.Open(ctx, func(r io.Reader) (err error) {
		c.Archive, err = snapshot.CheckArchive(r)
		return err
	})
}

// measure notes the sums of a file without a manifest, so that what is restored
// later must be what is checked now.
func (c *Checked) measure(path string) (snapshot.Object, error) {
	cipher, plain := sha256.New(), sha256.New()
	src := io.TeeReader(io.NewSectionReader(c.file, 0, c.Size), cipher)
	dec, err := age.Decrypt(src, c.ids...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return snapshot.Object{}, snapshot.ErrWrongIdentity
		}
		if errors.Is(err, snapshot.ErrPassphrase) {
			return snapshot.Object{}, err
		}
		return snapshot.Object{}, fmt.Errorf("%w: decrypt: %w", snapshot.ErrCorrupt, err)
	}
	n, err := io.Copy(plain, dec)
	if err != nil {
		return snapshot.Object{}, fmt.Errorf("%w: decrypt: %w", snapshot.ErrCorrupt, err)
	}
	return snapshot.Object{
		Name: path, Size: c.Size, SHA256: hex.EncodeToString(cipher.Sum(nil)),
		PlainSize: n, PlainSHA256: hex.EncodeToString(plain.Sum(nil)),
	}, nil
}
