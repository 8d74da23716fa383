package cli

import (
	"fmt"
	"io"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/migrate"
)

// printRemains says what a search of the tree has found. Nothing is said to be
// gone that was not looked for.
//
// waiting are the variables that are still to be cut over: the search is that of
// the tree without them.
func printRemains(w io.Writer, r migrate.Remains, waiting int) {
	for _, u := range r.Uses {
		fmt.Fprintf(w, "use: %s\n", u)
	}
	for _, l := range r.Left {
		fmt.Fprintf(w, "left: %s\n", l)
	}
	for _, p := range r.NotLookedAt {
		fmt.Fprintf(w, "not looked at: %s\n", p)
	}
	for _, n := range r.NotSearched {
		fmt.Fprintf(w, "not searched for: %s\n", n)
	}
	how := fmt.Sprintf("%s searched for %s", words.Count(r.Files, "file"), words.Count(r.Values, "value"))
	if len(r.NotSearched) > 0 {
		how += fmt.Sprintf(", and not for %d", len(r.NotSearched))
	}
	if len(r.NotLookedAt) > 0 {
		how += fmt.Sprintf("; not looked at: %s", words.Count(len(r.NotLookedAt), "place"))
	}
	none := "no .env file"
	if waiting > 0 {
		none = fmt.Sprintf("not cut over yet: %s; beside that, no .env file", words.Count(waiting, "variable"))
	}
	switch {
	case r.Values == 0:
		fmt.Fprintln(w, how)
	case r.InEnvFiles():
		fmt.Fprintf(w, "a moved value still stands at %s, .env files among them; %s\n", words.Count(len(r.Left), "place"), how)
	case len(r.Left) > 0:
		fmt.Fprintf(w, "%s holds a moved secret that was searched for, but one stands at %s elsewhere; %s\n", none, words.Count(len(r.Left), "place"), how)
	case len(r.NotSearched) > 0 || len(r.NotLookedAt) > 0:
		fmt.Fprintf(w, "%s holds a moved secret that was searched for, nor does another file that was looked at; %s\n", none, how)
	default:
		more := " any more"
		if waiting > 0 {
			more = ""
		}
		fmt.Fprintf(w, "%s holds a moved secret%s, nor does another file; %s\n", none, more, how)
	}
}
