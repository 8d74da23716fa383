package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
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

// operation adapts a handler to the framework: fields that the path does not
// know are refused, and refusals become responses.
func operation(h framework.OperationFunc) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		if err := knownFields(req, d); err != nil {
			return logical.ErrorResponse(err.Error()), nil
		}
		resp, err := h(ctx, req, d)
		var r *refusal
		if errors.As(err, &r) {
			return logical.ErrorResponse(err.Error()), nil
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
