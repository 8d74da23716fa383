package snapshot

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"strongroom.example/config/recipient"
)

// The files of [backup] are root's and the front's. The job that takes snapshots faces
// the network and may read none of them: a job of root's without a network packs them,
// encrypted to the machine's own recipients, for whoever asks at its socket. Nobody
// there can name a file or a recipient.

const (
	// packWait is how long packing may take before the first byte.
	packWait = 10 * time.Minute
	// maxPackLine bounds what the packing job says before the archive, in bytes.
	maxPackLine = 64 << 10
)

// packLine is what the packing job says first: what follows, or why nothing does.
type packLine struct {
	Object
	Fault string `json:"fault,omitempty"`
}

// Pack writes what Files archives, encrypted, for Packed. Until it is whole it lies in
// dir, encrypted. The error is told at the other end, too.
func Pack(ctx context.Context, w io.Writer, dir string, to []recipient.Recipient, files func(context.Context, io.Writer) error) error {
	o := TakeOptions{StateDir: dir, Recipients: to, leave: leaveRoom}
	packed, err := o.spool(ctx, "", func(w io.Writer) error { return files(ctx, w) })
	if err != nil {
		return Refuse(w, err)
	}
	defer packed.file.Close()
	if err := json.NewEncoder(w).Encode(packLine{Object: packed.obj}); err != nil {
		return fmt.Errorf("hand over the files: %w", err)
	}
	if _, err := io.Copy(w, io.NewSectionReader(packed.file, 0, packed.obj.Size)); err != nil {
		return fmt.Errorf("hand over the files: %w", err)
	}
	return nil
}

// Refuse tells Packed why there is nothing, and gives that error.
func Refuse(w io.Writer, err error) error {
	return errors.Join(err, json.NewEncoder(w).Encode(packLine{Fault: err.Error()}))
}

// Packed returns a TakeOptions.Packed that asks the packing job at its socket.
func Packed(socket string) func(ctx context.Context, w io.Writer, stall time.Duration) (Object, error) {
	return func(ctx context.Context, w io.Writer, stall time.Duration) (Object, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return Object{}, fmt.Errorf("the job that packs them: %w", err)
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		o, err := receive(w, &patient{conn, max(stall, packWait), stall})
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return o, err
	}
}

// patient reads from a connection, and gives up where nothing comes.
type patient struct {
	conn        net.Conn
	first, next time.Duration
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.first)); err != nil {
		return 0, err
	}
	p.first = p.next
	return p.conn.Read(b)
}

// receive takes what Pack has written.
func receive(w io.Writer, r io.Reader) (Object, error) {
	in := bufio.NewReaderSize(r, maxPackLine)
	text, err := in.ReadSlice('\n')
	if err != nil {
		return Object{}, fmt.Errorf("the job that packs them has said nothing: %w; journalctl -u 'strongroom-snapshot-files@*' has why", noEOF(err))
	}
	var line packLine
	if err := json.Unmarshal(text, &line); err != nil {
		return Object{}, fmt.Errorf("the job that packs them: %w", err)
	}
	if line.Fault != "" {
		return Object{}, errors.New(line.Fault)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(in, line.Size))
	switch {
	case err != nil:
		return Object{}, fmt.Errorf("the job that packs them: %w", err)
	case n != line.Size || fmt.Sprintf("%x", sum.Sum(nil)) != line.SHA256:
		return Object{}, fmt.Errorf("the job that packs them has ended in the midst of it: %d of %d bytes", n, line.Size)
	}
	return line.Object, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
