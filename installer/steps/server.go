package steps

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// tellsWithin is how long a program may take to say what it is.
const tellsWithin = 20 * time.Second

// ServerOf asks a program what it is. Another product than the wanted one is refused.
func ServerOf(ctx context.Context, r host.Runner, want config.Product, program string) (config.Server, error) {
	return serverOf(ctx, r, want, program, tellsWithin)
}

func serverOf(ctx context.Context, r host.Runner, want config.Product, program string, within time.Duration) (config.Server, error) {
	asked, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	out, err := r.Run(asked, host.Command{Args: []string{program, "version"}})
	if err != nil && asked.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer to \"version\" within %s", within)
	}
	if err != nil {
		return config.Server{}, fmt.Errorf("%q doesn't tell its version: %w", program, err)
	}
	s, err := config.ParseServer(string(out.Stdout))
	if err != nil {
		return s, fmt.Errorf("%q is no %s: %w", program, want, err)
	}
	if !s.Product.Is(want) {
		return s, fmt.Errorf("%q is %s, and vault.product is %q: neither reads the other's storage", program, s, string(want.Known()))
	}
	return s, nil
}

// GivenServer judges the program that the operator brings: by its SHA-256 first, so
// that nothing runs which he does not mean, then by what it says it is. sum may be
// empty for Vault. What is wrong is his to put right, and nothing has been changed.
func GivenServer(ctx context.Context, h *host.Host, want config.Vault, file, sum string) (config.Server, error) {
	const untouched = "; nothing has been changed"
	if sum == "" && want.Product == config.ProductOpenBao {
		return config.Server{}, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("%q is to be OpenBao, and nothing says which", file),
			Hint: "give its SHA-256 with --sha256, out of a release whose signature you have checked (docs/openbao.md)" + untouched}
	}
	if sum != "" {
		got, err := h.Sum(file)
		if err != nil {
			return config.Server{}, &fault.Error{Code: fault.Usage, Err: err, Hint: "name the file with --vault-binary" + untouched}
		}
		if !strings.EqualFold(got, sum) {
			return config.Server{}, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("%q has the SHA-256 %s, and --sha256 says %s", file, got, sum),
				Hint: "download it again and check the release's signature (docs/openbao.md); it has not been run" + untouched}
		}
	}
	s, err := ServerOf(ctx, h, want.Product, file)
	switch {
	case err == nil:
		return s, nil
	case s.Product != "":
		return s, &fault.Error{Code: fault.Usage, Err: err, Hint: fmt.Sprintf("on a machine without data say --product %s; else give %s (docs/openbao.md)%s", string(s.Product), want.Product, untouched)}
	}
	return s, &fault.Error{Code: fault.Usage, Err: err, Hint: fmt.Sprintf("give --vault-binary a program of %s for this machine%s", want.Product, untouched)}
}

// CheckSHA256 says what is wrong with what --sha256 got for a file.
func CheckSHA256(sum, file string) error {
	b, err := hex.DecodeString(sum)
	switch {
	case sum == "":
		return nil
	case file == "":
		return errors.New("--sha256: of which file? --vault-binary names it")
	case err != nil || len(b) != 32:
		return fmt.Errorf("--sha256 %q: want 64 hexadecimal digits", sum)
	}
	return nil
}

// sameProduct refuses a change of product where there is data. OpenBao's storage
// under Vault comes up active and empty, and the first write buries it.
func (e *Env) sameProduct(context.Context) error {
	data, err := e.HasVault()
	if err != nil || !data {
		return err
	}
	// Machines of before there was a choice have Vault's and no such file.
	was := config.ProductVault
	b, err := e.Host.ReadFile(machine.ProductFile)
	if err == nil {
		was = config.Product(strings.TrimSpace(string(b)))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if want := e.Config.Vault.Product; !was.Is(want) {
		return fmt.Errorf("vault.product is %q, and the data on this machine is of %q: neither reads the other's storage; set it back, or move as docs/openbao.md says", string(want), string(was))
	}
	return nil
}

// server refuses a machine whose data is another product's, and one that would have
// to wait for OpenBao's program when half of the rest is done.
func (s preflight) server(ctx context.Context) error {
	if err := s.sameProduct(ctx); err != nil {
		return err
	}
	there, err := s.exists(machine.VaultProgram)
	if err == nil && !there && s.VaultBinary == "" && s.Config.Vault.Product == config.ProductOpenBao {
		return fmt.Errorf("%w: %s", errNoOpenBao, noOpenBaoHint)
	}
	return err
}

var errNoOpenBao = errors.New("OpenBao's program is not here, and Vault's alone is downloaded")

const noOpenBaoHint = "give it with --vault-binary FILE --sha256 SUM (docs/openbao.md)"

// verified reads a file that had this SHA-256 when it was looked at, and fails at
// its end where it has another: what is written is what was judged.
type verified struct {
	io.ReadCloser
	path, want string
	sum        hash.Hash
}

// Read implements io.Reader.
func (v *verified) Read(b []byte) (int, error) {
	n, err := v.ReadCloser.Read(b)
	v.sum.Write(b[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		return n, fmt.Errorf("%q has changed since it was looked at", v.path)
	}
	return n, err
}
