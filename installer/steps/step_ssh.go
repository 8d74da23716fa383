package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// ssh has sshd refuse passwords, where that can't lock anybody out: where nobody
// has a password, or where the operator has just come in by a key. Elsewhere, and
// where sshd asks for a second factor, it leaves sshd alone, and the doctor tells.
type ssh struct{ *Env }

func (ssh) ID() string    { return "ssh" }
func (ssh) Title() string { return "SSH by key only" }

const (
	sshdText = "# Written by strongroom-installer: keys only.\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
)

func (s ssh) Check(ctx context.Context) (engine.Diff, error) {
	there, err := s.exists(machine.SSHDFile)
	if err != nil {
		return nil, err
	}
	effective, err := s.effective(ctx)
	if err != nil {
		return nil, err
	}
	if secondFactor(effective) {
		if there {
			// The operator's affair since they ask for more than a key.
			s.want(machine.SSHDFile, "", root(0o644))
		}
		return nil, nil
	}
	if !there {
		wanted, err := s.wantedAndSafe(ctx, effective)
		if err != nil || !wanted {
			return nil, err
		}
	}
	diff, err := s.file(machine.SSHDFile, bytesSource([]byte(sshdText)), root(0o644))
	if err != nil {
		return nil, err
	}
	for i := range diff {
		diff[i].To = "no passwords; who is logged in stays"
		write := diff[i].Apply
		diff[i].Apply = func(ctx context.Context) error { return s.apply(ctx, write) }
	}
	if len(diff) > 0 {
		return diff, nil
	}
	return s.inForce(ctx, effective)
}

// inForce wants what the file says to be what sshd does: a run that was killed
// after it wrote the file has not told sshd.
func (s ssh) inForce(ctx context.Context, effective string) (engine.Diff, error) {
	if takesPasswords(effective) {
		return engine.Diff{{What: "sshd", From: "passwords, by a setting before " + machine.SSHDFile, To: "no passwords",
			Apply: func(context.Context) error { return errOverruled }}}, nil
	}
	unit, u, err := s.running(ctx)
	if err != nil || unit == "" {
		return nil, err
	}
	info, err := s.Host.Stat(machine.SSHDFile)
	if err != nil {
		return nil, err
	}
	if !info.ModTime.After(u.Changed) {
		return nil, nil
	}
	return engine.Diff{{What: unit, From: "older than " + machine.SSHDFile, To: "reloaded; who is logged in stays",
		Apply: func(ctx context.Context) error {
			return s.apply(ctx, func(context.Context) error { return nil })
		}}}, nil
}

var errOverruled = operator("set both to no there too, or remove them there; grep -ri 'passwordauthentication\\|kbdinteractiveauthentication' /etc/ssh shows where they are. Then run the same command again",
	"sshd still takes passwords: another file of its configuration says so before %s", machine.SSHDFile)

// effective is what sshd goes by (sshd -T), in small letters, a line each; "" where
// there is no sshd to ask, or one with a fault that is not ours to mend.
func (s ssh) effective(ctx context.Context) (string, error) {
	if there, err := s.exists(path.Dir(machine.SSHDFile)); err != nil || !there {
		return "", err
	}
	if err := s.separation(); err != nil {
		return "", err
	}
	out, err := s.Host.Run(ctx, host.Command{Args: []string{"sshd", "-T"}})
	var exit *host.ExitError
	if errors.Is(err, host.ErrNotFound) || errors.As(err, &exit) {
		return "", nil
	}
	return "\n" + strings.ToLower(string(out.Stdout)), err
}

// separation makes the folder without which sshd does nothing, not even tell its
// configuration. Where a socket starts sshd, the first connection makes it.
func (s ssh) separation() error {
	const folder = "/run/sshd"
	if there, err := s.exists(folder); err != nil || there {
		return err
	}
	return s.Host.Mkdir(folder, root(0o755))
}

func takesPasswords(effective string) bool {
	return strings.Contains(effective, "\npasswordauthentication yes") || strings.Contains(effective, "\nkbdinteractiveauthentication yes")
}

// secondFactor says whether sshd asks for more than a key, such as a code, which
// it would ask for by the very method that is switched off here.
func secondFactor(effective string) bool {
	for line := range strings.Lines(effective) {
		if methods, ok := strings.CutPrefix(strings.TrimSpace(line), "authenticationmethods "); ok && methods != "any" && methods != "publickey" {
			return true
		}
	}
	return false
}

// wantedAndSafe says whether sshd lets people in by password, and nobody needs
// it to.
func (s ssh) wantedAndSafe(ctx context.Context, effective string) (bool, error) {
	if !takesPasswords(effective) {
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
	if err := s.separation(); err != nil {
		return err
	}
	if _, err := s.Host.Run(ctx, host.Command{Args: []string{"sshd", "-t"}}); err != nil {
		return errors.Join(fmt.Errorf("sshd refuses %q: %w", machine.SSHDFile, err), s.Host.Remove(machine.SSHDFile))
	}
	unit, _, err := s.running(ctx)
	if err != nil {
		return err
	}
	// One that is started by a socket reads the file when the next connection
	// comes.
	if unit != "" {
		if err := s.Host.ReloadService(ctx, unit); err != nil {
			return err
		}
	}
	effective, err := s.effective(ctx)
	if err == nil && takesPasswords(effective) {
		err = errOverruled
	}
	return err
}

// running is sshd's unit, "" where none is running.
func (s ssh) running(ctx context.Context) (string, host.Unit, error) {
	for _, unit := range []string{"ssh.service", "sshd.service"} {
		u, err := s.Host.Unit(ctx, unit)
		if err != nil {
			return "", host.Unit{}, err
		}
		if u.Active == "active" {
			return unit, u, nil
		}
	}
	return "", host.Unit{}, nil
}
