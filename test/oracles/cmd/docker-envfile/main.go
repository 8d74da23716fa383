// Command docker-envfile reads files as docker run --env-file does, with the
// CLI's own parser, which is that of docker-compose's "format: raw" as well.
// Standard input: a JSON text per line, the content of a file. Standard output
// for each: {"values": {…}} or {"error": true}.
package main

import (
	"log"
	"os"
	"strings"

	"github.com/docker/cli/pkg/kvfile"

	"strongroom.example/test/oracles/lines"
)

type answer struct {
	Values map[string]string `json:"values"`
	Error  bool              `json:"error"`
}

func main() {
	if err := lines.Answer(os.Stdin, os.Stdout, read); err != nil {
		log.Fatal(err)
	}
}

func read(text string) answer {
	pairs, err := kvfile.ParseFromReader(strings.NewReader(text), nil)
	a := answer{Values: map[string]string{}, Error: err != nil}
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		a.Values[name] = value
	}
	return a
}
