package kms

import (
	"io"
	"path/filepath"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/serve/escrow"
)

// Export writes the master key for other people's keys.
type Export struct {
	Escrow string // this machine's escrow folder, there or not
	Rand   io.Reader
	Now    func() time.Time
}

// To writes the escrow to the file out, mode 0600. ours tells whether that is one of
// this machine's, for which questions lie beside it then, to be confirmed anew.
func (e Export) To(out string, k *Keyset, to ...age.Recipient) (ours bool, err error) {
	text, err := EscrowText(k, "")
	if err != nil {
		return false, err
	}
	defer clear(text)
	dir, name := filepath.Dir(out), filepath.Base(out)
	if ours, err = escrow.IsFolder(dir); err != nil {
		return false, err
	}
	if ours || dir == e.Escrow {
		return true, escrow.Folder{Dir: dir, Now: e.Now}.Put(name, text, k.Fingerprint(), e.Rand, to...)
	}
	sealed, err := escrow.Seal(text, to...)
	if err != nil {
		return false, err
	}
	return false, atomicfile.Write(out, sealed, 0o600)
}
