// Package restore brings a snapshot back into a running Vault: all of it, or
// single secrets.
//
// It checks a snapshot wholly before anything changes, keeps a snapshot of what
// it replaces, raises the epoch so that no engine acts on storage that is older
// than the world, and lets the apikeys engines reconcile afterwards. It works
// against a stock Vault too: then there is no epoch and nothing to reconcile.
//
// It does not make a Vault: a new machine gets its Vault, with the escrowed
// master key, from the installer.
package restore

import "errors"

var (
	// ErrOtherSeal means that the snapshot was sealed by another master key
	// than the Vault's.
	ErrOtherSeal = errors.New("the snapshot is sealed with another master key")
	// ErrSealed means that Vault sealed itself while it restored.
	ErrSealed = errors.New("vault is sealed after the restore")
	// ErrNewerVault means that the snapshot is of a newer Vault than this one, which may
	// not read its storage.
	ErrNewerVault = errors.New("the snapshot is of a newer vault")
	// ErrOtherAnswers means that a Vault that it is of still answers, which is none of this
	// cluster's nodes. They would follow it, be told that they are none of its nodes, and
	// seal themselves for good.
	ErrOtherAnswers = errors.New("a vault that the snapshot is of still answers")
	// ErrOtherProduct means that it is of OpenBao and this one is Vault, or the other way
	// round: neither reads the other's storage.
	ErrOtherProduct = errors.New("the snapshot is of another product")
	// ErrTokenKind means that the token can make no other, which tells the old storage
	// from the restored one.
	ErrTokenKind = errors.New("this kind of token cannot restore")
	// ErrNotReady means that there is no unsealed, active Vault to restore into.
	ErrNotReady = errors.New("vault cannot take a snapshot now")
	// ErrTokenGone means that the token in use is unknown to the restored Vault.
	ErrTokenGone = errors.New("the restored vault does not know this token")
	// ErrUnclear means that nobody knows whether Vault has taken the snapshot:
	// the connection ended too late. The epoch stays raised and waits stay ended.
	ErrUnclear = errors.New("it is not known whether vault has taken the snapshot")
	// ErrUnfinished means that Vault has taken the snapshot and that something
	// after that failed.
	ErrUnfinished = errors.New("restored, but not finished")
	// ErrProblems means that a reconcile left keys that it could not check.
	ErrProblems = errors.New("reconcile has left problems")
)
