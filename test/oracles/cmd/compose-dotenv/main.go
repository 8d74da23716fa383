// Command compose-dotenv reads .env files with docker-compose's own parser.
// Standard input: a JSON text per line, the content of a file. Standard output
// for each: {"values": {…}} or {"error": true}.
package main

import (
	"io"
	"log"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/sirupsen/logrus"

	"strongroom.example/test/oracles/lines"
)

type answer struct {
	Values map[string]string `json:"values"`
	Error  bool              `json:"error"`
}

func main() {
	logrus.SetOutput(io.Discard)
	if err := lines.Answer(os.Stdin, os.Stdout, read); err != nil {
		log.Fatal(err)
	}
}

func read(text string) answer {
	values, err := dotenv.Parse(strings.NewReader(text))
	return answer{Values: values, Error: err != nil}
}
