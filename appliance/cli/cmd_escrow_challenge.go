package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/serve/escrow"
)

func escrowChallengeCommand(o *escrowOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "challenge [FILE...]",
		Short: "Ask for proof that the escrow opens elsewhere",
		Long: `Prints a question for each file of the escrow and what answers it where your copy
and your private key are: one line of stock tools, or this program. A question is
asked once and holds for an hour. It is not secret; nor are the answers, which
give nothing of the escrow away.`,
		Example: `  strongroom escrow challenge
  strongroom escrow challenge master-key.age
  ssh root@vault.example.com strongroom escrow challenge --json |
    strongroom escrow answer --escrow escrow --identity ~/.ssh/id_ed25519 |
    ssh root@vault.example.com strongroom escrow confirm`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, files []string) error {
			ch, err := o.folder(c).Ask(files...)
			if err != nil {
				return escrowError(err)
			}
			if o.json {
				return printJSON(c, ch)
			}
			printChallenge(c.OutOrStdout(), ch)
			return nil
		},
	}
	c.Flags().BoolVar(&o.json, "json", false, "print JSON, for strongroom escrow answer")
	return c
}

func printChallenge(w io.Writer, ch escrow.Challenge) {
	fmt.Fprintf(w, "In the folder with your copy of the escrow, off this machine, run before %s:\n\n", ch.Expires.Format(time.RFC3339))
	var pairs []string
	for _, q := range ch.Questions {
		fmt.Fprintf(w, "  { echo %s; age -d -i ~/.ssh/id_ed25519 %s; } | sha256sum\n", q.Nonce, q.File)
		pairs = append(pairs, q.File+":"+q.Nonce)
	}
	fmt.Fprintf(w, "\nor, with this program:\n\n  strongroom escrow answer --escrow . --identity ~/.ssh/id_ed25519 %s\n", strings.Join(pairs, " "))
	fmt.Fprintf(w, "\nThen bring the printed sums back:\n\n  strongroom escrow confirm SUM...\n")
	for _, name := range ch.Spent {
		fmt.Fprintf(w, "\nNothing is left to ask about %s: see docs/escrow.md.\n", name)
	}
}
