// Package condition is the words for a key's state: what each means, how grave it
// is, and what to do. The engine says one of them of each key; status, metrics,
// alert rules and pages say of it what stands here, which tests hold them to.
//
// It decides nothing: which word holds is the engine's to say. It imports none of
// our packages, and both the engine and the appliance may import it.
package condition

import "slices"

// Name is the word as the engine answers it.
type Name string

// The words, in the order in which a page lists them.
const (
	OK                Name = "ok"
	Pending           Name = "pending"
	Deleting          Name = "deleting"
	AwaitingImport    Name = "awaiting_import"
	InUse             Name = "in_use"
	Overdue           Name = "overdue"
	Failing           Name = "failing"
	RevocationFailing Name = "revocation_failing"
	RevokedUnverified Name = "revoked_unverified"
	Uncertain         Name = "uncertain"
	Dead              Name = "dead"
	Down              Name = "down"
)

// Severity is how soon somebody must look.
type Severity int

// Severities, the lightest first. Only Bad turns status bad; every severity above
// Well raises an alert.
const (
	Well Severity = iota
	Attention
	Bad
)

// String is the word that status and the pages use.
func (s Severity) String() string {
	return [...]string{"well", "attention", "bad"}[s]
}

// The alert rules, in config/alerts, which the conditions raise.
const (
	alertFail   = "KeysFail"
	alertImport = "KeysAwaitImport"
	alertInUse  = "KeysInUse"
)

// Condition is one row of the table.
type Condition struct {
	Name     Name
	Means    string
	Severity Severity
	// Alert is the rule that fires; "" for what needs nobody.
	Alert string
	// Remedy is what to do; "" for what needs nobody.
	Remedy string
}

// All is the table.
func All() []Condition {
	return []Condition{
		{OK, "nothing is to be done", Well, "", ""},
		{Pending, "a new version is being made", Well, "", ""},
		{Deleting, "the key is being deleted", Well, "", ""},
		{AwaitingImport, "it has no version yet, and only a person can bring the first", Attention, alertImport,
			"`vault write apikeys/import/NAME`"},
		{InUse, "a replaced version is still used", Attention, alertInUse,
			"somebody still has the old version and does not keep to `cache_ttl`. Find out who before `revoke_time`, or set `revoke_in_use=delay`"},
		{Overdue, "its rotation is due and has not happened", Bad, alertFail,
			"a key for `import`, or automation is held up by a cap or a window"},
		{Failing, "a rotation has failed", Bad, alertFail,
			"read the reason; mostly the provider's credential. The engine goes on by itself"},
		{RevocationFailing, "a replaced version could not be ended", Bad, alertFail,
			"read the reason; the old version may still work. The engine goes on by itself"},
		{RevokedUnverified, "a version was revoked, and the service still shows it alive", Bad, alertFail,
			"look for it at the service and end it there, then `vault write apikeys/resolve/NAME version=N action=absent`; `action=revoke` tries again. `versions/NAME` has its id"},
		{Uncertain, "whether the service has made a new version is not known", Bad, alertFail,
			"the answer to a request for a new key was lost and the service cannot list. Look at its console for the name that `keys/NAME` shows, end that key there, then `vault write apikeys/resolve/NAME action=absent`"},
		{Dead, "the service refuses the current version, and readers still get it", Bad, alertFail,
			"somebody has ended it at the service, or it ended by itself: `vault write apikeys/rotate/NAME force=true`, or `import` for a key that a person brings. `vault write -f apikeys/check/NAME` looks again"},
		{Down, "it has no version that can be read", Bad, alertFail,
			"`vault write -f apikeys/rotate/NAME`, or `import` for a key that a person brings"},
	}
}

// Of gives the row of a word that an engine has said. A word that is not in the
// table, a newer engine's, needs a person.
func Of(word string) Condition {
	all := All()
	if i := slices.IndexFunc(all, func(c Condition) bool { return string(c.Name) == word }); i >= 0 {
		return all[i]
	}
	return Condition{Name: Name(word), Means: "a word that this version does not know", Severity: Bad, Alert: alertFail, Remedy: "`vault read apikeys/status`"}
}
