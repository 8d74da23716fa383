package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
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
program's own. A variable that is set already, and not to nothing, stays, and a
line says so; STRONGROOM_ENV_PREFER=vault turns that round. The token of Vault
(VAULT_TOKEN) is taken out of the environment.`,
		Example: `  strongroom env exec --app bike-data-flow --env production -- python -m bikes.load
  strongroom env exec --mapping strongroom-env.toml --role-id-file vault-login/role-id --secret-id-file vault-login/secret-id -- ./server`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := exec.LookPath(args[0])
			if err != nil {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("command %q: %w", args[0], errors.Unwrap(err)), Hint: "give the program behind --"}
			}
			own, err := appenv.PreferOwn(os.Getenv(appenv.PreferVariable))
			if err != nil {
				return &Error{Code: ExitUsage, Err: err}
			}
			pairs, err := o.load(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			base := os.Environ()
			if only {
				base = essential(base)
			}
			if own {
				var kept []string
				pairs, kept = appenv.WithoutOwn(base, pairs, o.allowed)
				for _, name := range kept {
					fmt.Fprintf(c.ErrOrStderr(), "strongroom: %s comes from this process's environment and not from Vault (%s=vault turns that round)\n", name, appenv.PreferVariable)
				}
			}
			if large := appenv.TooLarge(pairs); len(large) > 0 {
				return &Error{Code: ExitFailed, Err: fmt.Errorf("no program can be started with %s: one variable holds at most %d bytes", sizes(large), appenv.MaxVariable),
					Hint: "read it from Vault in the program, or give it a file (strongroom env print)"}
			}
			// Commit point: nothing of this program runs after it.
			env := merge(base, pairs, keepToken)
			err = syscall.Exec(path, args, env)
			if errors.Is(err, syscall.E2BIG) {
				return tooMuch(path, args, env, pairs)
			}
			return fmt.Errorf("run %q: %w", path, err)
		},
	}
	c.Flags().BoolVar(&only, "only", false, "give the program nothing else of this environment but PATH, HOME, USER, LANG, LC_*, TERM, TZ and TMPDIR")
	c.Flags().BoolVar(&keepToken, "keep-token", false, "leave VAULT_TOKEN to the program")
	return c
}

// tooMuch explains that the kernel takes no more than a quarter of the stack's
// limit for arguments and environment together, each with its pointer.
// Source: https://man7.org/linux/man-pages/man2/execve.2.html
func tooMuch(path string, args, env []string, pairs []appenv.Pair) error {
	total := 0
	for _, s := range slices.Concat(args, env) {
		total += len(s) + 1 + 8
	}
	slices.SortStableFunc(pairs, func(a, b appenv.Pair) int { return cmp.Compare(len(b.Value), len(a.Value)) })
	return &Error{Code: ExitFailed, Err: fmt.Errorf("run %q: arguments and environment are %d bytes, more than the kernel takes; the largest secrets are %s", path, total, sizes(pairs[:min(3, len(pairs))])),
		Hint: "raise the limit of the stack (ulimit -s), leave the rest of this environment out with --only, or read the largest from Vault in the program"}
}

func sizes(pairs []appenv.Pair) string {
	var out []string
	for _, p := range pairs {
		out = append(out, fmt.Sprintf("%s (%d bytes)", p.Name, len(p.Value)))
	}
	return strings.Join(out, ", ")
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
