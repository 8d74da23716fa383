package dotenv

import "fmt"

// Difference is a variable that the two dialects read otherwise.
type Difference struct {
	Name string // empty where one of them does not read the file at all
	Line int    // from 1
	Why  string // never a value
}

// Differences compares both readings of a file, in the order of its lines.
func Differences(data []byte) []Difference {
	python, perr := readAll(data, Python)
	compose, cerr := readAll(data, Compose)
	switch {
	case perr != nil && cerr != nil:
		return nil
	case perr != nil:
		return []Difference{{Line: errorLine(perr), Why: "docker-compose reads the file and python-dotenv does not"}}
	case cerr != nil:
		return []Difference{{Line: errorLine(cerr), Why: "python-dotenv reads the file and docker-compose does not"}}
	}
	var out []Difference
	other := map[string]Variable{}
	for _, v := range compose {
		other[v.Name] = v
	}
	for _, v := range python {
		c, ok := other[v.Name]
		delete(other, v.Name)
		switch {
		case v.Set && (!ok || !c.Set):
			out = append(out, Difference{v.Name, v.Line, "python-dotenv gives it a value and docker-compose gives none"})
		case !v.Set && ok && c.Set:
			out = append(out, Difference{v.Name, v.Line, "docker-compose gives it a value and python-dotenv gives none"})
		case v.Set && v.Value != c.Value:
			out = append(out, Difference{v.Name, v.Line, fmt.Sprintf("python-dotenv reads %d bytes, docker-compose %d", len(v.Value), len(c.Value))})
			if len(v.Value) == len(c.Value) {
				out[len(out)-1].Why = "python-dotenv and docker-compose read different values of the same length"
			}
		}
	}
	for _, v := range compose {
		if c, ok := other[v.Name]; ok && c.Set {
			out = append(out, Difference{v.Name, v.Line, "docker-compose reads this variable and python-dotenv does not"})
		}
	}
	return out
}

func readAll(data []byte, d Dialect) ([]Variable, error) {
	f, err := Parse(data, d)
	if err != nil {
		return nil, err
	}
	return f.Resolve(nil)
}

// errorLine is the first line that an error of Parse or Resolve names.
func errorLine(err error) int {
	if e, ok := err.(*LineError); ok {
		return e.Line
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			if n := errorLine(e); n > 0 {
				return n
			}
		}
	}
	return 0
}
