package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// sealing seals anew what is sealed otherwise than [unseal] has it: what an
// older version left to systemd's default, which a Secure Boot update locks out,
// and what was sealed before the setting changed.
type sealing struct{ *Env }

func (sealing) ID() string    { return "sealing" }
func (sealing) Title() string { return "credentials sealed" }

// Check opens all that is to be sealed anew: where one does not open, nothing is
// replaced.
func (s sealing) Check(ctx context.Context) (engine.Diff, error) {
	names, err := s.Host.ReadDir(machine.CredentialDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, nil
	}
	way, err := s.howSealed(ctx)
	if err != nil {
		return nil, err
	}
	var c collect
	for _, base := range names {
		c.add(s.reseal(ctx, way, base))
	}
	return c.done()
}

func (s sealing) reseal(ctx context.Context, way credential.Way, base string) (engine.Diff, error) {
	file := machine.CredentialFile(base)
	// A master key that is not in force yet is sealed under the same name.
	name := strings.TrimSuffix(base, machine.NextCredential)
	info, err := s.Host.Stat(file)
	if err != nil || info.Type != 0 {
		return nil, err
	}
	sealed, err := s.Host.ReadFile(file)
	if err != nil {
		return nil, err
	}
	// What this version does not know is left as it is, and opened by systemd.
	is, known := credential.Inspect(sealed)
	if !known || is.Way == way {
		return nil, nil
	}
	plain, err := s.openCredential(ctx, name, file)
	if errors.Is(err, errLost) {
		return nil, nil // whoever needs it makes it anew
	}
	if err != nil {
		return nil, fmt.Errorf("it is sealed %s: %w", is, err)
	}
	clear(plain)
	return engine.Diff{{What: file, From: "sealed " + is.String(), To: "sealed " + way.String(), Apply: func(ctx context.Context) error {
		plain, err := s.openCredential(ctx, name, file)
		if err != nil {
			return err
		}
		defer clear(plain)
		return s.sealCredential(ctx, name, file, plain)
	}}}, nil
}

// howSealed says how this machine seals. It is asked once a run: each answer costs
// a TPM two operations.
func (e *Env) howSealed(ctx context.Context) (credential.Way, error) {
	if e.way != "" {
		return e.way, nil
	}
	way, err := credential.Choose(ctx, e.creds, e.Config.Unseal.Seal)
	if err != nil {
		return "", sealingFault(fmt.Errorf("[unseal] seal = %q: %w", e.Config.Unseal.Seal, err))
	}
	e.way = way
	return way, nil
}

// creds runs the machine's systemd-creds.
func (e *Env) creds(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	out, err := e.Host.Run(ctx, host.Command{Args: append([]string{"systemd-creds"}, args...), Stdin: bytes.NewReader(stdin)})
	var exit *host.ExitError
	if err != nil && !errors.As(err, &exit) {
		clear(out.Stdout)
		return nil, err // it was not run to its end: what it said is no answer
	}
	return out.Stdout, err
}

// sealCredential seals plain as [unseal] has it, under a name that binds it to
// the one unit setting that may open it. What was there goes only when the new
// one has been opened.
func (e *Env) sealCredential(ctx context.Context, name, path string, plain []byte) error {
	way, err := e.howSealed(ctx)
	if err != nil {
		return err
	}
	sealed, err := credential.Seal(ctx, e.creds, way, name, plain)
	if err != nil {
		return sealingFault(err)
	}
	return e.Host.Write(path, bytes.NewReader(sealed), root(0o600))
}

// openCredential decrypts what sealCredential wrote.
func (e *Env) openCredential(ctx context.Context, name, path string) ([]byte, error) {
	sealed, err := e.Host.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open credential: %w", err)
	}
	plain, err := credential.Unseal(ctx, e.creds, name, sealed)
	lost := errors.Is(err, credential.ErrRefused) || errors.Is(err, credential.ErrHostKey) || errors.Is(err, credential.ErrTPMGone)
	switch {
	case err == nil:
		return plain, nil
	case lost && e.Remake && name != machine.CredMasterKey:
		return nil, fmt.Errorf("%w: %q: %w", errLost, path, err)
	}
	return nil, sealingFault(fmt.Errorf("%q: %w", path, err))
}

// kept opens a credential; false where there is none, or none that ever opens
// again.
func (e *Env) kept(ctx context.Context, name string) ([]byte, bool, error) {
	there, err := e.exists(machine.CredentialFile(name))
	if err != nil || !there {
		return nil, false, err
	}
	plain, err := e.openCredential(ctx, name, machine.CredentialFile(name))
	if errors.Is(err, errLost) {
		return nil, false, nil
	}
	return plain, err == nil, err
}

// errLost is what opening a credential ends with that is to be made anew.
var errLost = errors.New("it can never be opened again")

// sealingFault says what to do where a person must.
func sealingFault(err error) error {
	if hint := credential.Hint(err); hint != "" {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: hint}
	}
	return err
}
