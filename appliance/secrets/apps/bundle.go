package apps

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
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

	role, mark string
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

// makeBundle issues a secret id for t's login and has Vault wrap it. A secret id
// whose answer was lost is ended, since nobody holds it.
func makeBundle(ctx context.Context, v Vault, t config.Target, ttl time.Duration) (Bundle, error) {
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
	b := Bundle{App: t.App, Environment: t.Environment, RoleID: id, role: t.Role, mark: rand.Text()}
	w, err := v.Wrap(ctx, role+"/secret-id", map[string]any{"metadata": fmt.Sprintf(`{%q:%q}`, bundleMark, b.mark)}, ttl)
	if vaultapi.IsUncertain(err) {
		return Bundle{}, errors.Join(err, b.end(ctx, v))
	}
	if err != nil {
		return Bundle{}, err
	}
	b.WrappedSecret, b.Expires = w.Token, w.Created.Add(w.TTL).UTC()
	return b, nil
}

// Keeps refuses a login that would end before its time: what the role says is one
// thing, and the limit of the mount another.
func Keeps(ctx context.Context, v Vault, t config.Target) error {
	got, err := v.Read(ctx, tune("auth/"+machine.AuthAppRole))
	if vaultapi.IsDenied(err) {
		return nil // an older owners' policy
	}
	if err != nil {
		return err
	}
	if limit := time.Duration(asInt(got["max_lease_ttl"])) * time.Second; limit > 0 && limit < t.Login.SecretIDTTL {
		return &NeedsOperator{
			Err:  fmt.Errorf("a secret id of %q would end after %v, and not after %v: auth/%s lets nothing live longer", t.Role, limit, t.Login.SecretIDTTL, machine.AuthAppRole),
			Hint: "run strongroom app apply on Vault's machine, which raises the limit",
		}
	}
	return nil
}

// bundleMark is the metadata by which the secret id of a bundle is known again.
const bundleMark = "bundle"

// endPatience is how long Vault may take to end what a caller has given up.
const endPatience = 30 * time.Second

// end ends the secret id of a bundle that makeBundle made and that came to
// nobody. That there is none is no error.
func (b Bundle) end(ctx context.Context, v Vault) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	role := "auth/approle/role/" + b.role
	err := b.endMarked(ctx, v, role)
	if err == nil {
		return nil
	}
	return &NeedsOperator{
		Err:  fmt.Errorf("a secret id of %q may be alive that nobody holds: %w", b.role, err),
		Hint: "vault list " + role + "/secret-id shows their accessors; end the newest with vault write " + role + "/secret-id-accessor/destroy secret_id_accessor=…",
	}
}

func (b Bundle) endMarked(ctx context.Context, v Vault, role string) error {
	accessors, err := v.List(ctx, role+"/secret-id")
	if err != nil {
		return err
	}
	for _, a := range accessors {
		body := map[string]any{"secret_id_accessor": a}
		got, err := v.Write(ctx, role+"/secret-id-accessor/lookup", body)
		if vaultapi.IsNotFound(err) { // ended meanwhile
			continue
		}
		if err != nil {
			return err
		}
		if mapOf(got["metadata"])[bundleMark] != b.mark {
			continue
		}
		_, err = v.Write(ctx, role+"/secret-id-accessor/destroy", body)
		return err
	}
	return nil
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

// ErrLost says that Vault has given the secret id, and that it did not arrive
// where it belongs.
var ErrLost = errors.New("the secret id was handed out, and is lost")

// openBundle fetches the secret id. That can be done once: ErrIntercepted
// means that somebody else may have it, ErrLost that nobody has.
func openBundle(ctx context.Context, v Vault, b Bundle) (secretID string, err error) {
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
	if vaultapi.IsUncertain(err) && ctx.Err() == nil {
		// Vault knows whether the token was used up; it was asked a moment ago.
		switch _, again := v.Write(ctx, "sys/wrapping/lookup", map[string]any{"token": b.WrappedSecret}); {
		case again == nil:
			got, err = v.Unwrap(ctx, b.WrappedSecret)
		case errors.Is(intercepted(again), ErrIntercepted):
			return "", fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	if err != nil {
		return "", intercepted(err)
	}
	if secretID = text(got, "secret_id"); secretID == "" {
		return "", fmt.Errorf("%w: it holds no secret id", ErrIntercepted)
	}
	return secretID, nil
}

func intercepted(err error) error {
	if vaultapi.Says(err, "wrapping token is not valid") || vaultapi.IsDenied(err) {
		return fmt.Errorf("%w: %w", ErrIntercepted, err)
	}
	return err
}
