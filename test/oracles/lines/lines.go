// Package lines is how an oracle is asked: JSON strings come in, an answer to
// each goes out as JSON, in the same order.
package lines

import (
	"bufio"
	"encoding/json"
	"io"
)

// Answer gives reply's answer to each text of r to w.
func Answer[T any](r io.Reader, w io.Writer, reply func(text string) T) error {
	in := json.NewDecoder(r)
	buffered := bufio.NewWriter(w)
	out := json.NewEncoder(buffered)
	for in.More() {
		var text string
		if err := in.Decode(&text); err != nil {
			return err
		}
		if err := out.Encode(reply(text)); err != nil {
			return err
		}
	}
	return buffered.Flush()
}
