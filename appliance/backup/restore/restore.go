package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
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
	// Lineage is the snapshot's; nil where its manifest names none.
	Lineage *snapshot.Lineage
	// WaitsFile is where max_wait of the engines is kept (Waits) while it is 0;
	// empty: nowhere. What a killed restore has left there is put back first.
	WaitsFile string
	// From is what the snapshot is of; without a version where nobody knows. IntoOlder
	// insists where the server here is older.
	From      config.Server
	IntoOlder bool
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
	if err := o.mayGoInto(health.Server()); err != nil {
		return res, err
	}
	if err := o.othersAreGone(ctx); err != nil {
		return res, err
	}
	if err := putBack(ctx, o.Vault, o.WaitsFile, o.EpochFile); err != nil {
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
	marker, err := newMarker(ctx, o.Vault, o.Patience)
	if err != nil {
		return res, err
	}
	o.Step("raise the epoch")
	raised, undo, err := raiseEpoch(o.EpochFile, o.WaitsFile, o.Lineage, o.Snapshot.Archive.Index)
	if err != nil {
		return res, errors.Join(err, takeBack(ctx, marker, func(context.Context) error { return nil }, undo))
	}
	o.Step("end waiting reads, and hand the snapshot to Vault")
	waits, err := endWaits(ctx, o.Vault, o.WaitsFile)
	if err != nil {
		return res, errors.Join(err, takeBack(ctx, marker, waits, undo))
	}
	// From here on Vault may have it, whatever becomes of this process.
	if err := note(o.WaitsFile, func(w *Waits) { w.HandedOver = true }); err != nil {
		return res, errors.Join(err, takeBack(ctx, marker, waits, undo))
	}
	whole, err := send(ctx, o)
	if err != nil {
		// Vault has refused it before it changed anything, or has not had all
		// of it; but where only the answer is missing, or it is another's, such as
		// that of a proxy which has waited too long, the epoch stays raised.
		if refused(err) || archiveFault(err) || !whole && known(ctx, marker) {
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

// refused says that Vault itself has looked at the snapshot and does not take it.
func refused(err error) bool {
	status := vaultapi.Status(err)
	return status >= 400 && status < 500 && !errors.Is(err, vaultapi.ErrNotVault) || errors.Is(err, ErrOtherSeal)
}

// mayGoInto refuses a snapshot of another product, whatever is insisted on, and of a
// newer server than the one that is to read it.
func (o Options) mayGoInto(into config.Server) error {
	if o.From.Version == "" {
		return nil
	}
	if err := o.From.SameProduct(into); err != nil {
		return fmt.Errorf("%w: %w", ErrOtherProduct, err)
	}
	if o.IntoOlder {
		return nil
	}
	newer, err := config.CompareVersions(o.From.Version, into.Version)
	if err != nil || newer <= 0 {
		return nil //nolint:nilerr // what is no version cannot be compared, and is noted by the plan
	}
	return fmt.Errorf("%w: it is of %s, this one is %s", ErrNewerVault, o.From, into)
}

// answerWithin is how long a server may take to accept a connection.
const answerWithin = 3 * time.Second

// othersAreGone looks, before a cluster of several nodes gets a snapshot, whether a server
// that the snapshot names and that is none of them still answers. What can be seen of it is
// seen from here.
func (o Options) othersAreGone(ctx context.Context) error {
	raft, err := o.Vault.Raft(ctx)
	if err != nil {
		return fmt.Errorf("which nodes this cluster has: %w", err)
	}
	if len(raft.Nodes) < 2 {
		return nil // it leads itself
	}
	for _, s := range o.Snapshot.Archive.Servers {
		if slices.ContainsFunc(raft.Nodes, func(n vaultapi.RaftNode) bool { return n.ID == s.ID && n.Address == s.Address }) {
			continue
		}
		d := net.Dialer{Timeout: answerWithin}
		if c, err := d.DialContext(ctx, "tcp", s.Address); err == nil {
			_ = c.Close()
			return fmt.Errorf("%w: %q at %s", ErrOtherAnswers, s.ID, s.Address)
		}
	}
	return nil
}

// HandOver gives Vault an archive of its own and returns once it is active with what is
// in it: Vault answers before it has begun, and one that is restarted meanwhile comes
// back with what it had. It is no Run: nothing is kept, and no engine is fenced.
func HandOver(ctx context.Context, v *vaultapi.Client, archive io.Reader, patience time.Duration) error {
	marker, err := newMarker(ctx, v, patience)
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

// markerLife is how long sending a snapshot may take. A marker that has ended would say
// that Vault is the restored one.
const markerLife = 24 * time.Hour

// newMarker makes a client with a token of its own, for as long as the restore can last.
func newMarker(ctx context.Context, c *vaultapi.Client, patience time.Duration) (*vaultapi.Client, error) {
	token, err := c.ChildToken(ctx, "strongroom-restore", markerLife+patience, "default")
	if vaultapi.Says(err, "batch token") || vaultapi.Says(err, "restricted use") {
		err = fmt.Errorf("%w: %w", ErrTokenKind, err)
	}
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

// sealedByHand is how many polls in a row a Vault that nothing unseals by itself must be
// sealed for before that is final: on its way through a restore it is for a moment. For
// any other it is when nobody waits any longer.
const sealedByHand = 10

// wait returns once Vault is active and does not know the marker any more.
func wait(ctx context.Context, marker *vaultapi.Client, patience, poll time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	sealed := 0
	var seal error
	for {
		status, err := marker.SealStatus(ctx)
		switch {
		case err == nil && status.Sealed:
			sealed++
			seal = fmt.Errorf("%w: its seal is of type %q", ErrSealed, status.Type)
		case err == nil:
			sealed, seal = 0, nil
			if gone(ctx, marker) {
				return nil
			}
		}
		if sealed > sealedByHand && status.Type == "shamir" {
			return seal
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until Vault is active again: %w", errors.Join(seal, context.Cause(ctx)))
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
