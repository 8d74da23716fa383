package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// DecodePair reads a file of two secret texts, such as a user's name and
// password, by their names; both must be there, and nothing else. Its error quotes
// nothing of data, and is none of Faults: those are the configuration's own, and
// not of a file that it names. A key is named only where it is one of the
// two or nearly so: what else stands before a sign of equality may be a secret
// that ends with one.
func DecodePair(file string, data []byte, first, second string) (a, b string, err error) {
	texts, err := decodeTexts(file, data, []string{first, second}, 2)
	return texts[0], texts[1], err
}

// DecodePairAnd is DecodePair with a third text that may be missing.
func DecodePairAnd(file string, data []byte, first, second, may string) (a, b, c string, err error) {
	texts, err := decodeTexts(file, data, []string{first, second, may}, 2)
	return texts[0], texts[1], texts[2], err
}

// decodeTexts wants the first so many of some names, and takes the others.
func decodeTexts(file string, data []byte, names []string, wanted int) (texts [3]string, err error) {
	first, second := names[0], names[1]
	var fields []reflect.StructField
	for i, name := range names {
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("Text%d", i), Type: reflect.TypeFor[string](), Tag: reflect.StructTag(fmt.Sprintf("toml:%q", name)),
		})
	}
	into := reflect.New(reflect.StructOf(fields))
	at, faults := Decode(file, data, into.Interface())
	for i, f := range faults {
		switch near := nearest(f.Field, names)[0]; {
		case at == nil && strings.HasPrefix(f.Msg, "Key "):
			faults[i].Msg = "a key stands there twice"
		case at == nil:
			faults[i].Msg += fmt.Sprintf("; wanted are the lines %s = \"…\" and %s = \"…\"", first, second)
		case !slices.Contains(names, f.Field) && distance(f.Field, near) > 3:
			faults[i].Field = ""
		}
	}
	if at != nil {
		check := faults.Check(file, at)
		for i, name := range names {
			switch {
			case i >= wanted && at[name] == 0:
			case into.Elem().Field(i).String() != "":
			case at[name] == 0:
				check(name, errors.New("is missing"))
			case len(faults) == 0:
				check(name, errors.New("is empty"))
			}
		}
	}
	if err := faults.Err(); err != nil {
		return texts, errors.New(err.Error())
	}
	for i := range names {
		texts[i] = into.Elem().Field(i).String()
	}
	return texts, nil
}
