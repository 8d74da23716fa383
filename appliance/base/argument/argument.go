// Package argument takes the file or folder that a command is about from its
// argument, in both programs; the flag that says the same stays for what was written
// before.
//
// It does not look whether there is such a file.
package argument

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
)

// One lets the command take one file or folder, as name calls it (FILE, FOLDER), in
// place of the flag, whose value is in to. Call it when the command is made.
func One(c *cobra.Command, name, flag string, to *string) {
	c.Use += " [" + name + "]"
	c.Args = cobra.MaximumNArgs(1)
	before(c, func(c *cobra.Command, args []string) error { return Take(c, args, flag, to) })
}

// Several is One for a flag that may be repeated.
func Several(c *cobra.Command, name, flag string, to *[]string) {
	c.Use += " [" + name + "...]"
	c.Args = cobra.ArbitraryArgs
	before(c, func(c *cobra.Command, args []string) error {
		if err := conflict(c, args, flag); err != nil || len(args) == 0 {
			return err
		}
		*to = args
		return nil
	})
}

// Take is One behind a command whose arguments are its own matter.
func Take(c *cobra.Command, args []string, flag string, to *string) error {
	if err := conflict(c, args, flag); err != nil || len(args) == 0 {
		return err
	}
	// By way of the flag: it may do more than keep the text.
	if f := c.Flags().Lookup(flag); f != nil {
		return f.Value.Set(args[0])
	}
	*to = args[0]
	return nil
}

func before(c *cobra.Command, take func(*cobra.Command, []string) error) {
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := take(c, args); err != nil {
			return err
		}
		return run(c, nil)
	}
}

// conflict refuses both, and an argument of no letters, which a script's empty
// variable leaves: what it is about would be the default.
func conflict(c *cobra.Command, args []string, flag string) error {
	usage := func(err error, hint string) error { return &fault.Error{Code: fault.Usage, Err: err, Hint: hint} }
	for _, arg := range args {
		if strings.TrimSpace(arg) == "" {
			return usage(fmt.Errorf("the argument %q names nothing", arg), "leave it out for the default of --"+flag)
		}
	}
	if len(args) > 0 && c.Flags().Changed(flag) {
		return usage(fmt.Errorf("--%s, and %q as the argument", flag, args[0]), "one of them")
	}
	return nil
}
