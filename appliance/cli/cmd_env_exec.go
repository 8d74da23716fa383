package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/secrets/appenv"
)

func envExecCommand(o *envOptions) *cobra.Command {
	var only, keepToken bool
	c := &cobra.Command{
		Use:   "exec -- COMMAND [ARGUMENT...]",
		Short: "Run a program with an app's secrets in its environment",
		Long: `Reads the secrets, and becomes the program: signals and the exit code are the
program's own. A variable that is set already is replaced. The token of Vault
(VAULT_TOKEN) is taken out of the environment.`,
		Example: "  strongroom env exec --app bike-data-flow --env production -- python -m bikes.load",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := exec.LookPath(args[0])
			if err != nil {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("command %q: %w", args[0], errors.Unwrap(err)), Hint: "give the program behind --"}
			}
			pairs, err := o.load(c.Context())
			if err != nil {
				return err
			}
			base := os.Environ()
			if only {
				base = essential(base)
			}
			// Commit point: nothing of this program runs after it.
			if err := syscall.Exec(path, args, merge(base, pairs, keepToken)); err != nil {
				return fmt.Errorf("run %q: %w", path, err)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&only, "only", false, "give the program nothing else of this environment but PATH, HOME, USER, LANG, LC_*, TERM, TZ and TMPDIR")
	c.Flags().BoolVar(&keepToken, "keep-token", false, "leave VAULT_TOKEN to the program")
	return c
}

// essential is what programs need to run at all.
func essential(env []string) []string {
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TZ", "TMPDIR", "PWD", "VAULT_TOKEN":
			out = append(out, e)
		default:
			if strings.HasPrefix(name, "LC_") {
				out = append(out, e)
			}
		}
	}
	return out
}

// merge lets pairs win. The token goes, unless it is one of them.
func merge(env []string, pairs []appenv.Pair, keepToken bool) []string {
	ours := map[string]bool{}
	for _, p := range pairs {
		ours[p.Name] = true
	}
	out := make([]string, 0, len(env)+len(pairs))
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if !ours[name] && (name != "VAULT_TOKEN" || keepToken) {
			out = append(out, e)
		}
	}
	for _, p := range pairs {
		out = append(out, p.Name+"="+p.Value)
	}
	return out
}
