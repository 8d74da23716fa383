// Package wayin lets the recovery keys make a root token.
//
// Vault 1.x asks for nothing else. Since 2.0 (CVE-2026-5807) it wants a token
// besides them, unless its configuration file says otherwise, and whoever needs the
// recovery keys has none. So a line is put into that file, Vault reads it, and when
// the token is made the line is taken out again.
//
// It opens no escrow, and knows of the keys only that Vault wants them.
package wayin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/vaultapi"
)

// setting opens generate-root to callers without a token:
// https://developer.hashicorp.com/vault/docs/configuration#enable_unauthenticated_access
const (
	setting = `enable_unauthenticated_access = ["generate-root"]`
	// mark tells our line from one that somebody has written.
	mark = ` # strongroom: for the recovery keys, and taken out again`
)

var (
	// ErrLeftOpen means that a root token was made and Vault still asks for no token.
	ErrLeftOpen = errors.New("the way in for recovery keys could not be closed")
	// ErrStaysShut means that Vault still wants a token, though its configuration
	// says that it need not.
	ErrStaysShut = errors.New("vault lets no recovery keys in without a token")
)

// Door is a Vault on this machine.
type Door struct {
	// Vault is a client without a token.
	Vault *vaultapi.Client
	// Read and Write are Vault's configuration file; Write is atomic and keeps owner
	// and mode.
	Read  func() ([]byte, error)
	Write func([]byte) error
	// Reload has Vault read it again. Vault may do so after it has returned.
	Reload func(context.Context) error
	// Patience is how long Vault may take for that.
	Patience time.Duration
}

const look = 50 * time.Millisecond

// GenerateRoot makes a root token. One may be there with ErrLeftOpen, too.
func (d Door) GenerateRoot(ctx context.Context, shares []string) (token string, err error) {
	token, err = d.Vault.GenerateRoot(ctx, shares)
	refused := vaultapi.WantsToken(err)
	if !refused && !d.left() {
		return token, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.Patience)
		defer cancel()
		if shut := d.shut(ctx); shut != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", ErrLeftOpen, shut))
		}
	}()
	if !refused {
		return token, err // it is open still, from a run that was killed
	}
	if err := d.open(ctx); err != nil {
		return "", err
	}
	return d.Vault.GenerateRoot(ctx, shares)
}

// left says whether our line is in the file. Who may not read it has not put it there.
func (d Door) left() bool {
	data, err := d.Read()
	return err == nil && bytes.Contains(data, []byte(mark))
}

func (d Door) open(ctx context.Context) error {
	data, err := d.Read()
	if err != nil {
		return err
	}
	if data = closed(data); len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	if err := d.Write(append(data, setting+mark+"\n"...)); err != nil {
		return err
	}
	if err := d.Reload(ctx); err != nil {
		return fmt.Errorf("have Vault read its configuration: %w", err)
	}
	if err := d.until(ctx, true); err != nil {
		return fmt.Errorf("%w: %w", ErrStaysShut, err)
	}
	return nil
}

// shut takes the line out, and returns when Vault wants a token again.
func (d Door) shut(ctx context.Context) error {
	if _, err := Close(d.Read, d.Write); err != nil {
		return err
	}
	if err := d.Reload(ctx); err != nil {
		return fmt.Errorf("have Vault read its configuration: %w", err)
	}
	return d.until(ctx, false)
}

// until returns when Vault is open to callers without a token, or is not.
func (d Door) until(ctx context.Context, open bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.Patience, fmt.Errorf("nothing has changed within %s", d.Patience))
	defer cancel()
	for {
		is, err := d.Vault.RecoveryKeysSuffice(ctx)
		if err == nil && is == open {
			return nil
		}
		if waited := pause.For(ctx, look); waited != nil {
			return errors.Join(waited, err)
		}
	}
}

// Close takes our line out of the file, where a killed run has left it, and says
// whether it was there. What Vault has read is another thing.
func Close(read func() ([]byte, error), write func([]byte) error) (was bool, err error) {
	data, err := read()
	if err != nil {
		return false, err
	}
	without := closed(data)
	if bytes.Equal(without, data) {
		return false, nil
	}
	return true, write(without)
}

// closed is a configuration file without our line.
func closed(data []byte) []byte {
	var out []byte
	for line := range bytes.Lines(data) {
		if !bytes.Contains(line, []byte(mark)) {
			out = append(out, line...)
		}
	}
	return out
}
