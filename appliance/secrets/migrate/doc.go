// Package migrate moves the secrets of a source tree from .env files into
// Vault, in steps with a way back at each of them: Scan, NewPlan, Apply,
// Verify, Cutover, Rollback.
//
// It never gives a value to a report or an error; whoever wants to see values
// asks Scan to keep them. It holds the values of a few files at a time, however
// many there are.
//
// It does not decide who may read what it has written: policies are made by
// the package apps.
package migrate
