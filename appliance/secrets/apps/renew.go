package apps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi"
)

// The files of a renewal that is under way, beside those of the login.
const (
	nextFile = SecretIDFile + ".next" // made, and perhaps not tried
	oldFile  = SecretIDFile + ".old"  // replaced, and perhaps not destroyed
)

// Renewal is what became of a login that was to be renewed.
type Renewal struct {
	Role    string
	Ends    time.Time // of the secret id that is there now; zero: never
	Renewed bool
}

// RenewOptions of a renewal.
type RenewOptions struct {
	Dir string // with role-id and secret-id, as open-bundle leaves them
	// Always renews even what is young.
	Always bool
	// Connect gives a connection without a token; ca is the folder's authority, or "".
	Connect func(ca string) (*vaultapi.Client, error)
	Now     func() time.Time
}

// RenewLogin replaces a secret id when a third of its life has gone: the new one is
// made, written and tried, then it takes the old one's place, and that is destroyed. A
// run that was killed is gone on with by the next; the login works at any moment.
func RenewLogin(ctx context.Context, o RenewOptions) (Renewal, error) {
	r := renewal{RenewOptions: o}
	roleID, err := r.file(RoleIDFile)
	if err != nil {
		return Renewal{}, err
	}
	old, err := r.file(SecretIDFile)
	if err != nil {
		return Renewal{}, err
	}
	v, role, err := r.login(ctx, roleID, old)
	if err != nil {
		return Renewal{}, loginRefused(err)
	}
	defer func() { _ = v.RevokeSelf(context.WithoutCancel(ctx)) }() // it ends soon by itself
	r.role = role
	if err := r.sweep(ctx, v, old); err != nil {
		return Renewal{}, err
	}
	born, ends, err := r.life(ctx, v, old)
	if err != nil {
		return Renewal{}, err
	}
	out := Renewal{Role: role, Ends: ends}
	if !o.Always && (ends.IsZero() || o.Now().Sub(born) < ends.Sub(born)/3) {
		// Whatever a killed run has made is nobody's.
		return out, r.drop(ctx, v)
	}
	next, err := r.make(ctx, v, roleID)
	if err != nil {
		return out, err
	}
	fresh, _, err := r.login(ctx, roleID, next)
	if err != nil {
		return out, errors.Join(fmt.Errorf("the new secret id does not log in, and the old one stays: %w", err), r.drop(ctx, v))
	}
	defer func() { _ = fresh.RevokeSelf(context.WithoutCancel(ctx)) }()
	// The commit point: from here on the new one is the login.
	if err := atomicfile.Write(r.path(oldFile), []byte(old+"\n"), 0o600); err != nil {
		return out, err
	}
	if err := os.Rename(r.path(nextFile), r.path(SecretIDFile)); err != nil {
		return out, err
	}
	if err := atomicfile.SyncDir(o.Dir); err != nil {
		return out, err
	}
	out.Renewed = true
	if _, out.Ends, err = r.life(ctx, fresh, next); err != nil {
		return out, err
	}
	return out, r.sweep(ctx, fresh, next)
}

type renewal struct {
	RenewOptions
	role string
}

func (r renewal) path(name string) string { return filepath.Join(r.Dir, name) }

// file is one line of the login's.
func (r renewal) file(name string) (string, error) {
	data, err := atomicfile.ReadSmall(r.path(name), atomicfile.MaxSmall)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(data))
	if s == "" || strings.ContainsAny(s, " \t\r\n") {
		return "", fmt.Errorf("%q must hold one line", r.path(name))
	}
	return s, nil
}

func (r renewal) login(ctx context.Context, roleID, secretID string) (*vaultapi.Client, string, error) {
	ca := ""
	if _, err := os.Stat(r.path(caFile)); err == nil {
		ca = r.path(caFile)
	}
	c, err := r.Connect(ca)
	if err != nil {
		return nil, "", err
	}
	if err := c.LoginAppRole(ctx, roleID, secretID); err != nil {
		return nil, "", err
	}
	self, err := c.LookupSelf(ctx)
	if err != nil {
		return nil, "", err
	}
	role := text(mapOf(self["meta"]), "role_name")
	if role == "" {
		return nil, "", errors.New("vault doesn't say of which AppRole the login is")
	}
	return c, role, nil
}

func loginRefused(err error) error {
	if vaultapi.Status(err) == 400 || vaultapi.IsDenied(err) {
		return &NeedsOperator{Err: err, Hint: "the login has ended or is refused from here: make a new bundle (strongroom app login-bundle), and open it into this folder"}
	}
	return err
}

// life is when a secret id was made and when it ends; zero: never.
func (r renewal) life(ctx context.Context, v *vaultapi.Client, id string) (born, ends time.Time, err error) {
	got, err := v.Write(ctx, "auth/approle/role/"+r.role+"/secret-id/lookup", map[string]any{"secret_id": id})
	if vaultapi.IsDenied(err) {
		return born, ends, &NeedsOperator{Err: err, Hint: "the login may not renew itself: renew = true in its [login], and strongroom app apply"}
	}
	if err != nil {
		return born, ends, err
	}
	if born, err = time.Parse(time.RFC3339Nano, text(got, "creation_time")); err != nil {
		return born, ends, fmt.Errorf("vault's answer says no time at which the secret id was made: %w", err)
	}
	if ends, err = time.Parse(time.RFC3339Nano, text(got, "expiration_time")); err != nil {
		return born, ends, fmt.Errorf("vault's answer says no time at which the secret id ends: %w", err)
	}
	return born, ends, nil
}

// make has Vault make a secret id and writes it down, unless a run that was killed has
// left one that works.
func (r renewal) make(ctx context.Context, v *vaultapi.Client, roleID string) (string, error) {
	if next, err := r.file(nextFile); err == nil {
		if _, _, err := r.login(ctx, roleID, next); err == nil {
			return next, nil
		}
		if err := os.Remove(r.path(nextFile)); err != nil {
			return "", err
		}
	}
	got, err := v.Write(ctx, "auth/approle/role/"+r.role+"/secret-id", nil)
	if err != nil {
		return "", err
	}
	next := text(got, "secret_id")
	if next == "" {
		return "", errors.New("vault's answer holds no secret id")
	}
	if err := atomicfile.Write(r.path(nextFile), []byte(next+"\n"), 0o600); err != nil {
		return "", errors.Join(err, r.destroy(ctx, v, next)) // nobody would know it
	}
	return next, nil
}

// sweep destroys the secret id that was replaced.
func (r renewal) sweep(ctx context.Context, v *vaultapi.Client, current string) error {
	old, err := r.file(oldFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if old != current {
		if err := r.destroy(ctx, v, old); err != nil {
			return fmt.Errorf("the login is renewed, and the secret id of before is alive still: %w", err)
		}
	}
	return os.Remove(r.path(oldFile))
}

// drop destroys a new secret id that was not needed.
func (r renewal) drop(ctx context.Context, v *vaultapi.Client) error {
	next, err := r.file(nextFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = r.destroy(ctx, v, next)
	}
	return errors.Join(err, os.Remove(r.path(nextFile)))
}

func (r renewal) destroy(ctx context.Context, v *vaultapi.Client, id string) error {
	_, err := v.Write(ctx, "auth/approle/role/"+r.role+"/secret-id/destroy", map[string]any{"secret_id": id})
	return err
}
