// Command gitleaks looks for secrets with gitleaks' own detector and its own
// rules. Standard input: a JSON text per line. Standard output for each: the
// ids of the rules that found something, sorted. With the argument "rules" it
// prints the rule file instead.
package main

import (
	"io"
	"log"
	"os"
	"slices"

	"github.com/rs/zerolog"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"

	"strongroom.example/test/oracles/lines"
)

func main() {
	zerolog.SetGlobalLevel(zerolog.Disabled)
	if len(os.Args) == 2 && os.Args[1] == "rules" {
		if _, err := io.WriteString(os.Stdout, config.DefaultConfig); err != nil {
			log.Fatal(err)
		}
		return
	}
	d, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		log.Fatal(err)
	}
	err = lines.Answer(os.Stdin, os.Stdout, func(text string) []string {
		ids := []string{}
		for _, f := range d.DetectString(text) {
			ids = append(ids, f.RuleID)
		}
		slices.Sort(ids)
		return slices.Compact(ids)
	})
	if err != nil {
		log.Fatal(err)
	}
}
