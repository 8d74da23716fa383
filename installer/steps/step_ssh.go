package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"strongroom/installer/engine"
	"strongroom/installer/host"
)

// ssh has sshd refuse passwords, where that can't lock anybody out: where nobody
// has a password, or where the operator has just come in by a key. Elsewhere it
// leaves sshd alone, and the doctor tells.
type ssh struct{ *Env }

func (ssh) ID() string    { return "ssh" }
func (ssh) Title() string { return "SSH by key only" }

const (
	sshdFolder = "/etc/ssh/sshd_config.d"
	// First in the folder: of several values sshd takes the first.
	sshdFile = sshdFolder + "/00-strongroom.conf"
	sshdText = "# Written by strongroom-installer: keys only.\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
)

func (s ssh) Check(ctx context.Context) (engine.Diff, error) {
	there, err := s.exists(sshdFile)
	if err != nil {
		return nil, err
	}
	if !there {
		wanted, err := s.wantedAndSafe(ctx)
		if err != nil || !wanted {
			return nil, err
		}
	}
	diff, err := s.file(sshdFile, bytesSource([]byte(sshdText)), root(0o644))
	for i := range diff {
		diff[i].To = "no passwords; who is logged in stays"
		write := diff[i].Apply
		diff[i].Apply = func(ctx context.Context) error { return s.apply(ctx, write) }
	}
	return diff, err
}

// wantedAndSafe says whether sshd lets people in by password, and nobody needs
// it to.
func (s ssh) wantedAndSafe(ctx context.Context) (bool, error) {
	if there, err := s.exists(sshdFolder); err != nil || !there {
		return false, err
	}
	out, err := s.Host.Run(ctx, host.Command{Args: []string{"sshd", "-T"}})
	var exit *host.ExitError
	if errors.Is(err, host.ErrNotFound) || errors.As(err, &exit) {
		return false, nil // no sshd, or one with a fault that is not ours to mend
	}
	if err != nil {
		return false, err
	}
	effective := strings.ToLower(string(out.Stdout))
	if !strings.Contains(effective, "\npasswordauthentication yes") && !strings.Contains(effective, "\nkbdinteractiveauthentication yes") {
		return false, nil
	}
	passwords, err := s.anyPassword()
	if err != nil {
		return false, err
	}
	if !passwords {
		return true, nil
	}
	return s.cameByKey(ctx)
}

// anyPassword says whether an account has a password (shadow(5)).
func (s ssh) anyPassword() (bool, error) {
	b, err := s.Host.ReadFile("/etc/shadow")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer clear(b)
	for line := range bytes.Lines(b) {
		f := bytes.SplitN(line, []byte(":"), 3)
		if len(f) == 3 && len(f[1]) > 0 && f[1][0] != '!' && f[1][0] != '*' {
			return true, nil
		}
	}
	return false, nil
}

// cameByKey says whether sshd has let in this very session by a public key.
func (s ssh) cameByKey(ctx context.Context) (bool, error) {
	f := strings.Fields(s.Session)
	if len(f) != 4 {
		return false, nil
	}
	// sshd-session is what newer releases call the part that logs this.
	out, err := s.Host.Run(ctx, host.Command{Args: []string{"journalctl", "--boot", "--no-pager", "--output=cat", "-t", "sshd", "-t", "sshd-session"}})
	if err != nil {
		return false, nil
	}
	from := fmt.Sprintf(" from %s port %s ", f[0], f[1])
	for line := range strings.Lines(string(out.Stdout)) {
		if strings.HasPrefix(line, "Accepted publickey for ") && strings.Contains(line, from) {
			return true, nil
		}
	}
	return false, nil
}

// apply writes the file, has sshd check it, and only then has it read it.
func (s ssh) apply(ctx context.Context, write func(context.Context) error) error {
	if err := write(ctx); err != nil {
		return err
	}
	if _, err := s.Host.Run(ctx, host.Command{Args: []string{"sshd", "-t"}}); err != nil {
		return errors.Join(fmt.Errorf("sshd refuses %q: %w", sshdFile, err), s.Host.Remove(sshdFile))
	}
	for _, unit := range []string{"ssh.service", "sshd.service"} {
		u, err := s.Host.Unit(ctx, unit)
		if err != nil {
			return err
		}
		if u.Active == "active" {
			return s.Host.ReloadService(ctx, unit)
		}
	}
	// Started by a socket: it reads the file when the next connection comes.
	return nil
}
