package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
)

// Options of a restore.
type Options struct {
	Snapshot *Checked
	// Vault is where to, with a token that may restore.
	Vault *vaultapi.Client
	// Force accepts a snapshot that another master key has sealed. Only a
	// Vault whose unseal keys are entered by hand can then be opened again,
	// with the keys of the snapshot.
	Force bool
	// Keep takes a snapshot of what is replaced. It may be nil.
	Keep *snapshot.TakeOptions
	// EpochFile is what the apikeys engine compares its storage with; empty or
	// not there for a stock Vault.
	EpochFile string
	// WaitsFile is where max_wait of the engines is kept (Waits) while it is 0;
	// empty: nowhere. What a killed restore has left there is put back first.
	WaitsFile string
	// Patience is how long Vault may take to be active again.
	Patience time.Duration
	// Poll is how often Vault is asked whether it is back; 100 ms when zero.
	Poll time.Duration
	// Step is told of each step as it begins; may be nil.
	Step func(name string)
}

// Result is what a restore did.
type Result struct {
	// Kept is the snapshot of what was replaced; nil without Options.Keep.
	Kept *snapshot.Taken
	// EpochRaised tells whether there was an epoch to raise.
	EpochRaised bool
	// Restored is true from when Vault has accepted the snapshot, whatever
	// came after.
	Restored bool
	// Engines tells what each apikeys engine found out.
	Engines []Reconciled
}

// Run restores. When it fails before Result.Restored nothing has changed but
// that a snapshot was kept; ErrUnclear is the exception.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if o.Poll == 0 {
		o.Poll = 100 * time.Millisecond
	}
	var res Result
	health, err := o.Vault.Health(ctx)
	if err != nil {
		return res, err
	}
	if !health.Initialized || health.Sealed || health.Standby {
		return res, fmt.Errorf("%w: initialised=%t sealed=%t standby=%t", ErrNotReady, health.Initialized, health.Sealed, health.Standby)
	}
	if err := putBackWaits(ctx, o.Vault, o.WaitsFile); err != nil {
		return res, fmt.Errorf("put back what a killed restore has changed: %w", err)
	}
	if o.Keep != nil {
		o.Step("keep a snapshot of what is there now")
		taken, err := snapshot.Take(ctx, *o.Keep)
		if err != nil {
			return res, fmt.Errorf("keep what is replaced: %w", err)
		}
		res.Kept = &taken
	}
	// The marker is a token that the snapshot cannot know: once Vault no
	// longer does either, it is the restored one.
	marker, err := newMarker(ctx, o.Vault)
	if err != nil {
		return res, err
	}
	o.Step("raise the epoch")
	raised, undo, err := raiseEpoch(o.EpochFile)
	if err != nil {
		return res, errors.Join(err, takeBack(ctx, marker, func(context.Context) error { return nil }, undo))
	}
	o.Step("end waiting reads, and hand the snapshot to Vault")
	waits, err := endWaits(ctx, o.Vault, o.WaitsFile)
	if err != nil {
		return res, errors.Join(err, takeBack(ctx, marker, waits, undo))
	}
	whole, err := send(ctx, o)
	if err != nil {
		// Vault has refused it before it changed anything, or has not had all
		// of it; but where only the answer is missing the epoch stays raised.
		if vaultapi.IsRefusal(err) && (!vaultapi.IsUncertain(err) || vaultapi.IsInternal(err)) || archiveFault(err) || !whole && known(ctx, marker) {
			return res, errors.Join(err, takeBack(ctx, marker, waits, undo))
		}
		return res, fmt.Errorf("%w: %w", ErrUnclear, err)
	}
	res.Restored, res.EpochRaised = true, raised
	// The restored Vault has a setting of its own. Where the note can't be
	// removed, doctor tells, which is no reason to stop here.
	_ = forgetWaits(o.WaitsFile)

	o.Step("wait until Vault is active")
	if err := wait(ctx, marker, o.Patience, o.Poll); err != nil {
		return res, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	o.Step("reconcile the apikeys engines")
	if res.Engines, err = Reconcile(ctx, o.Vault); err != nil {
		return res, fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return res, nil
}

// HandOver gives Vault an archive of its own and returns once it is active with what is
// in it: Vault answers before it has begun, and one that is restarted meanwhile comes
// back with what it had. It is no Run: nothing is kept, and no engine is fenced.
func HandOver(ctx context.Context, v *vaultapi.Client, archive io.Reader, patience time.Duration) error {
	marker, err := newMarker(ctx, v)
	if err != nil {
		return err
	}
	if err := v.RestoreSnapshot(ctx, archive, false); err != nil {
		return errors.Join(err, unmark(ctx, marker))
	}
	return wait(ctx, marker, patience, 100*time.Millisecond)
}

// undoPatience is how long one look at Vault, and taking everything back, may
// last. Neither ends with the restore's own context: who interrupts a restore
// wants it undone.
const undoPatience = 30 * time.Second

// takeBack undoes what was done before Vault got the snapshot.
func takeBack(ctx context.Context, marker *vaultapi.Client, waits func(context.Context) error, epoch func() error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return errors.Join(epoch(), waits(ctx), unmark(ctx, marker))
}

// known tells whether Vault still has the storage that the marker is in.
func known(ctx context.Context, marker *vaultapi.Client) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	_, err := marker.LookupSelf(ctx)
	return err == nil
}

func archiveFault(err error) bool {
	return errors.Is(err, snapshot.ErrCorrupt) || errors.Is(err, snapshot.ErrTruncated) || errors.Is(err, snapshot.ErrTrailing)
}

// send streams the archive. Vault stores it, checks its sums and, without
// force, that its own seal has signed them; only then it begins to restore, and
// answers at once. A request whose body has no end is never restored; whole tells
// whether this one's end may have gone out.
func send(ctx context.Context, o Options) (whole bool, err error) {
	var end atomic.Bool // the transport reads in a goroutine of its own
	err = o.Snapshot.Open(ctx, func(r io.Reader) error {
		return o.Vault.RestoreSnapshot(ctx, endNoting{r, &end}, o.Force)
	})
	if vaultapi.Says(err, "could not verify hash file") {
		err = fmt.Errorf("%w: %w", ErrOtherSeal, err)
	}
	return end.Load(), err
}

// endNoting notes that its reader was read to the end.
type endNoting struct {
	io.Reader
	end *atomic.Bool
}

func (r endNoting) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		r.end.Store(true)
	}
	return n, err
}

// markerLimit is how long one question with the marker may take: Vault may be
// stuck on its way through a restore.
const markerLimit = 5 * time.Second

// newMarker makes a client with a short-lived token of its own.
func newMarker(ctx context.Context, c *vaultapi.Client) (*vaultapi.Client, error) {
	token, err := c.ChildToken(ctx, "strongroom-restore", 30*time.Minute, "default")
	if err != nil {
		return nil, fmt.Errorf("mark the present storage: %w", err)
	}
	return c.As(token).Once(markerLimit), nil
}

// unmark ends the marker where nothing was restored.
func unmark(ctx context.Context, marker *vaultapi.Client) error {
	if err := marker.RevokeSelf(ctx); err != nil {
		return fmt.Errorf("remove the marker: %w", err)
	}
	return nil
}

// sealedFor is how many polls in a row Vault must be sealed for before that is
// final: on its way through a restore it is for a moment.
const sealedFor = 100

// sealedByHand is the same for a Vault that nothing unseals by itself.
const sealedByHand = 10

// wait returns once Vault is active and does not know the marker any more.
func wait(ctx context.Context, marker *vaultapi.Client, patience, poll time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	sealed := 0
	for {
		status, err := marker.SealStatus(ctx)
		switch {
		case err == nil && status.Sealed:
			sealed++
		case err == nil:
			sealed = 0
			if gone(ctx, marker) {
				return nil
			}
		}
		if sealed > sealedFor || sealed > sealedByHand && status.Type == "shamir" {
			return fmt.Errorf("%w: its seal is of type %q", ErrSealed, status.Type)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until Vault is active again: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// gone tells whether an active Vault refuses the marker.
func gone(ctx context.Context, marker *vaultapi.Client) bool {
	_, err := marker.LookupSelf(ctx)
	if !vaultapi.IsDenied(err) {
		return false
	}
	h, err := marker.Health(ctx)
	return err == nil && h.Initialized && !h.Sealed && !h.Standby
}
