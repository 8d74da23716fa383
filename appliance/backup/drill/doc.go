// Package drill is the cold rebuild: it fetches a snapshot from where backups
// go, brings it up in a scratch Vault that can reach nothing, and checks that
// what a restore would need is all there. It measures how old the data was (RPO)
// and how long the way to a serving Vault took (RTO), and writes a signed report.
//
// Two halves hold different powers. Fetch has the network and no key: it copies
// ciphertext. Run has the keys and no network. They run as two units.
//
// A rehearsal is the same with other programs: the restored Vault is stopped,
// started again by a new Vault, and its apikeys mounts are moved to a new
// plugin.
//
// It is not a restore: nothing that it starts outlives it. And it doesn't prove
// that the escrow opens; only somebody who opens it elsewhere can.
package drill

import "errors"

var (
	// ErrFailed means that the drill ran to its end and a check failed.
	ErrFailed = errors.New("the drill did not pass")
	// ErrTooOld means that nothing failed but the age of the newest data, or that nobody
	// knows it, as a clock is in doubt: a later snapshot may pass.
	ErrTooOld = errors.New("the data was too old, or nobody knows how old it was")
	// ErrNotFetched means that there is no fetched snapshot to work on.
	ErrNotFetched = errors.New("no snapshot has been fetched")
	// ErrNeedsToken means that a rehearsal with a plugin was given no token, or
	// one that the snapshot doesn't know.
	ErrNeedsToken = errors.New("moving the plugin needs an administrator's token that is in the snapshot")
)
