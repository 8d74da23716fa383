package host

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// OSAccounts are the accounts of the system below Root. It reads /etc/passwd
// and /etc/group themselves, since what the installer makes is there, and
// makes accounts with systemd-sysusers.
type OSAccounts struct {
	Root string
	Runner
}

var _ Accounts = OSAccounts{}

// User implements Accounts.
func (o OSAccounts) User(name string) (User, error) {
	f, err := o.entry("/etc/passwd", name, 7)
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", name, err)
	}
	uid, err1 := strconv.Atoi(f[2])
	gid, err2 := strconv.Atoi(f[3])
	if err := errors.Join(err1, err2); err != nil {
		return User{}, fmt.Errorf("user %q in /etc/passwd: %w", name, err)
	}
	return User{Name: name, UID: uid, GID: gid, Comment: f[4], Home: f[5], Shell: f[6]}, nil
}

// Group implements Accounts.
func (o OSAccounts) Group(name string) (Group, error) {
	f, err := o.entry("/etc/group", name, 4)
	if err != nil {
		return Group{}, fmt.Errorf("group %q: %w", name, err)
	}
	gid, err := strconv.Atoi(f[2])
	if err != nil {
		return Group{}, fmt.Errorf("group %q in /etc/group: %w", name, err)
	}
	return Group{Name: name, GID: gid}, nil
}

// AddSystemUser implements Accounts.
func (o OSAccounts) AddSystemUser(ctx context.Context, name, comment string) error {
	if err := checkAccount(name, comment); err != nil {
		return err
	}
	args := []string{"systemd-sysusers"}
	if o.Root != "/" {
		args = append(args, "--root="+o.Root)
	}
	// sysusers.d(5). The home is "/" and the shell nologin by default.
	line := fmt.Sprintf("u %s - \"%s\"\n", name, comment)
	_, err := o.Run(ctx, Command{Args: append(args, "-"), Stdin: strings.NewReader(line)})
	return err
}

// checkAccount refuses what would be more than one field in /etc/passwd.
func checkAccount(name, comment string) error {
	if strings.ContainsAny(name+comment, "\"\n:") {
		return fmt.Errorf("user %q (%q): a name can't hold such characters", name, comment)
	}
	return nil
}

// entry finds the line of file whose first field is name.
func (o OSAccounts) entry(file, name string, fields int) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(o.Root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		f := strings.Split(s.Text(), ":")
		if len(f) == fields && f[0] == name {
			return f, nil
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %q: %w", file, err)
	}
	return nil, ErrNotFound
}
