package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"strongroom.example/config"
)

// Bundle is what an app needs for its first login. The secret id is with
// Vault; the bundle holds a token with which it can be fetched once. Whoever
// comes second learns that somebody was first.
type Bundle struct {
	App           string    `json:"app"`
	Environment   string    `json:"environment,omitempty"`
	Address       string    `json:"vault_addr"`
	CACert        string    `json:"ca_cert,omitempty"` // PEM
	RoleID        string    `json:"role_id"`
	WrappedSecret string    `json:"wrapped_secret_id"`
	Expires       time.Time `json:"expires"` // the token, if nobody has used it

	role string
}

// String hides the token.
func (b Bundle) String() string { return fmt.Sprintf("login bundle for %s (hidden)", b.prefix()) }

// GoString hides the token from %#v.
func (b Bundle) GoString() string { return b.String() }

func (b Bundle) prefix() string {
	return strings.TrimSuffix(b.App+"/"+b.Environment, "/")
}

// The bounds of a bundle's life.
const (
	minWrap = time.Minute
	maxWrap = 72 * time.Hour // as the owner's policy has it
)

// ErrWrapTTL is for a bundle's life outside its bounds.
var ErrWrapTTL = fmt.Errorf("a bundle lives from %v to %v", minWrap, maxWrap)

// MakeBundle issues a secret id for t's login and has Vault wrap it.
func MakeBundle(ctx context.Context, v Vault, t config.Target, ttl time.Duration) (Bundle, error) {
	if ttl < minWrap || ttl > maxWrap {
		return Bundle{}, fmt.Errorf("%v: %w", ttl, ErrWrapTTL)
	}
	role := "auth/approle/role/" + t.Role
	got, err := v.Read(ctx, role+"/role-id")
	if err != nil {
		return Bundle{}, err
	}
	id := text(got, "role_id")
	if id == "" {
		return Bundle{}, &NeedsOperator{Err: fmt.Errorf("the login %q is not in Vault yet", t.Role), Hint: "run strongroom app apply first"}
	}
	w, err := v.Wrap(ctx, role+"/secret-id", map[string]any{}, ttl)
	if err != nil {
		return Bundle{}, err
	}
	return Bundle{App: t.App, Environment: t.Environment, RoleID: id, WrappedSecret: w.Token, Expires: w.Created.Add(w.TTL).UTC(), role: t.Role}, nil
}

// ParseBundle reads a bundle's file. The error never quotes it.
func ParseBundle(data []byte) (Bundle, error) {
	var b Bundle
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return Bundle{}, errors.New("not a login bundle: no JSON as strongroom app login-bundle writes it")
	}
	if b.App == "" || b.Address == "" || b.RoleID == "" || b.WrappedSecret == "" {
		return Bundle{}, errors.New("not a login bundle: app, vault_addr, role_id and wrapped_secret_id are required")
	}
	b.role = strings.TrimSuffix(b.App+"-"+b.Environment, "-")
	return b, nil
}

// ErrIntercepted says that a bundle's token is not what it should be.
var ErrIntercepted = errors.New("the bundle has been opened before, has expired, or was exchanged")

// OpenBundle fetches the secret id. That can be done once: ErrIntercepted
// means that somebody else may have it.
func OpenBundle(ctx context.Context, v Vault, b Bundle) (secretID string, err error) {
	// What made the token is asked first: a token made elsewhere would hand us
	// somebody else's secret id.
	info, err := v.Write(ctx, "sys/wrapping/lookup", map[string]any{"token": b.WrappedSecret})
	if err != nil {
		return "", intercepted(err)
	}
	if want := "auth/approle/role/" + b.role + "/secret-id"; text(info, "creation_path") != want {
		return "", fmt.Errorf("%w: it was made by %q, not %q", ErrIntercepted, text(info, "creation_path"), want)
	}
	got, err := v.Unwrap(ctx, b.WrappedSecret)
	if err != nil {
		return "", intercepted(err)
	}
	if secretID = text(got, "secret_id"); secretID == "" {
		return "", fmt.Errorf("%w: it holds no secret id", ErrIntercepted)
	}
	return secretID, nil
}

func intercepted(err error) error {
	if strings.Contains(err.Error(), "wrapping token is not valid") || denied(err) {
		return fmt.Errorf("%w: %w", ErrIntercepted, err)
	}
	return err
}
