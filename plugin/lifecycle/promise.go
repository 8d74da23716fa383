package lifecycle

import "time"

// MinOverdueTTL is the shortest ttl that readers get while a rotation is
// overdue: a ttl of 0 would make Vault Agent read once a second.
const MinOverdueTTL = 60 * time.Second

// By how much ttl stays below the promise. Stock readers sleep ttl plus a
// second, then ask, and then have something to do (write a file, restart a
// child) before the new key is in use. The margin grows with the promise: a
// tenth, within these bounds, but never more than half.
const (
	MinMargin = 5 * time.Second
	MaxMargin = 5 * time.Minute
)

func margin(promise time.Duration) time.Duration {
	return min(max(promise/10, MinMargin), MaxMargin, promise/2)
}

// Promise is how long a reader may use what it reads at now, without asking
// again, and be sure that it works: for the current version the grace fixed
// when it became current, for one in grace the time that is left. Where the
// provider lets no two keys overlap, it is the time until the next rotation,
// which then waits for it.
// Of a version that may be dead already, or that ends as soon as it has a
// successor, nothing is promised.
func Promise(v *Version, now time.Time, overlap bool, nextRotation time.Time) time.Duration {
	if !v.ReadableAt(now) || v.Compromised || !v.Doubted.IsZero() {
		return 0
	}
	d := v.Grace
	if v.State == Grace {
		d = v.RevokeAt.Sub(now)
	} else if !overlap && !nextRotation.IsZero() {
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
	promise -= margin(promise)
	if nextRotation.IsZero() {
		return promise
	}
	left := nextRotation.Sub(now)
	if left <= 0 {
		left = max(retry, MinOverdueTTL)
	}
	return min(left, promise)
}
