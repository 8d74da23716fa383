package lifecycle

import "time"

// MinOverdueTTL is the shortest ttl that readers get while a rotation is
// overdue: a ttl of 0 would make Vault Agent read once a second.
const MinOverdueTTL = 60 * time.Second

// StockReaderDelay is by how much ttl stays below the promise where that is
// long enough: Vault Agent sleeps ttl plus a second, and then has to ask. It
// would otherwise hold a dead key for that moment.
const StockReaderDelay = 2 * time.Second

// Promise is how long a reader may use what it reads at now, without asking
// again, and be sure that it works: for the current version the grace fixed
// when it became current, for one in grace the time that is left. Where the
// provider lets no two keys overlap, it is the time until the next rotation,
// which then waits for it.
func Promise(v *Version, now time.Time, overlap bool, nextRotation time.Time) time.Duration {
	var d time.Duration
	switch {
	case !v.ReadableAt(now):
		return 0
	case v.State == Grace:
		d = v.RevokeAt.Sub(now)
	case overlap || nextRotation.IsZero():
		d = v.Grace
	default:
		d = nextRotation.Sub(now)
	}
	if v.State == Current && !v.RevokeAt.IsZero() {
		d = min(d, v.RevokeAt.Sub(now))
	}
	if !v.Expires.IsZero() {
		d = min(d, v.Expires.Sub(now))
	}
	return max(d, 0)
}

// TTL is when a reader that obeys ttl should read again: at the next rotation,
// but always before the promise ends, and while the rotation is overdue (or retry
// says that the last try failed) after the retry interval.
func TTL(promise time.Duration, nextRotation, now time.Time, retry time.Duration) time.Duration {
	if promise >= 10*StockReaderDelay {
		promise -= StockReaderDelay
	}
	if nextRotation.IsZero() {
		return promise
	}
	left := nextRotation.Sub(now)
	if left <= 0 {
		left = max(retry, MinOverdueTTL)
	}
	return min(left, promise)
}
