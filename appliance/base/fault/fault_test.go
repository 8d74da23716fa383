package fault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestReport(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, OK, ""},
		{errors.New("it broke"), Failed, "prog: it broke\n"},
		{&Error{Code: Drift, Err: errors.New("it differs")}, Drift, "prog: it differs\n"},
		{fmt.Errorf("step: %w", &Error{Code: Operator, Err: fs.ErrNotExist, Hint: "put it there"}), Operator, "prog: step: file does not exist\n  → put it there\n"},
	} {
		var out bytes.Buffer
		if code := Report(&out, "prog", c.err); code != c.code || out.String() != c.text {
			t.Errorf("%v: %d and %q, want %d and %q", c.err, code, out.String(), c.code, c.text)
		}
	}
	if !errors.Is(&Error{Err: fs.ErrNotExist}, fs.ErrNotExist) {
		t.Error("the fault is hidden")
	}
}
