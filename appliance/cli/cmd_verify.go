package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config/machine"
)

// signedKind is a kind of file that a job signs.
type signedKind struct {
	signing.Kind
	role string // of who signs it
	// read gives when a content says that it was made, whether by a clock that was in
	// doubt, and what there is to read of it.
	read func(content []byte) (made time.Time, doubt bool, text string, err error)
}

func signedKinds() []signedKind {
	return []signedKind{
		{snapshot.SignedManifest, snapshot.RoleTaker, readManifest},
		{report.SignedReport, machine.JobDrill, readReport},
	}
}

func verifySignedCommand() *cobra.Command {
	var keyring string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check who has signed a snapshot's manifest or a drill's report",
		Long: `Checks that a manifest of a snapshot or a report of a drill is as a machine's job has
signed it, by the public keys in keyring.json, and prints what it says. It asks nobody
else, so it works away from the machine: keyring.json is in the escrow and in Vault.

Exit code 3: nobody has signed it, no key of the keyring has, its key was not in use
when it says that it was made, or it was changed. A retired key is good for what was
made before. It says nothing about whether a drill passed: the report does; nor whether
a snapshot can be read: strongroom snapshot verify does.`,
		Example: `  strongroom verify /var/lib/strongroom/drill/last.json
  strongroom verify 20261124T151500Z-1a2b3c4d.json --keyring keyring.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ring, err := signing.LoadKeyring(keyring)
			if err == nil && ring == nil {
				err = fmt.Errorf("keyring: there is no file %q", keyring)
			}
			if err != nil {
				return &Error{Code: ExitUsage, Err: err, Hint: "give the keyring.json of the machine's escrow with --keyring"}
			}
			text, err := checkSigned(args[0], ring)
			fmt.Fprint(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVar(&keyring, "keyring", machine.KeyringFile, "file with the public keys of who signs snapshots and reports")
	return c
}

// checkSigned gives what there is to read of a file that is good.
func checkSigned(file string, ring *signing.Keyring) (string, error) {
	most := 0
	for _, k := range signedKinds() {
		most = max(most, k.Max)
	}
	data, err := atomicfile.ReadSmall(file, int64(most))
	if err != nil {
		return "", &Error{Code: ExitUsage, Err: err}
	}
	bad := func(hint string, err error) (string, error) {
		return "", &Error{Code: ExitDrift, Err: fmt.Errorf("%q: %w", file, err), Hint: hint}
	}
	kind, err := kindOf(data)
	if errors.Is(err, signing.ErrNotSigned) {
		return bad(unsignedHint, err)
	}
	if err != nil {
		return bad("the manifest of a snapshot is its .json, the report of a drill is last.json", err)
	}
	e, err := kind.Parse(data)
	if err != nil {
		return bad("do not rely on it", err)
	}
	key, err := ring.Verify(e, kind.role)
	switch {
	case errors.Is(err, signing.ErrNotSigned):
		return bad(unsignedHint, err)
	case errors.Is(err, signing.ErrNoKey):
		return bad("take the newest keyring.json of the machine that it should be of. Where that does not know the key either, do not rely on the file", err)
	case err != nil:
		return bad("do not rely on it", err)
	}
	made, doubt, text, err := kind.read(e.Content)
	if err != nil {
		return bad("a newer version of this program may read it", err)
	}
	note := ""
	if err := ring.InUse(key, made); err != nil {
		if !doubt {
			return bad("its clock was wrong, a machine that was given up has gone on, or somebody has its key: do not rely on it", err)
		}
		note = "note: its date is of a clock that was in doubt, as it says itself\n"
	}
	public, err := signing.ParsePublic([]byte(key.Key))
	if err != nil {
		return "", err
	}
	until := ""
	if key.Until != nil {
		until = ", retired at " + key.Until.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s%sgood: the %s is as signed by %s of %s\n  key %s, in use from %s%s\n", text, note, kind.Name, key.Role, key.Node,
		signing.Fingerprint(public), key.From.UTC().Format(time.RFC3339), until), nil
}

// unsignedHint is for a file that nobody has signed.
const unsignedHint = "anybody may have written it. It may be from before there were keys; who knows that a snapshot is, names it: docs/backup.md"

// kindOf says what a file is. A manifest from before there were keys is in no envelope.
func kindOf(data []byte) (signedKind, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return signedKind{}, errors.New("it is no JSON object, so neither the manifest of a snapshot nor the report of a drill")
	}
	kinds := signedKinds()
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		if _, ok := members[k.Member]; ok {
			return k, nil
		}
		names = append(names, fmt.Sprintf("%s (%q)", k.Name, k.Member))
	}
	if _, err := snapshot.ParseManifest(data); err == nil {
		return signedKind{}, fmt.Errorf("%s: %w", snapshot.SignedManifest.Name, signing.ErrNotSigned)
	}
	return signedKind{}, fmt.Errorf("it is nothing that a job signs: no %s", strings.Join(names, " and no "))
}

func readManifest(content []byte) (time.Time, bool, string, error) {
	m, err := snapshot.ParseManifest(content)
	if err != nil {
		return time.Time{}, false, "", err
	}
	text := fmt.Sprintf("snapshot %s of Vault %s, taken at %s\n  %s\n", m.ID, m.VaultVersion, m.TakenAt.UTC().Format(time.RFC3339), m.Position())
	for _, o := range []*snapshot.Object{&m.Snapshot, m.Files} {
		if o != nil {
			text += fmt.Sprintf("  %s  %s\n", o.SHA256, o.Name)
		}
	}
	return m.TakenAt, m.ClockInDoubt, text, nil
}

func readReport(content []byte) (time.Time, bool, string, error) {
	r, err := report.Read(content)
	if err != nil {
		return time.Time{}, false, "", err
	}
	undecided := slices.ContainsFunc(r.Checks, func(c report.Check) bool { return c.Verdict == report.Undecided })
	return r.FinishedAt, undecided, r.Text(), nil
}
