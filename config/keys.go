package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"strongroom.example/config/machine"
)

// Class says what becomes of a change to a key of appliance.toml on a machine that is
// installed.
type Class struct {
	// Restarts are the units that are restarted; none: it is in force without.
	Restarts []string
	// Procedure is what has to be done besides, or by another command; empty: nothing.
	Procedure string
	// Immutable: it can't be changed where Vault has data. Why it can't is Procedure.
	Immutable bool
}

// String is the class for people, behind a change; "" for one that is simply applied.
func (c Class) String() string {
	switch {
	case c.Immutable:
		return "can't be changed: " + c.Procedure
	case c.Procedure != "":
		return c.Procedure
	case len(c.Restarts) > 0:
		return "restarts " + strings.Join(c.Restarts, ", ")
	}
	return ""
}

func restarts(units ...string) Class { return Class{Restarts: units} }

// classes are those of all keys, by their path without indices; a table stands for the
// keys in it that do not stand here themselves.
var classes = map[string]Class{
	"domain":                  restarts(machine.UnitVault, machine.UnitFront),
	"email":                   restarts(machine.UnitFront),
	"node.id":                 {Immutable: true, Procedure: "raft knows this node by it"},
	"node.cluster_listen":     restarts(machine.UnitVault),
	"node.cluster_addr":       {Restarts: []string{machine.UnitVault}, Procedure: "restarts " + machine.UnitVault + "; raft keeps the address of its first day until it is told: docs/install.md, More nodes"},
	"node.peer":               restarts(machine.UnitVault),
	"vault.product":           {Immutable: true, Procedure: "neither reads the other's storage"},
	"vault.version":           {Procedure: "another program comes by strongroom-installer upgrade"},
	"vault.allow_old":         {},
	"vault.mirror":            {},
	"vault.ui":                restarts(machine.UnitVault, machine.UnitFront),
	"vault.log_level":         restarts(machine.UnitVault),
	"vault.default_lease_ttl": restarts(machine.UnitVault),
	"vault.max_lease_ttl":     restarts(machine.UnitVault),
	"tls":                     restarts(machine.UnitFront),
	"escrow.recipients":       {Procedure: "the master key is put in escrow for them; recovery keys and the administrator's password stay with whom they were made for (docs/escrow.md)"},
	"escrow.shares":           {Immutable: true, Procedure: "Vault has split its recovery key; vault operator rekey -target=recovery does so anew, and then this number is the new one"},
	"escrow.threshold":        {Immutable: true, Procedure: "Vault has split its recovery key; vault operator rekey -target=recovery does so anew, and then this number is the new one"},
	"unseal.seal":             restarts(machine.UnitKMS),
	"firewall":                {},
	"backup":                  {},
	"alert":                   {},
	"audit":                   {},
}

// ClassOf gives the class of a key, such as "backup.to[0].path"; false where it has none.
func ClassOf(key string) (Class, bool) {
	key = withoutIndices(key)
	for {
		if c, ok := classes[key]; ok {
			return c, true
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return Class{}, false
		}
		key = key[:i]
	}
}

func withoutIndices(key string) string {
	var b strings.Builder
	in := false
	for _, r := range key {
		switch {
		case r == '[':
			in = true
		case r == ']':
			in = false
		case !in:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// KeyChange is one key that two configurations have differently.
type KeyChange struct {
	Key      string // "backup.to[0].path"
	From, To string // as they are written; "" for what is not there
	Class    Class
}

// String is the change for people. What looks like a password is hidden in it.
func (c KeyChange) String() string {
	s := fmt.Sprintf("%s: %s → %s", c.Key, orNone(c.From), orNone(c.To))
	if class := c.Class.String(); class != "" {
		s += " (" + class + ")"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "not there"
	}
	return s
}

// Changes are the keys in which two configurations differ, in the file's order.
func Changes(from, to Appliance) []KeyChange {
	was, is := map[string]string{}, map[string]string{}
	var keys []string
	flatten(reflect.ValueOf(to), "", is, &keys)
	flatten(reflect.ValueOf(from), "", was, &keys)
	var out []KeyChange
	for i, k := range keys {
		if slices.Contains(keys[:i], k) || was[k] == is[k] {
			continue
		}
		c, _ := ClassOf(k)
		out = append(out, KeyChange{k, was[k], is[k], c})
	}
	return out
}

// Keys are the paths of all keys, with [0] where a table may stand several times.
func Keys() []string {
	full := Appliance{Node: Node{Peers: []Peer{{}}}, Backup: Backup{To: []BackupTo{{}}}}
	var keys []string
	flatten(reflect.ValueOf(full), "", map[string]string{}, &keys)
	return keys
}

// flatten writes down the keys below v, tables apart, each with its value.
func flatten(v reflect.Value, at string, into map[string]string, keys *[]string) {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("toml")
			if at != "" {
				name = at + "." + name
			}
			flatten(v.Field(i), name, into, keys)
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			flatten(v.Index(i), fmt.Sprintf("%s[%d]", at, i), into, keys)
		}
	default:
		*keys = append(*keys, at)
		into[at] = written(v)
	}
}

// written is a value as the file has it, without what may be a password.
func written(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case []string:
		var out []string
		for _, s := range x {
			out = append(out, shown(s))
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	if v.Kind() == reflect.String {
		return shown(v.String())
	}
	return fmt.Sprint(v.Interface())
}
