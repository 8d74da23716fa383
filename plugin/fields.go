package apikeys

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// Bounds of names.
const (
	maxKeyName      = 256
	maxKeySegments  = 16
	maxProviderName = 64
	maxPage         = 10_000
)

// Patterns of paths. A key's name may hold slashes, so it takes the rest of
// the path; what it may look like checkKeyName says with a better message.
const (
	namePattern     = `(?P<name>.*[^/])`
	folderPattern   = `(?:/|/(?P<folder>.+)/)`
	providerPattern = `(?P<name>[^/]+)`
)

// checkKeyName allows segments of [a-zA-Z0-9_.-], joined by single slashes.
func checkKeyName(name string) error {
	const hint = "1 to 16 parts of a-z, A-Z, 0-9, _, . and -, joined by single slashes, at most 256 bytes"
	segments := strings.Split(name, "/")
	if name == "" || len(name) > maxKeyName || len(segments) > maxKeySegments {
		return refuse(hint, "key name %.300q", name)
	}
	for _, s := range segments {
		if s == "" || s == "." || s == ".." || strings.IndexFunc(s, notNameRune) >= 0 {
			return refuse(hint, "key name %q: %q is not allowed", name, s)
		}
	}
	return nil
}

func checkProviderName(name string) error {
	if name == "" || len(name) > maxProviderName || name == "." || name == ".." || strings.IndexFunc(name, notNameRune) >= 0 {
		return refuse("1 to 64 of a-z, A-Z, 0-9, _, . and -", "provider name %.100q", name)
	}
	return nil
}

func notNameRune(r rune) bool {
	return !(('a' <= r && r <= 'z') || ('A' <= r && r <= 'Z') || ('0' <= r && r <= '9') || strings.ContainsRune("_.-", r))
}

func nameField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: "Name of the key; it may hold slashes, as in app/environment/name."}
}

func keyName(d *framework.FieldData) (string, error) {
	name := d.Get("name").(string)
	return name, checkKeyName(name)
}

// seconds is a duration as it goes out: whole seconds.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// stamp is a time as it goes out: RFC 3339 in UTC, or null.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// text is a time as events carry it.
func text(t time.Time) string { return fmt.Sprint(stamp(t)) }

func itoa(n int) string { return strconv.Itoa(n) }

// count is n things, as people say it.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// takeDuration reads a field of seconds into where it belongs, if it is there.
func takeDuration(d *framework.FieldData, field string, to *time.Duration) error {
	v, ok, err := d.GetOkErr(field)
	if err != nil {
		return refuse("", "%s: %v", field, err)
	}
	if ok {
		*to = time.Duration(v.(int)) * time.Second
	}
	return nil
}

func takeInt(d *framework.FieldData, field string, to *int) {
	if v, ok := d.GetOk(field); ok {
		*to = v.(int)
	}
}

func takeString(d *framework.FieldData, field string, to *string) bool {
	v, ok := d.GetOk(field)
	if ok {
		*to = v.(string)
	}
	return ok
}

func takeBool(d *framework.FieldData, field string, to *bool) {
	if v, ok := d.GetOk(field); ok {
		*to = v.(bool)
	}
}

// unpackMap lets a field of type map be written on the command line too: as a
// JSON object (settings=@file.json) or as one or more name=value.
func unpackMap(req *logical.Request, field string) error {
	raw, ok := req.Data[field]
	if !ok {
		return nil
	}
	var items []string
	switch v := raw.(type) {
	case string:
		if strings.TrimSpace(v) == "" {
			req.Data[field] = map[string]any{}
			return nil
		}
		items = []string{v}
	case []any:
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return refuse("write an object, or name=value", "%s: a list of other things than text", field)
			}
			items = append(items, s)
		}
	default:
		return nil
	}
	out := map[string]any{}
	for _, item := range items {
		if strings.HasPrefix(strings.TrimSpace(item), "{") {
			if err := decodeJSON([]byte(item), &out); err != nil {
				return refuse("write a JSON object", "%s: %v", field, hideJSON(err))
			}
			continue
		}
		name, value, ok := strings.Cut(item, "=")
		if !ok {
			return refuse("write a JSON object, or name=value", "%s: neither of the two", field)
		}
		out[name] = value // text stays text: who wants a number reads one out of it
	}
	req.Data[field] = out
	return nil
}

// decodeJSON is the only way in which JSON is read: exactly one value, and numbers
// as they are written, since a float would change the digits of a secret.
func decodeJSON(raw []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return &json.SyntaxError{Offset: d.InputOffset()}
	}
	return nil
}

func stringMap(in map[string]any, field string) (map[string]string, error) {
	out := make(map[string]string, len(in))
	for k, v := range in {
		text, ok := provider.ScalarText(v)
		if !ok {
			return nil, refuse("", "%s: %q must be text", field, k)
		}
		out[k] = text
	}
	return out, nil
}

// listing is a LIST of keys, page by page.
func (b *backend) listing(what, pattern string) *framework.Path {
	return &framework.Path{
		Pattern: pattern + folderPattern,
		Fields: map[string]*framework.FieldSchema{
			"folder": {Type: framework.TypeString, Description: "List only what lies under this folder."},
			"after":  {Type: framework.TypeString, Query: true, Description: "Begin after this entry: the last one of the page before."},
			"limit":  {Type: framework.TypeInt, Query: true, Description: "At most so many entries; 0: all."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: b.reads(b.handleList, "List "+what+"."),
		},
		HelpSynopsis:    "List " + what + ".",
		HelpDescription: "Lists what lies directly under the folder; a deeper folder has a slash at its end. With limit and after it is read page by page; it is answered from memory.",
	}
}
