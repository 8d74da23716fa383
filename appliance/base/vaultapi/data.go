package vaultapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Data is what Vault has answered with. Each of its fields is taken with the
// type that it must have: one that is absent, or of another type, is an error
// and never a zero. Errors name the field and never its value.
type Data map[string]any

// Has says whether there is a field, and it is not null.
func (d Data) Has(field string) bool { return d[field] != nil }

// Text is a string field.
func (d Data) Text(field string) (string, error) { return take[string](d, field, "a text") }

// Bool is a field that is true or false.
func (d Data) Bool(field string) (bool, error) { return take[bool](d, field, "true or false") }

// Number is a whole number.
func (d Data) Number(field string) (int64, error) {
	n, err := take[json.Number](d, field, "a number")
	if err != nil {
		return 0, err
	}
	i, err := n.Int64()
	if err != nil {
		return 0, fmt.Errorf("%q in Vault's answer is no whole number", field)
	}
	return i, nil
}

// Time is a moment, as RFC 3339.
func (d Data) Time(field string) (time.Time, error) {
	s, err := d.Text(field)
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q in Vault's answer is no time", field)
	}
	return t, nil
}

// Map is a field that has fields.
func (d Data) Map(field string) (Data, error) {
	m, err := take[map[string]any](d, field, "an object")
	return m, err
}

// Strings is a list of texts, which may be empty.
func (d Data) Strings(field string) ([]string, error) {
	if s, ok := d[field].([]string); ok { // data that did not come as JSON
		return s, nil
	}
	list, err := take[[]any](d, field, "a list")
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(list))
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%q in Vault's answer holds what is no text", field)
		}
		out = append(out, s)
	}
	return out, nil
}

// Into decodes all of it into v, as encoding/json does.
func (d Data) Into(v any) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return errors.New("the answer cannot be written as JSON")
	}
	return decode(raw, v)
}

func take[T any](d Data, field, what string) (T, error) {
	v, ok := d[field].(T)
	switch {
	case d[field] == nil:
		return v, fmt.Errorf("the answer of Vault has no %q", field)
	case !ok:
		return v, fmt.Errorf("%q in Vault's answer is not %s", field, what)
	}
	return v, nil
}
