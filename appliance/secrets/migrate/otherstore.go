package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"strongroom.example/appliance/secrets/dotenv"
)

// OtherStore is the name, in a plan, of what another store has printed: it is
// no file of the tree, and is given anew to each step that needs its values.
const OtherStore = "-"

// ReadOtherStore reads what another store prints, to its end, and no more than
// can be a file of variables.
func ReadOtherStore(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, dotenv.MaxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the export: %w", err)
	case len(data) > dotenv.MaxSize:
		return nil, fmt.Errorf("the export has more than %d bytes", dotenv.MaxSize)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("the export is empty")
	}
	return data, nil
}

// readOtherStore gives the variables of an export: a JSON object of texts, as
// Doppler, AWS and sops print it, a list of objects with key and value, as
// Infisical does, or lines of NAME=VALUE.
func readOtherStore(data []byte, d dotenv.Dialect) ([]dotenv.Variable, []Problem) {
	trimmed := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '[' {
		return readDotenv(source{OtherStore, data}, d)
	}
	vars, err := flatJSON(trimmed)
	if err != nil {
		return nil, []Problem{{File: OtherStore, Why: err.Error(), Fatal: true}}
	}
	return vars, nil
}

func isJSONExport(data []byte) bool {
	trimmed := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n")
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[')
}

// flatReader reads JSON token by token: names that stand twice are seen, and
// numbers keep their digits.
type flatReader struct {
	dec  *json.Decoder
	seen map[string]bool
	vars []dotenv.Variable
	errs []error
}

// flatJSON reads an object or a list. Its errors name paths and no value.
func flatJSON(data []byte) ([]dotenv.Variable, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the export is not UTF-8")
	}
	r := &flatReader{dec: json.NewDecoder(bytes.NewReader(data)), seen: map[string]bool{}}
	r.dec.UseNumber()
	if err := r.document(); err != nil {
		return nil, fmt.Errorf("the export is no JSON that is well formed, near byte %d", r.dec.InputOffset())
	}
	if bytes.Contains(data, []byte("\"ARN\"")) && r.seen["SecretString"] {
		return nil, errors.New("this is the whole answer of AWS Secrets Manager: print its secret alone, by aws secretsmanager get-secret-value --query SecretString --output text")
	}
	return r.vars, errors.Join(r.errs...)
}

func (r *flatReader) document() error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		err = r.object()
	case json.Delim('['):
		err = r.list()
	}
	if err != nil {
		return err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

// object is NAME: value.
func (r *flatReader) object() error {
	for r.dec.More() {
		name, err := r.name()
		if err != nil {
			return err
		}
		value, err := r.value(name)
		if err != nil {
			return err
		}
		r.add(name, value)
	}
	_, err := r.dec.Token()
	return err
}

func (r *flatReader) name() (string, error) {
	t, err := r.dec.Token()
	if err != nil {
		return "", err
	}
	return t.(string), nil // the decoder takes nothing else there
}

// list is of objects that have a key and a value, as Infisical prints them;
// what else they say of a secret is passed over.
func (r *flatReader) list() error {
	for n := 0; r.dec.More(); n++ {
		var item map[string]json.RawMessage
		if err := r.dec.Decode(&item); err != nil {
			var kind *json.UnmarshalTypeError
			if !errors.As(err, &kind) {
				return err
			}
			r.errs = append(r.errs, fmt.Errorf("[%d] is no object with key and value", n))
			continue
		}
		var name string
		if err := json.Unmarshal(item["key"], &name); err != nil || item["value"] == nil {
			r.errs = append(r.errs, fmt.Errorf("[%d] is no object with key and value", n))
			continue
		}
		inner := &flatReader{dec: json.NewDecoder(bytes.NewReader(item["value"]))}
		inner.dec.UseNumber()
		value, err := inner.value(name)
		if err != nil {
			return err
		}
		r.errs = append(r.errs, inner.errs...)
		r.add(name, value)
	}
	_, err := r.dec.Token()
	return err
}

// value is a text, a number with its digits as they stand, or a boolean. What
// has more inside is an error with its path, and is read past.
func (r *flatReader) value(path string) (*string, error) {
	t, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	text := ""
	switch t := t.(type) {
	case string:
		text = t
	case json.Number:
		text = t.String()
	case bool:
		text = fmt.Sprint(t)
	case nil:
		r.errs = append(r.errs, fmt.Errorf("%s is null: give it a text, or leave it out", path))
		return nil, nil
	case json.Delim:
		inside, err := r.inside(path, t)
		if err != nil {
			return nil, err
		}
		r.errs = append(r.errs, fmt.Errorf("%s is not flat: a variable has one text", inside))
		return nil, nil
	}
	switch {
	case strings.IndexByte(text, 0) >= 0:
		r.errs = append(r.errs, fmt.Errorf("%s holds a NUL, which no environment variable can", path))
		return nil, nil
	case strings.ContainsRune(text, utf8.RuneError):
		r.errs = append(r.errs, fmt.Errorf("%s holds half a character, or one that stands for what could not be read", path))
		return nil, nil
	}
	return &text, nil
}

// inside reads past a tree, and gives the path of its first inner value.
func (r *flatReader) inside(path string, open json.Delim) (first string, err error) {
	if open == '[' {
		first = path + "[0]"
	}
	for n := 0; r.dec.More(); n++ {
		if open == '{' {
			name, err := r.name()
			if err != nil {
				return "", err
			}
			if n == 0 {
				first = path + "." + name
			}
		}
		var past json.RawMessage
		if err := r.dec.Decode(&past); err != nil {
			return "", err
		}
	}
	if first == "" {
		first = path
	}
	_, err = r.dec.Token()
	return first, err
}

func (r *flatReader) add(name string, value *string) {
	switch {
	case r.seen[name]:
		r.errs = append(r.errs, fmt.Errorf("%q stands there twice", name))
	case !readsAs.MatchString(name):
		r.errs = append(r.errs, fmt.Errorf("%q is no name for an environment variable", name))
	case value != nil:
		r.vars = append(r.vars, dotenv.Variable{Name: name, Value: *value, Set: true, Line: len(r.vars) + 1})
	}
	r.seen[name] = true
}

// aboutStore are what a store says of itself among the secrets.
func aboutStore(name string) bool {
	switch name {
	case "DOPPLER_PROJECT", "DOPPLER_CONFIG", "DOPPLER_ENVIRONMENT":
		return true
	}
	return false
}
