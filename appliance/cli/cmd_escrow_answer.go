package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/serve/escrow"
)

func escrowAnswerCommand(o *escrowOptions) *cobra.Command {
	var identities []string
	c := &cobra.Command{
		Use:   "answer [FILE:NONCE...]",
		Short: "Answer a challenge, where the private key is",
		Long: `Opens the files of a challenge with your private key and prints the answers. It is
for the place where your copy of the escrow is; it needs neither Vault nor root.
Without arguments it reads what "challenge --json" has printed.

Files that are not in the folder, and those that the identity does not open, are
passed over: they may be kept apart. It is an error when none is opened.`,
		Example: `  strongroom escrow answer --escrow . --identity ~/.ssh/id_ed25519 admin.age:6f0c1b22a4b9d58e0c3f7a6415d2e8b9`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			questions, err := readQuestions(args, c.InOrStdin())
			if err != nil {
				return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
			}
			ids, err := readIdentities(identities, "")
			if err != nil {
				return err
			}
			return answerAll(c, o.dir, questions, ids)
		},
	}
	c.Flags().StringArrayVar(&identities, "identity", nil, "file with an age identity or an SSH private key, repeatable")
	return c
}

// maxQuestions bounds what is read of a challenge, in bytes.
const maxQuestions = 1 << 20

func readQuestions(args []string, in io.Reader) ([]escrow.Question, error) {
	var out []escrow.Question
	if len(args) == 0 {
		var ch escrow.Challenge
		if err := json.NewDecoder(io.LimitReader(in, maxQuestions)).Decode(&ch); err != nil {
			return nil, fmt.Errorf("read the challenge: %w", err)
		}
		out = ch.Questions
	}
	for _, a := range args {
		file, nonce, ok := strings.Cut(a, ":")
		if !ok {
			return nil, fmt.Errorf("question %q: want FILE:NONCE", a)
		}
		out = append(out, escrow.Question{File: file, Nonce: nonce})
	}
	if len(out) == 0 {
		return nil, errors.New("no question is given")
	}
	for _, q := range out {
		if err := q.Check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const hintEscrowCopy = "give the folder with your copy of the escrow: --escrow"

func answerAll(c *cobra.Command, dir string, questions []escrow.Question, ids []age.Identity) error {
	answered := 0
	var passed []error
	for _, q := range questions {
		sealed, err := atomicfile.ReadSmall(filepath.Join(dir, q.File), atomicfile.MaxSmall)
		if errors.Is(err, fs.ErrNotExist) {
			passed = append(passed, err)
			continue
		}
		if err != nil {
			return &Error{Code: ExitOperator, Err: fmt.Errorf("escrow: %w", err), Hint: hintEscrowCopy}
		}
		plain, err := escrow.Open(sealed, ids...)
		if errors.Is(err, escrow.ErrWrongIdentity) {
			passed = append(passed, fmt.Errorf("%s: %w", q.File, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", q.File, err)
		}
		fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", escrow.Answer(q.Nonce, plain), q.File)
		clear(plain)
		answered++
	}
	for _, err := range passed {
		fmt.Fprintln(c.ErrOrStderr(), "passed over:", err)
	}
	if answered > 0 {
		return nil
	}
	err := errors.Join(passed...)
	if errors.Is(err, escrow.ErrWrongIdentity) {
		return escrowError(err)
	}
	return &Error{Code: ExitOperator, Err: fmt.Errorf("escrow: %w", err), Hint: hintEscrowCopy}
}
