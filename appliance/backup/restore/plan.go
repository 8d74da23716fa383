package restore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/recipient"
)

// Source says where a snapshot comes from, and what opens it.
type Source struct {
	// File is a local one; Places, ID, Cluster and TakeState don't count then.
	File   string
	Places []snapshot.Destination
	// ID picks one; the newest verified one when zero.
	ID snapshot.ID
	// Unsigned takes it although nobody has signed it.
	Unsigned bool
	// Cluster is whose it must be; what snapshot.ClusterOf finds when empty.
	Cluster   string
	TakeState string
	// Identities open it. A file may need none.
	Identities []age.Identity
	// Dir takes the download; the system's for temporary files when empty.
	Dir string
}

// Found is a snapshot on this machine, checked wholly.
type Found struct {
	*Checked
	Choice Choice // zero for a file
	From   string // the file, or the place's name
	// Notes are what a person should know before it is restored.
	Notes []string
}

// first tries the copies that are wanted until one is good, and notes what was wrong
// with others.
func (s Source) first(ctx context.Context, try func(Choice) error) (Choice, []string, error) {
	w := Wanted{Places: s.Places, ID: s.ID, Unsigned: s.Unsigned}
	if s.ID == (snapshot.ID{}) {
		var err error
		if w.Cluster, err = snapshot.ClusterOf(ctx, s.Places, s.Cluster, s.TakeState); err != nil {
			return Choice{}, nil, err
		}
	}
	c, others, err := First(ctx, w, try)
	return c, Notes(c, others), err
}

// Notes are what a person should know of a choice: others is what First found wrong.
func Notes(c Choice, others error) []string {
	var notes []string
	if untrusted := c.Manifest.Untrusted(); untrusted != nil {
		notes = append(notes, "whoever can write there may have made it: "+untrusted.Error())
	}
	if c.Older {
		notes = append(notes, "a NEWER verified snapshot is there, and none of its copies is good: this one is older")
	}
	if others != nil {
		notes = append(notes, "not every copy could be used: "+others.Error())
	}
	return notes
}

// Freshness says where a snapshot stands, and what can be known of whether it is the
// newest: takeState, which may be empty, is the folder of what this machine has stored.
func Freshness(m snapshot.Manifest, takeState string, now time.Time) string {
	where := fmt.Sprintf("%s, %s old", m.Position(), now.Sub(m.TakenAt).Round(time.Minute))
	if m.ClockInDoubt {
		where += " by a clock that was in doubt"
	}
	state, _ := snapshot.LoadTakeState(takeState) // what cannot be read proves nothing
	var last *snapshot.TakenRecord
	for _, r := range state.Last {
		if id, err := snapshot.ParseID(r.ID); err != nil || id.Cluster != m.ClusterID {
			continue
		}
		if last == nil || r.Position().Compare(last.Position()) > 0 {
			last = &r
		}
	}
	switch {
	case takeState == "" || last == nil:
		return where + "; this machine has stored none of its cluster, so nothing proves that it is the newest: compare it with what you know"
	case last.Position().Compare(m.Position()) > 0:
		return where + "; this machine has stored a NEWER one, " + last.ID + " at " + last.Position().String()
	}
	return where + "; this machine has stored none that is newer"
}

// Fetch finds the snapshot and checks it on this machine.
func (s Source) Fetch(ctx context.Context) (*Found, error) {
	if s.File != "" {
		checked, err := FromFile(ctx, s.File, s.Identities)
		if err != nil {
			return nil, err
		}
		return &Found{Checked: checked, From: s.File}, nil
	}
	var checked *Checked
	choice, notes, err := s.first(ctx, func(c Choice) (err error) {
		checked, err = Fetch(ctx, c, s.Identities, s.Dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	if choice.VerifiedAt.IsZero() {
		notes = append(notes, "it was not verified when it was taken; it has been checked now")
	}
	return &Found{Checked: checked, Choice: choice, From: choice.Destination.Name(), Notes: notes}, nil
}

// FetchFiles finds the files beside the snapshot and checks them on this machine;
// from says where they are from.
func (s Source) FetchFiles(ctx context.Context) (files *Files, from string, err error) {
	if s.File != "" {
		files, err = FilesFromFile(ctx, s.File, s.Identities)
		return files, s.File, err
	}
	choice, notes, err := s.first(ctx, func(c Choice) (err error) {
		files, err = FetchFiles(ctx, c, s.Identities, s.Dir)
		if errors.Is(err, ErrNoFiles) {
			return Here(err) // an older one's would not be those of this snapshot
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	from = fmt.Sprintf("%s, from %s", choice.Manifest.ID, choice.Destination.Name())
	return files, strings.Join(append([]string{from}, notes...), "; "), err
}

// Keeping is how what is replaced is kept, as an encrypted snapshot.
type Keeping struct {
	// Dir is made when the restore begins.
	Dir string
	// Own says that the folder is for nothing else: only the last few stay in it. Of one
	// that somebody has named nobody knows what else it holds.
	Own         bool
	Recipients  []recipient.Recipient
	ToolVersion string
	// SigningKey is the taking job's; nil where there is none.
	SigningKey ed25519.PrivateKey
}

// Plan is what a restore will do. Making one changes nothing.
type Plan struct {
	*Found
	Health *vaultapi.Health
	// RaisesEpoch tells whether there is an epoch to raise.
	RaisesEpoch bool

	o    Options
	keep *Keeping
}

// NewPlan asks Vault how it is, and fetches and checks the snapshot, which is to be
// closed. keep is nil where nothing is kept. Of the options Snapshot and Keep are
// filled in.
func NewPlan(ctx context.Context, s Source, keep *Keeping, o Options) (*Plan, error) {
	health, err := o.Vault.Health(ctx)
	if err != nil {
		return nil, err
	}
	p := &Plan{Health: health, o: o, keep: keep}
	if p.Found, err = s.Fetch(ctx); err != nil {
		return nil, err
	}
	p.o.Snapshot, p.o.Lineage, p.o.From = p.Checked, p.Choice.Manifest.Lineage, p.Choice.Manifest.Server()
	if err := p.o.mayGoInto(health.Server()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if m := p.Choice.Manifest; m.VaultVersion != "" && m.Server() != health.Server() {
		p.Notes = append([]string{fmt.Sprintf("it was taken of %s and goes into %s; an older one may not read newer storage", m.Server(), health.Server())}, p.Notes...)
	}
	if o.EpochFile != "" {
		_, err := os.Stat(o.EpochFile)
		p.RaisesEpoch = err == nil // what can't be looked at is a fault of the restore, before anything changes
	}
	return p, nil
}

// Run does what was planned.
func (p *Plan) Run(ctx context.Context) (Result, error) {
	if p.keep != nil {
		var err error
		if p.o.Keep, err = p.keep.open(p.o.Vault, p.Health); err == nil {
			p.o.Keep.Lineage, err = LineageIn(p.o.EpochFile)
		}
		if err != nil {
			return Result{}, fmt.Errorf("keep what is replaced: nothing was done: %w", err)
		}
	}
	res, err := Run(ctx, p.o)
	if err == nil && res.Kept != nil && p.keep.Own {
		// What cannot be deleted now is with the next restore.
		if kept, err := snapshot.ParseID(res.Kept.Manifest.ID); err == nil {
			_, _ = snapshot.KeepLast(ctx, p.o.Keep.Destinations[0], keptReplaced, kept, time.Now())
		}
	}
	return res, err
}

// keptReplaced is how many snapshots of what was replaced stay.
const keptReplaced = 5

// open makes the folder.
func (k *Keeping) open(from snapshot.Source, health *vaultapi.Health) (*snapshot.TakeOptions, error) {
	if len(k.Recipients) == 0 {
		return nil, errors.New("nobody could open it")
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := snapshot.NewDir(k.Dir)
	if err != nil {
		return nil, err
	}
	return &snapshot.TakeOptions{
		Source:     from,
		Vault:      snapshot.InfoOf(health),
		Recipients: k.Recipients, StateDir: k.Dir, ToolVersion: k.ToolVersion, SigningKey: k.SigningKey,
		Destinations: []snapshot.Destination{dir},
	}, nil
}
