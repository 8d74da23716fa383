package lifecycle

import "time"

// When the provider is asked whether the current version works.
const (
	// CheckEvery is less than a day by as much as it takes to be sure of a refusal,
	// so that a key that has died is told of within a day.
	CheckEvery = 20 * time.Hour
	// RefusedApart is how far apart two refusals must be to say that a key is dead:
	// one may be a server of the service's that does not know the key, or a fault of
	// minutes.
	RefusedApart = time.Hour
)

// NextCheck is the first time after the one given at which a key is looked at. The
// times of one key are CheckEvery apart, whatever happens, and those of many keys are
// spread over that.
func NextCheck(uid string, after time.Time) time.Time {
	every := int64(CheckEvery / time.Second)
	offset := int64(Seed(uid, 0) % uint64(every))
	s := after.Unix()
	return time.Unix(s+every-(s-offset)%every, 0).UTC()
}

// Refusal is that the provider does not accept the current version of a key.
type Refusal struct {
	Version int `json:"version"`
	// First is the first of the refusals in a row.
	First time.Time `json:"first"`
	// Dead is when another came that was far enough from the first; zero: none has.
	Dead time.Time `json:"dead,omitzero"`
	// Message is the provider's, and holds no secret.
	Message string `json:"message"`
}

// Refused is what is known after a refusal at now. before is what was known; nil:
// the version had not been refused.
func Refused(before *Refusal, version int, now time.Time, message string) *Refusal {
	if before == nil || before.Version != version {
		return &Refusal{Version: version, First: now, Message: message}
	}
	if before.Dead.IsZero() && !now.Before(before.First.Add(RefusedApart)) {
		dead := *before
		dead.Dead, dead.Message = now, message
		return &dead
	}
	return before
}
