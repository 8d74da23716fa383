// Command gitleaks looks for secrets with gitleaks' own detector and its own
// rules. Standard input: a JSON text per line. Standard output for each: the
// ids of the rules that found something, sorted. With the argument "rules" it
// prints the rule file instead.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"os"
	"slices"

	"github.com/rs/zerolog"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"
)

func main() {
	zerolog.SetGlobalLevel(zerolog.Disabled)
	if len(os.Args) == 2 && os.Args[1] == "rules" {
		if _, err := io.WriteString(os.Stdout, config.DefaultConfig); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := run(os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(r io.Reader, w io.Writer) error {
	d, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		return err
	}
	in := json.NewDecoder(r)
	buffered := bufio.NewWriter(w)
	out := json.NewEncoder(buffered)
	for in.More() {
		var text string
		if err := in.Decode(&text); err != nil {
			return err
		}
		ids := []string{}
		for _, f := range d.DetectString(text) {
			ids = append(ids, f.RuleID)
		}
		slices.Sort(ids)
		if err := out.Encode(slices.Compact(ids)); err != nil {
			return err
		}
	}
	return buffered.Flush()
}
