// Package wayin lets the recovery keys make a root token.
//
// Vault 1.x asks for nothing else. Since 2.0 (CVE-2026-5807) it wants a token
// besides them, unless its configuration file says otherwise, and whoever needs the
// recovery keys has none. So a line is put into that file, Vault reads it, and when
// the token is made the line is taken out again.
//
// OpenBao makes root tokens on a listener that says so, and reads its listeners when
// it starts. So it gets one more, a unix socket in a folder of root's own, is
// restarted, and restarted without it afterwards.
//
// It opens no escrow, and knows of the keys only that Vault wants them.
package wayin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/vaultapi"
)

// setting opens generate-root to callers without a token:
// https://developer.hashicorp.com/vault/docs/configuration#enable_unauthenticated_access
const (
	setting = `enable_unauthenticated_access = ["generate-root"]`
	// mark tells our lines from those that somebody has written.
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
	// Reload has Vault read it again. Vault may do so after it has returned. OpenBao is
	// restarted by it.
	Reload func(context.Context) error
	// Patience is how long Vault may take for that.
	Patience time.Duration
	// Gate is where OpenBao lets recovery keys in; nil for Vault.
	Gate *Gate
}

// Gate is one more listener of OpenBao's, there only while a root token is made.
type Gate struct {
	// Vault is a client without a token, on Socket.
	Vault *vaultapi.Client
	// Socket is a path in a folder that Make makes; User and Group own it, and nobody
	// else may use it. Names or numbers, OpenBao's own.
	Socket, User, Group string
	// Make makes the folder, and has whatever closes doors when OpenBao starts leave
	// this one open until end, or until this process ends.
	Make func() (end func() error, err error)
}

// lines are what opens the door, in the configuration file.
func (d Door) lines() string {
	lines := []string{setting}
	if g := d.Gate; g != nil {
		// https://openbao.org/docs/configuration/listener/unix
		lines = []string{
			`listener "unix" {`,
			fmt.Sprintf("  address      = %q", g.Socket),
			`  socket_mode  = "0600"`,
			fmt.Sprintf("  socket_user  = %q", g.User),
			fmt.Sprintf("  socket_group = %q", g.Group),
			"  disable_unauthed_generate_root_endpoints = false",
			"}",
		}
	}
	return strings.Join(lines, mark+"\n") + mark + "\n"
}

const look = 50 * time.Millisecond

// GenerateRoot makes a root token. One may be there with ErrLeftOpen, too.
func (d Door) GenerateRoot(ctx context.Context, shares []string) (token string, err error) {
	token, err = d.Vault.GenerateRoot(ctx, shares)
	refused := vaultapi.WantsToken(err) || d.Gate != nil && vaultapi.IsUnsupported(err)
	if !refused && !d.left() {
		return token, err
	}
	vault := d.Vault
	if d.Gate != nil {
		end, made := d.Gate.Make()
		if made != nil {
			return token, errors.Join(err, made)
		}
		defer func() { err = errors.Join(err, end()) }() // when it is shut
		vault = d.Gate.Vault
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
	return vault.GenerateRoot(ctx, shares)
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
	if err := d.Write(append(data, d.lines()...)); err != nil {
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
		is, err := d.isOpen(ctx)
		if err == nil && is == open {
			return nil
		}
		if waited := pause.For(ctx, look); waited != nil {
			return errors.Join(waited, err)
		}
	}
}

func (d Door) isOpen(ctx context.Context) (bool, error) {
	if d.Gate == nil {
		return d.Vault.RecoveryKeysSuffice(ctx)
	}
	switch h, err := d.Vault.Health(ctx); {
	case err != nil:
		return false, err // it starts
	case h.Sealed || h.Standby:
		return false, errors.New("it is not active")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.Gate.Socket)
	if err != nil {
		return false, context.Cause(ctx) // nobody listens there
	}
	_ = conn.Close()
	return d.Gate.Vault.RecoveryKeysSuffice(ctx)
}

// Close takes our lines out of the file, where a killed run has left it, and says
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
