package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/recipient"
)

// Why a Vault can't be asked for a snapshot.
var (
	// ErrStandby means that this node's Vault is a standby, and the leader's job
	// does the work.
	ErrStandby       = errors.New("standby")
	ErrUninitialised = errors.New("vault is not initialised")
	ErrSealed        = errors.New("vault is sealed")
)

// Vault is the part of Vault's client that a Job needs.
type Vault interface {
	Source
	// Health is what Vault tells of itself to anybody.
	Health(ctx context.Context) (*vaultapi.Health, error)
}

var _ Vault = (*vaultapi.Client)(nil)

// End ends a login, also of a run that was cancelled.
type End = func(ctx context.Context) error

// Job takes a snapshot of the Vault that is in charge: the canary by a login of
// its own, the snapshot by another, both ended when done.
type Job struct {
	// TakeOptions are the snapshot's. Run fills Source, Vault, Canary and
	// CanaryFailure; the last one stays from the last try that came so far.
	TakeOptions
	From Vault
	// Login makes From somebody who may take snapshots.
	Login func(ctx context.Context) (End, error)
	// CanaryLogin gives who may write the canary; nil where there is none, so that
	// no drill can look for one.
	CanaryLogin func(ctx context.Context) (Writer, End, error)
	Host        string // for the canary

	// Lasting is what went wrong and is not to be tried again, while something else
	// is: the run as a whole has failed by it.
	Lasting error
	// LoginLeft is why a login could not be ended. It ends by itself, and the
	// snapshot is stored.
	LoginLeft error
}

// Run takes one. It may be called again after a failure, and then serves the places
// that do not have theirs yet: each of the others has one already.
func (j *Job) Run(ctx context.Context) (Taken, error) {
	health, err := j.From.Health(ctx)
	if err != nil {
		return Taken{}, err
	}
	switch {
	case !health.Initialized:
		return Taken{}, ErrUninitialised
	case health.Sealed:
		return Taken{}, ErrSealed
	case health.Standby:
		return Taken{}, ErrStandby
	}
	j.Canary, j.CanaryFailure = j.writeCanary(ctx)
	end, err := j.Login(ctx)
	if err != nil {
		return Taken{}, err
	}
	j.Source = j.From
	j.Vault = InfoOf(health)
	taken, err := Take(ctx, j.TakeOptions)
	j.LoginLeft = end(ctx)
	return taken, j.settle(taken, err)
}

// settle sorts out what may be tried again.
func (j *Job) settle(taken Taken, err error) error {
	if err == nil || len(taken.Held)+len(taken.failed) == 0 {
		return err
	}
	var left []Destination
	var passing []error
	lasting := []error{j.Lasting, taken.without}
	for _, d := range j.Destinations {
		switch failed := taken.failed[d.Name()]; {
		case failed == nil:
		case MayPass(failed):
			left, passing = append(left, d), append(passing, failed)
		default:
			lasting = append(lasting, failed)
		}
	}
	if len(left) == 0 {
		return settled{err}
	}
	j.Destinations, j.Lasting = left, errors.Join(lasting...)
	return errors.Join(passing...)
}

// settled is an error after which there is nobody to try again for.
type settled struct{ error }

func (s settled) Unwrap() error { return s.error }

func (j *Job) writeCanary(ctx context.Context) (_ *Canary, err error) {
	w, end, err := j.CanaryLogin(ctx)
	if err != nil || w == nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end(ctx)) }()
	return WriteCanary(ctx, CanaryOptions{Vault: w, Host: j.Host, Now: j.Now})
}

// Readers are who can open what is taken: given, as recipients or as files of
// them, and the drill's key, from a file that is passed over where it is not
// there. That one does not count alone: it is gone with this machine.
func Readers(given []string, drillKey string) ([]recipient.Recipient, error) {
	to, err := recipient.FromArgs(given)
	if err != nil {
		return nil, err
	}
	if len(to) == 0 {
		return nil, errors.New("no recipient: nobody could ever read it")
	}
	if _, err := os.Stat(drillKey); drillKey == "" || errors.Is(err, fs.ErrNotExist) {
		return to, nil
	}
	keys, err := recipient.FromArgs([]string{credential.Path(drillKey)})
	if err != nil {
		return nil, fmt.Errorf("the drill's key: %w", err)
	}
	for _, k := range keys {
		if !slices.ContainsFunc(to, func(r recipient.Recipient) bool { return r.Fingerprint == k.Fingerprint }) {
			to = append(to, k)
		}
	}
	return to, nil
}
