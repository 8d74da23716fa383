package metrics

import (
	"context"
	"errors"
	"maps"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/plugin/condition"
)

func (c *Collector) snapshot(_ context.Context, e *emitter) error {
	b, err := evidence.ReadBackup(c.o.Places)
	if err != nil && !errors.Is(err, evidence.ErrNone) {
		return err
	}
	taken, terr := snapshot.LoadTakeState(c.o.Places.Snapshot)
	if terr != nil {
		return terr
	}
	e.time("snapshot_taken_time_seconds", b.LastTaken)
	e.time("snapshot_verified_taken_time_seconds", b.TakenAt)
	e.time("snapshot_verified_time_seconds", b.VerifiedAt)
	e.set("snapshot_verified_size_bytes", float64(b.Size))
	for place, at := range b.Places {
		e.time("snapshot_place_verified_taken_time_seconds", at, place)
	}
	for place := range b.Places {
		_, failed := b.PlaceFailures[place]
		e.bool("snapshot_place_failed", failed, place)
	}
	for place := range b.PlaceFailures {
		if _, known := b.Places[place]; !known {
			e.bool("snapshot_place_failed", true, place)
		}
	}
	e.bool("snapshot_clock_in_doubt", b.InDoubt || b.ClockDoubted > 0)
	e.bool("snapshot_take_failed", b.TakeFailure != nil)
	e.bool("snapshot_verify_failed", b.VerifyFailure != nil)
	e.bool("snapshot_canary_failed", taken.CanaryFailure != nil)
	e.bool("snapshot_standby", taken.Standby != nil)
	return nil
}

func (c *Collector) drill(_ context.Context, e *emitter) error {
	_, err := evidence.ReadFetchFailure(c.o.Places)
	if err != nil && !errors.Is(err, evidence.ErrNone) {
		return err
	}
	// A drill that got nothing to restore has failed, and left no report.
	fetched := err != nil
	r, err := evidence.ReadDrill(c.o.Places)
	if errors.Is(err, evidence.ErrNone) {
		e.time("drill_time_seconds", time.Time{})
		if !fetched {
			e.bool("drill_passed", false)
		}
		return nil
	}
	if err != nil {
		return err
	}
	e.time("drill_time_seconds", r.FinishedAt)
	e.bool("drill_passed", r.Passed && fetched)
	e.set("drill_rpo_seconds", r.RPOSeconds)
	e.set("drill_rto_seconds", r.RTOSeconds)
	return nil
}

// escrowItem is the doctor's item on the escrow. The escrow's own folder is
// root's alone.
const escrowItem = "escrow"

func (c *Collector) doctor(_ context.Context, e *emitter) error {
	d, err := evidence.ReadDoctor(c.o.Places)
	if errors.Is(err, evidence.ErrNone) {
		e.time("doctor_time_seconds", time.Time{})
		return nil
	}
	if err != nil {
		return err
	}
	e.time("doctor_time_seconds", d.At)
	for verdict, n := range map[string]int{evidence.Pass: d.Pass, evidence.Warn: d.Warn, evidence.Fail: d.Fail, evidence.Skip: d.Skip} {
		e.set("doctor_items", float64(n), verdict)
	}
	for item, verdict := range d.Verdicts {
		e.bool("doctor_item_failed", verdict == evidence.Fail, item)
		if item == escrowItem {
			e.bool("escrow_confirmed", verdict == evidence.Pass)
		}
	}
	return nil
}

func (c *Collector) audit(_ context.Context, e *emitter) error {
	r, err := audit.LoadReport(c.o.AuditState)
	if err != nil {
		return err
	}
	e.time("audit_time_seconds", r.At)
	e.bool("audit_failed", r.Failure != "")
	for _, l := range r.Logs {
		e.set("audit_log_size_bytes", float64(l.Size), l.Name)
	}
	e.set("audit_kept_logs", float64(r.Kept))
	e.set("audit_kept_size_bytes", float64(r.KeptBytes))
	e.set("audit_deleted_early_total", float64(r.DeletedEarlyTotal))
	if c.o.AuditLogs == "" {
		return nil
	}
	// Now, not when the job last ran.
	u, err := audit.Statfs(c.o.AuditLogs)
	if err != nil {
		return err
	}
	e.set("audit_disk_used_ratio", u.Percent()/100)
	return nil
}

// watched are the looks of every minute, at the audit logs and at the firewall. What
// nobody looks at has no series.
func (c *Collector) watched(_ context.Context, e *emitter) error {
	a, err := evidence.ReadAudit(c.o.Places)
	if err == nil {
		e.time("audit_watch_time_seconds", a.At)
		e.set("audit_losses", float64(len(a.Losses)))
		e.set("audit_faults", float64(len(a.Faults)))
	} else if errors.Is(err, evidence.ErrNone) {
		err = nil
	}
	f, ferr := evidence.ReadFirewall(c.o.Places)
	if ferr == nil {
		e.time("firewall_watch_time_seconds", f.At)
		e.set("firewall_faults", float64(len(f.Faults)))
	} else if errors.Is(ferr, evidence.ErrNone) {
		ferr = nil
	}
	return errors.Join(err, ferr)
}

func (c *Collector) locked(ask func(context.Context) (evidence.LockedOut, error)) func(context.Context, *emitter) error {
	return func(ctx context.Context, e *emitter) error {
		l, err := ask(ctx)
		if err != nil {
			return err
		}
		e.set("vault_locked_users", float64(l.Total))
		return nil
	}
}

func (c *Collector) certificate(ask func(context.Context) (evidence.Certificate, error)) func(context.Context, *emitter) error {
	return func(ctx context.Context, e *emitter) error {
		cert, err := ask(ctx)
		if err != nil {
			return err
		}
		e.time("certificate_not_before_seconds", cert.NotBefore)
		e.time("certificate_not_after_seconds", cert.NotAfter)
		e.bool("certificate_covers_name", cert.Covers)
		return nil
	}
}

func (c *Collector) vault(ctx context.Context, e *emitter) error {
	h, err := evidence.ReadHealth(ctx, c.o.Vault.client)
	e.bool("vault_up", err == nil)
	if err != nil {
		return err
	}
	e.bool("vault_initialized", h.Initialized)
	e.bool("vault_sealed", h.Sealed)
	e.bool("vault_standby", h.Standby)
	tested := "no"
	if h.Tested {
		tested = "yes"
	}
	e.set("vault_info", 1, h.Version, tested)
	return nil
}

func (c *Collector) keys(ask func(context.Context) (evidence.Keys, error)) func(context.Context, *emitter) error {
	return func(ctx context.Context, e *emitter) error {
		k, err := ask(ctx)
		if err != nil {
			return err
		}
		e.set("keys_due_rotations", float64(k.DueRotations))
		e.set("keys_open_intents", float64(k.OpenIntents))
		e.bool("keys_fenced", k.Fence != "")
		e.bool("keys_clock_believed", k.Clock == "ok")
		failing := 0
		for _, fault := range k.Webhooks {
			if fault != "" {
				failing++
			}
		}
		e.set("keys_webhooks_failing", float64(failing))

		for name, p := range k.Providers {
			counts := map[string]int{}
			for _, c := range condition.All() { // each word has its series, so that a rule about one finds it
				counts[string(c.Name)] = 0
			}
			maps.Copy(counts, p.Conditions)
			for word, n := range counts {
				e.set("keys", float64(n), name, word)
			}
			if !p.Next.IsZero() {
				e.time("keys_next_rotation_seconds", p.Next, name)
			}
			if !p.Oldest.IsZero() {
				e.time("keys_oldest_rotation_seconds", p.Oldest, name)
			}
		}
		return nil
	}
}
