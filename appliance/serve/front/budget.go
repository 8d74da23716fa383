package front

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom.example/appliance/base/statefile"
)

const (
	// Let's Encrypt allows 5 failed authorizations per name and hour, and 5
	// certificates for the same names in 7 days
	// (https://letsencrypt.org/docs/rate-limits/). Ours end before theirs.
	maxFailures   = 3
	failureWindow = time.Hour
	maxIssued     = 4
	issuedWindow  = 7 * 24 * time.Hour
)

const budgetFile = "acme-budget.json"

func newBudget(storage string, now func() time.Time) *budget {
	return &budget{file: filepath.Join(storage, budgetFile), now: now}
}

// ErrBudget says that a CA is not asked, because it has been asked too often.
var ErrBudget = errors.New("certificate budget is used up")

// budget counts orders by CA and names in a file, so that restarts, crash
// loops and reinstallations that keep the storage do not start from zero.
type budget struct {
	file string
	now  func() time.Time

	mu sync.Mutex
}

type ledger struct {
	// By "CA names…"; times ascending.
	Failures map[string][]time.Time `json:"failures"`
	Issued   map[string][]time.Time `json:"issued"`
	// Rehearsed are names that a staging CA has once signed.
	Rehearsed []string `json:"rehearsed"`
	// NotBefore is until when a CA has asked to be left alone.
	NotBefore map[string]time.Time `json:"not_before,omitempty"`
	// LastError is for status and doctor.
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

func (l *ledger) dropFailure(key string) {
	if f := l.Failures[key]; len(f) > 0 {
		l.Failures[key] = f[:len(f)-1]
	}
}

func ledgerKey(ca string, names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	return ca + " " + strings.Join(sorted, ",")
}

// check is nil if one more order may be placed.
func (b *budget) check(ca string, names []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, err := b.load()
	if err != nil {
		return err
	}
	if until, now := l.NotBefore[ca], b.now(); until.After(now) && until.Sub(now) <= maxRetryAfter {
		return fmt.Errorf("%w: %w: %s, next try after %s", ErrBudget, errHeld, ca, until.UTC().Format(time.RFC3339))
	}
	key := ledgerKey(ca, names)
	for _, limit := range []struct {
		times  []time.Time
		max    int
		window time.Duration
		what   string
	}{
		{l.Failures[key], maxFailures, failureWindow, "failed orders"},
		{l.Issued[key], maxIssued, issuedWindow, "certificates"},
	} {
		recent := since(limit.times, b.now().Add(-limit.window))
		if len(recent) >= limit.max {
			next := recent[len(recent)-limit.max].Add(limit.window)
			return fmt.Errorf("%w: %d %s for %s at %s within %s, next try after %s",
				ErrBudget, len(recent), limit.what, strings.Join(names, ", "), ca, limit.window, next.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// used says how much of the budget for names at ca is used, and how many orders
// may still be placed now.
func (b *budget) used(ca string, names []string) (failed, issued, left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, err := b.load()
	if err != nil {
		return 0, 0, 0
	}
	key := ledgerKey(ca, names)
	failed = len(since(l.Failures[key], b.now().Add(-failureWindow)))
	issued = len(since(l.Issued[key], b.now().Add(-issuedWindow)))
	return failed, issued, max(min(maxFailures-failed, maxIssued-issued), 0)
}

// forget takes begin's failure back: the CA has counted nothing.
func (b *budget) forget(ca string, names []string) error {
	return b.change(func(l *ledger) { l.dropFailure(ledgerKey(ca, names)) })
}

// begin counts an order as failed before it is placed.
func (b *budget) begin(ca string, names []string) error {
	return b.change(func(l *ledger) {
		key := ledgerKey(ca, names)
		l.Failures[key] = append(l.Failures[key], b.now())
	})
}

// succeed takes begin's failure back and counts a certificate.
func (b *budget) succeed(ca string, names []string) error {
	return b.change(func(l *ledger) {
		key := ledgerKey(ca, names)
		l.dropFailure(key)
		l.Issued[key] = append(l.Issued[key], b.now())
		l.LastError, l.LastErrorTime = "", time.Time{}
	})
}

// note keeps fault for status to show, and returns it.
func (b *budget) note(ca string, names []string, fault error) error {
	return errors.Join(fault, b.change(func(l *ledger) {
		l.LastError = clip(withoutTokens(ledgerKey(ca, names)+": "+fault.Error()), 1000)
		l.LastErrorTime = b.now()
	}))
}

// hold keeps a CA from being asked until then.
func (b *budget) hold(ca string, until time.Time) error {
	return b.change(func(l *ledger) {
		if l.NotBefore == nil {
			l.NotBefore = map[string]time.Time{}
		}
		l.NotBefore[ca] = until
	})
}

func (b *budget) rehearsed(names []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, err := b.load()
	return err == nil && slices.Contains(l.Rehearsed, ledgerKey("", names))
}

func (b *budget) setRehearsed(names []string) error {
	return b.change(func(l *ledger) { l.Rehearsed = append(l.Rehearsed, ledgerKey("", names)) })
}

// change rewrites the file; what is older than every window goes.
func (b *budget) change(edit func(*ledger)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, err := b.load()
	if err != nil {
		return err
	}
	edit(l)
	for _, m := range []map[string][]time.Time{l.Failures, l.Issued} {
		for key, times := range m {
			if m[key] = since(times, b.now().Add(-issuedWindow)); len(m[key]) == 0 {
				delete(m, key)
			}
		}
	}
	if err := statefile.Save(b.file, l, 0o600); err != nil {
		return fmt.Errorf("certificate budget: %w", err)
	}
	return nil
}

// load reads the file. One that cannot be read stops all orders: without it
// nobody knows how many the CA has seen.
func (b *budget) load() (*ledger, error) {
	l := &ledger{}
	if err := statefile.Load(b.file, 0, l); err != nil && !errors.Is(err, statefile.ErrNone) {
		return nil, fmt.Errorf("certificate budget %q cannot be read, so no order is placed (remove it an hour after the last order): %w", b.file, err)
	}
	if l.Failures == nil {
		l.Failures = map[string][]time.Time{}
	}
	if l.Issued == nil {
		l.Issued = map[string][]time.Time{}
	}
	return l, b.untilNow(l)
}

// untilNow takes what was written by a clock that was ahead for something of now: it
// counts, and not for longer than its window.
func (b *budget) untilNow(l *ledger) error {
	now, ahead := b.now(), false
	for _, m := range []map[string][]time.Time{l.Failures, l.Issued} {
		for _, times := range m {
			for i, t := range times {
				if t.After(now) {
					times[i], ahead = now, true
				}
			}
		}
	}
	if !ahead {
		return nil
	}
	return statefile.Save(b.file, l, 0o600)
}

// since gives the times after from.
func since(times []time.Time, from time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return !t.After(from) })
}
