package apps

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom.example/config"
)

// Kinds of objects, in the order in which they are made; removal goes
// backwards.
const (
	kindMount      = "mount"
	kindLimit      = "limit" // of a mount: how long what it gives may live
	kindConnection = "database"
	kindPolicy     = "policy"
	kindDBRole     = "database role"
	kindStaticRole = "static database role"
	kindKey        = "api key"
	kindSecret     = "secret"
	kindAppRole    = "approle"
	kindAuth       = "auth method"
	kindAuthEntry  = "login"
)

var kindOrder = []string{kindMount, kindLimit, kindConnection, kindPolicy, kindDBRole, kindStaticRole, kindKey, kindSecret, kindAppRole, kindAuth, kindAuthEntry}

// markKey is the field by which connections, keys and secrets carry the name of
// the manifest that made them.
const markKey = "strongroom_manifest"

// object is one thing in Vault as it should be.
type object struct {
	kind string
	name string
	app  string // empty: of the manifest as a whole
	path string
	// fields is its row in fieldTable; empty: it has none.
	fields string
	// want is what a read must show; write what is sent, where that differs.
	want, write map[string]any
	// secrets adds what can't be read back; called only when it is needed.
	secrets func() (map[string]any, error)
	// shared: it is made where it is missing, and otherwise left alone.
	shared bool
	// resend: secrets can be sent again on request.
	resend bool
	// note is for a person, before it is made.
	note string
	// refusal gives what to do about an error of Vault's; empty: nothing is known.
	refusal func(error) string
	// missing says what must be there first; empty: nothing is missing.
	missing string
	// blocked says what else keeps it from being made; empty: nothing.
	blocked string
	// replaced is a field that Vault doesn't change: the object is made anew.
	replaced string
}

func (o object) id() string { return o.kind + "/" + o.name }

// ownerOf reads the mark that an object carries itself. known is false for
// kinds that can't carry one; the ledger decides there.
func ownerOf(kind string, got map[string]any) (manifest string, known bool) {
	switch kind {
	case kindPolicy:
		m, _, _ := config.ParsePolicyMark(text(got, "policy"))
		return m, true
	case kindConnection:
		details, _ := got["connection_details"].(map[string]any)
		return text(details, markKey), true
	case kindKey, kindSecret:
		meta, _ := got["custom_metadata"].(map[string]any)
		return text(meta, markKey), true
	}
	return "", false
}

// shown is what a read says, in the terms of object.want.
func shown(kind string, got map[string]any) map[string]any {
	if kind != kindConnection {
		return got
	}
	// Vault shows the last by another name than it takes.
	out := map[string]any{"root_rotation_statements": got["root_credentials_rotate_statements"]}
	for k, v := range got {
		if k != "connection_details" && k != "root_credentials_rotate_statements" {
			out[k] = v
		}
	}
	details, _ := got["connection_details"].(map[string]any)
	for k, v := range details {
		out[k] = v
	}
	return out
}

// Field is a difference in one field.
type Field struct {
	Name     string `json:"name"`
	From, To string `json:"-"`

	// absent: the file says nothing of it.
	absent bool
}

// differences are the fields in which got isn't as wanted. Of a default it asks only
// where the server shows the field: others' servers have fewer.
func differences(want, absent, got map[string]any) []Field {
	var out []Field
	compare := func(k string, w any, absent bool) {
		if a, b := canonical(k, w), canonical(k, got[k]); a != b {
			out = append(out, Field{Name: k, From: b, To: a, absent: absent})
		}
	}
	for k, w := range want {
		compare(k, w, false)
	}
	for k, w := range absent {
		if v, shown := got[k]; shown && v != nil {
			compare(k, w, true)
		}
	}
	slices.SortFunc(out, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// ordered are the lists whose order means something.
var ordered = map[string]bool{"creation_statements": true, "renew_statements": true, "revocation_statements": true, "rotation_statements": true}

// canonical writes a value so that what Vault answers equals what was sent:
// durations as seconds, nothing as the zero value, sets sorted.
func canonical(field string, v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		if !v {
			return ""
		}
		return "true"
	case time.Duration:
		return number(strconv.FormatInt(int64(v/time.Second), 10))
	case json.Number:
		return number(v.String())
	case int:
		return number(strconv.Itoa(v))
	case map[string]any:
		if len(v) == 0 {
			return ""
		}
	case int64:
		return number(strconv.FormatInt(v, 10))
	case float64:
		return number(strconv.FormatFloat(v, 'f', -1, 64))
	case []string, []any:
		list := slices.Clone(stringsOf(v))
		if !ordered[field] {
			for i := range list {
				list[i] = oneAddress(list[i])
			}
			slices.Sort(list)
		}
		return strings.Join(list, "\n")
	}
	b, err := json.Marshal(v) // maps: sorted by key
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// oneAddress is a range of one address as Vault shows it, without its length;
// anything else is itself.
func oneAddress(s string) string {
	if p, err := netip.ParsePrefix(s); err == nil && p.IsSingleIP() {
		return p.Addr().String()
	}
	return s
}

func number(s string) string {
	if s == "0" {
		return ""
	}
	return s
}

// wire is data as Vault takes it: durations in seconds.
func wire(data map[string]any) map[string]any {
	out := make(map[string]any, len(data))
	for k, v := range data {
		if d, ok := v.(time.Duration); ok {
			v = int64(d / time.Second)
		}
		out[k] = v
	}
	return out
}
