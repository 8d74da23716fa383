package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config/machine"
)

func escrowConfirmCommand(o *escrowOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "confirm [SUM...]",
		Short: "Take the answers to a challenge",
		Long: `Takes the answers to the present challenge, as sha256sum printed them, and records
which files of the escrow have proved that they open off this machine. Without
arguments it reads them from standard input, one a line. The files of several
people may be confirmed one after the other.

A confirmation ends with the file that it was given for: after "kms rotate" or a
new escrow there is a new one to be confirmed.`,
		Example: `  strongroom escrow confirm 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
  strongroom escrow confirm <answers`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, answers []string) error {
			if len(answers) == 0 {
				var err error
				if answers, err = readAnswers(c.InOrStdin()); err != nil {
					return err
				}
			}
			done, err := o.folder(c).Confirm(answers)
			for _, name := range done {
				fmt.Fprintf(c.OutOrStdout(), "confirmed: %s opens off this machine\n", name)
			}
			if err != nil {
				return escrowError(err)
			}
			files, err := escrow.LoadStatus(o.dir)
			if err != nil {
				return err
			}
			if rest := unconfirmed(o.dir, files); rest != nil {
				fmt.Fprintf(c.OutOrStdout(), "still to do: %v\n", rest)
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.credential, "credential", machine.MasterKeyFile, "the master key as systemd's encrypted credential, which its escrow must hold; empty: don't compare")
	return c
}

// readAnswers reads lines; empty ones are none.
func readAnswers(in io.Reader) ([]string, error) {
	var out []string
	s := bufio.NewScanner(io.LimitReader(in, maxQuestions))
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			out = append(out, line)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	return out, nil
}
