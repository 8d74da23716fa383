// Package report is what a drill leaves to be read: its report, how that is signed,
// and the note of a fetch that failed. It knows nothing of how a drill is done, so
// that whoever only reads carries none of it.
package report

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Format is the version of the report's layout.
const Format = 1

// Kinds of reports.
const (
	KindDrill     = "drill"
	KindRehearsal = "rehearsal"
	// KindChosen is a drill of a snapshot that a person has named: it proves that one,
	// and nothing of the newest.
	KindChosen = "chosen"
)

// Verdicts of checks.
const (
	Pass = "pass"
	Fail = "fail"
	// Note is what a person should read; it fails nothing.
	Note = "note"
	// Undecided is what nobody can know, as a clock is in doubt. It is not passed.
	Undecided = "undecided"
)

// Report is what a drill found out. It holds no secret.
type Report struct {
	Format int    `json:"format"`
	Kind   string `json:"kind"`
	Host   string `json:"host"`
	// StartedAt is when the fetch began, FinishedAt when everything scratch was
	// gone again.
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	// Passed is true when the drill came to its end and no check failed.
	Passed bool `json:"passed"`
	// Failure says where the drill ended early; empty when it did not.
	Failure string `json:"failure,omitempty"`
	// RPOSeconds is how old the snapshot's data was when the drill began, by the canary's
	// own time inside it: what would have been lost. 0 when it never came to know.
	RPOSeconds float64 `json:"rpo_seconds"`
	// RTOSeconds is from the start of the fetch to a Vault that serves. 0 when
	// it never served.
	RTOSeconds float64 `json:"rto_seconds"`
	// Snapshot is the one that was used.
	Snapshot Snapshot `json:"snapshot"`
	// Programs that took part.
	Programs Versions `json:"programs"`
	// MasterKey is the fingerprint of the key that unsealed.
	MasterKey string   `json:"master_key,omitempty"`
	Checks    []Check  `json:"checks"`
	Steps     []Timing `json:"steps"`
	Found     *Found   `json:"found,omitempty"`
}

// Snapshot tells where the data came from.
type Snapshot struct {
	ID         string    `json:"id"`
	From       string    `json:"from"` // the place's name
	ClusterID  string    `json:"cluster_id"`
	TakenAt    time.Time `json:"taken_at"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	Size       int64     `json:"size"` // bytes as stored
	RaftIndex  uint64    `json:"raft_index"`
	// Product is the name of whose server it was; empty for Vault.
	Product      string `json:"product,omitempty"`
	VaultVersion string `json:"vault_version"`
}

// Versions of the programs.
type Versions struct {
	Strongroom string `json:"strongroom"`
	Vault      string `json:"vault,omitempty"`     // that restored
	NewVault   string `json:"new_vault,omitempty"` // of a rehearsal
	NewPlugin  string `json:"new_plugin,omitempty"`
}

// Check is one thing that was looked at.
type Check struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	Detail  string `json:"detail"`
	Remedy  string `json:"remedy,omitempty"`
}

// Timing is how long a step took.
type Timing struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Found is what the restored Vault holds, for comparing two drills.
type Found struct {
	Mounts   map[string]string `json:"mounts"`   // path to type and plugin version
	Auth     map[string]string `json:"auth"`     // path to type
	Policies map[string]string `json:"policies"` // name to SHA-256
	Keys     int64             `json:"keys"`     // of the apikeys engine
}

// Failed are the checks that did not pass: that failed, or could not be decided.
func (r *Report) Failed() []Check {
	return slices.DeleteFunc(slices.Clone(r.Checks), func(c Check) bool { return c.Verdict != Fail && c.Verdict != Undecided })
}

// Verdict is in one word how it ended.
func (r *Report) Verdict() string {
	switch failed := r.Failed(); {
	case r.Passed:
		return "PASSED"
	case r.Failure == "" && len(failed) > 0 && !slices.ContainsFunc(failed, func(c Check) bool { return c.Verdict == Fail }):
		return "UNDECIDED"
	}
	return "FAILED"
}

// RPO is RPOSeconds.
func (r *Report) RPO() time.Duration { return seconds(r.RPOSeconds) }

// RTO is RTOSeconds.
func (r *Report) RTO() time.Duration { return seconds(r.RTOSeconds) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Text is the report for people.
func (r *Report) Text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s "+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintf(&b, "%s of %s on %s: %s\n", r.Kind, r.StartedAt.Format(time.RFC3339), r.Host, r.Verdict())
	if r.Snapshot.ID != "" {
		line("snapshot", "%s", r.Snapshot.ID)
		line("from", "%s, %d bytes, raft index %d, %s %s", r.Snapshot.From, r.Snapshot.Size, r.Snapshot.RaftIndex, cmp.Or(r.Snapshot.Product, "Vault"), r.Snapshot.VaultVersion)
		line("RPO", "%s (taken %s)", r.RPO().Round(time.Second), r.Snapshot.TakenAt.Format(time.RFC3339))
	}
	if r.RTOSeconds > 0 {
		line("RTO", "%s from the start of the fetch to a serving Vault", r.RTO().Round(10*time.Millisecond))
	}
	if r.Failure != "" {
		line("ended early", "%s", strings.ReplaceAll(r.Failure, "\n", "\n               "))
	}
	if len(r.Checks) > 0 {
		b.WriteString("Checks\n")
	}
	for _, c := range r.Checks {
		line(c.Verdict, "%-12s %s", c.Name, c.Detail)
		if c.Remedy != "" && c.Verdict != Pass {
			line("", "%-12s → %s", "", c.Remedy)
		}
	}
	if len(r.Steps) > 0 {
		b.WriteString("Steps\n")
	}
	for _, s := range r.Steps {
		line(seconds(s.Seconds).Round(10*time.Millisecond).String(), "%s", s.Name)
	}
	return b.String()
}

// LastPath is the newest report in a state folder.
func LastPath(stateDir string) string { return filepath.Join(stateDir, "last.json") }

// Last reads the newest report, whatever its verdict, and how it was signed. It
// is nil where there was no drill yet. The signature is not checked: see Verify.
func Last(stateDir string) (*Report, error) {
	data, err := os.ReadFile(LastPath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("drill report: %w", err)
	}
	s, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("drill report %q: %w", LastPath(stateDir), err)
	}
	return &s.Report, nil
}
