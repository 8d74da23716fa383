package apikeys

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// refusal is a caller's mistake: what is wrong, and what to do about it. It
// becomes a 400. Every other error is the engine's or the provider's fault.
type refusal struct {
	msg  string
	hint string
}

func (r *refusal) Error() string {
	if r.hint == "" {
		return r.msg
	}
	return r.msg + ": " + r.hint
}

func refuse(hint, format string, args ...any) error {
	return &refusal{msg: fmt.Sprintf(format, args...), hint: hint}
}

// fault is a provider's error: what was to be done, and why it was not.
type fault struct {
	what string
	err  error // nil: the provider has said nothing
}

func (f *fault) Error() string {
	if f.err == nil {
		return f.what
	}
	return f.what + ": " + publicMessage(f.err)
}

func (f *fault) Unwrap() error { return f.err }

// isAnswer tells whether an error is one for the caller: nothing is wrong with what
// is known of the key.
func isAnswer(err error) bool {
	var r *refusal
	var f *fault
	return errors.As(err, &r) || errors.As(err, &f)
}

// operation adapts a handler to the framework: fields that the path does not
// know are refused, and errors become answers, here and nowhere else. A provider's
// fault is a 424, and a 400 where the provider refuses the request as it is: what
// Vault's own client repeats (5xx, 429) would mint a second key.
func operation(h framework.OperationFunc) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		if err := knownFields(req, d); err != nil {
			return logical.ErrorResponse(err.Error()), nil
		}
		resp, err := h(ctx, req, d)
		var r *refusal
		var f *fault
		switch {
		case errors.As(err, &f) && provider.KindOf(f.err) == provider.KindRejected:
			return logical.ErrorResponse(f.Error()), nil
		case errors.As(err, &f):
			return nil, logical.CodedError(http.StatusFailedDependency, f.Error())
		case errors.As(err, &r):
			return logical.ErrorResponse(err.Error()), nil
		case errors.Is(err, errNoKey):
			name, _ := d.Raw["name"].(string)
			return logical.ErrorResponse(fmt.Sprintf("there is no key %q: write keys/%s first", name, name)), nil
		}
		return resp, err
	}
}

func knownFields(req *logical.Request, d *framework.FieldData) error {
	var unknown []string
	for name := range req.Data {
		if _, ok := d.Schema[name]; !ok {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	known := make([]string, 0, len(d.Schema))
	for name := range d.Schema {
		known = append(known, name)
	}
	slices.Sort(known)
	return refuse("known are "+strings.Join(known, ", "), "unknown field %q", unknown)
}
