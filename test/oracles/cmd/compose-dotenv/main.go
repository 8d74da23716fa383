// Command compose-dotenv reads .env files with docker-compose's own parser.
// Standard input: a JSON text per line, the content of a file. Standard output
// for each: {"values": {…}} or {"error": true}.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/sirupsen/logrus"
)

type answer struct {
	Values map[string]string `json:"values"`
	Error  bool              `json:"error"`
}

func main() {
	logrus.SetOutput(io.Discard)
	if err := run(os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(r io.Reader, w io.Writer) error {
	in := json.NewDecoder(r)
	buffered := bufio.NewWriter(w)
	out := json.NewEncoder(buffered)
	for in.More() {
		var text string
		if err := in.Decode(&text); err != nil {
			return err
		}
		values, err := dotenv.Parse(strings.NewReader(text))
		if err := out.Encode(answer{Values: values, Error: err != nil}); err != nil {
			return err
		}
	}
	return buffered.Flush()
}
