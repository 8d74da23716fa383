package httpprov

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/theory/jsonpath"

	"strongroom.example/plugin/provider"
)

const (
	maxPath  = 256      // bytes of a JSONPath
	maxID    = 256      // bytes of a key's id
	maxValue = 16 << 10 // bytes of a key's value
)

// errAnswer is the root of every complaint about an answer. None quotes it.
var errAnswer = errors.New("the answer is not as declared")

func answerFault(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errAnswer, fmt.Sprintf(format, args...))
}

// path is a JSONPath (RFC 9535) with the text it was written as.
type path struct {
	source string
	expr   *jsonpath.Path
}

func parsePath(text string) (*path, error) {
	if len(text) > maxPath {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(text), maxPath)
	}
	if !strings.HasPrefix(text, "$") {
		return nil, fmt.Errorf("%q is no JSONPath: begin with $, as in \"$.id\"", text)
	}
	expr, err := jsonpath.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no JSONPath: %w", text, err)
	}
	return &path{source: text, expr: expr}, nil
}

// decode reads a whole JSON document and keeps numbers as they are written. What
// encoding/json would quietly make something else of is refused: a secret of another
// character set, and a field that is there twice.
func decode(body []byte) (any, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // as some services begin
	if !utf8.Valid(body) {
		return nil, answerFault("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, answerFault("it is no JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, answerFault("something follows the JSON document")
	}
	if hasTwice(body) {
		return nil, answerFault("an object in it has a field twice")
	}
	return v, nil
}

// hasTwice tells whether an object in a valid document has two fields of one name.
func hasTwice(body []byte) bool {
	type object struct {
		fields map[string]bool // nil: it is a list
		value  bool            // a field's name was read, its value comes
	}
	d := json.NewDecoder(bytes.NewReader(body))
	in := []object{{}}
	for {
		token, err := d.Token()
		if err != nil {
			return false // the end
		}
		top := &in[len(in)-1]
		if name, ok := token.(string); ok && top.fields != nil && !top.value {
			if top.fields[name] {
				return true
			}
			top.fields[name], top.value = true, true
			continue
		}
		switch token {
		case json.Delim('{'):
			in = append(in, object{fields: map[string]bool{}})
		case json.Delim('['):
			in = append(in, object{})
		case json.Delim('}'), json.Delim(']'):
			in = in[:len(in)-1]
			in[len(in)-1].value = false
		default:
			top.value = false
		}
	}
}

// one is the single value that p selects; ok is false where there is none.
func (p *path) one(doc any) (v any, ok bool, err error) {
	nodes := p.expr.Select(doc)
	switch len(nodes) {
	case 0:
		return nil, false, nil
	case 1:
		return nodes[0], true, nil
	}
	return nil, false, answerFault("%s selects %d values, not one", p.source, len(nodes))
}

// stringValue is a secret out of the answer.
func (p *path) stringValue(doc any) (string, error) {
	v, ok, err := p.one(doc)
	if err != nil {
		return "", err
	}
	s, isString := v.(string)
	switch {
	case !ok:
		return "", answerFault("%s selects nothing", p.source)
	case !isString:
		return "", answerFault("%s is no string", p.source)
	case s == "":
		return "", answerFault("%s is empty", p.source)
	case len(s) > maxValue:
		return "", answerFault("%s has more than %d bytes", p.source, maxValue)
	case strings.ContainsRune(s, utf8.RuneError): // half a pair, as \ud800
		return "", answerFault("%s holds what is no character", p.source)
	}
	return s, nil
}

// id is an identifier: a string or a whole number.
func (p *path) id(doc any) (string, error) {
	v, ok, err := p.one(doc)
	if err != nil {
		return "", err
	}
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case json.Number:
		s = v.String()
		if strings.ContainsAny(s, ".eE") {
			return "", answerFault("%s is a number that is not whole", p.source)
		}
	default:
		if !ok {
			return "", answerFault("%s selects nothing", p.source)
		}
		return "", answerFault("%s is neither a string nor a number", p.source)
	}
	switch {
	case s == "" || s == "." || s == "..":
		return "", answerFault("%s is empty or a dot", p.source)
	case len(s) > maxID:
		return "", answerFault("%s has more than %d bytes", p.source, maxID)
	case hasControl(s):
		return "", answerFault("%s holds a control character", p.source)
	}
	return s, nil
}

// list is an array. null counts as empty, because that is how Go services
// write a nil slice; an absent one does only where that was declared, or a
// wrong path would look like "no keys".
func (p *path) list(doc any, absence bool) ([]any, error) {
	v, ok, err := p.one(doc)
	if err != nil {
		return nil, err
	}
	if _, isTable := doc.(map[string]any); !ok && (!absence || !isTable) {
		return nil, answerFault("%s selects nothing", p.source)
	}
	if v == nil {
		return nil, nil
	}
	l, isList := v.([]any)
	if !isList {
		return nil, answerFault("%s is no list", p.source)
	}
	return l, nil
}

// text is a scalar as text; "" where it is absent or null.
func (p *path) text(doc any) string {
	if p == nil {
		return ""
	}
	v, ok, err := p.one(doc)
	if !ok || err != nil {
		return ""
	}
	s, _ := provider.ScalarText(v)
	return s
}

// condition wants a path to have a text.
type condition struct {
	path  *path
	value string
}

// differs tells whether doc has another value there; absent is no difference.
func (c condition) differs(doc any) (differs, present bool) {
	v, ok, err := c.path.one(doc)
	if err != nil || !ok {
		return false, false
	}
	s, _ := provider.ScalarText(v)
	return s != c.value, true
}
