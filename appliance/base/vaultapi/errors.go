package vaultapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

var (
	// ErrClear is a token or secret that would go in clear to another machine.
	ErrClear = errors.New("nothing goes to Vault in clear but on this machine: use https:// or unix://")
	// ErrNoData is an answer without what was asked for. Vault says "there is
	// nothing" otherwise (IsNotFound).
	ErrNoData = errors.New("the answer holds no data")
	// ErrWrapped is an answer that was wrapped though nobody here asked for that.
	ErrWrapped = errors.New("the answer is wrapped, and nobody has asked for that")
	// ErrNotVault is an answer that is not in Vault's form.
	ErrNotVault = errors.New("that is no answer of Vault's")
	// ErrTokenGone is a token that has ended since its accessor was listed.
	ErrTokenGone = errors.New("the token has ended")

	errUncertain = errors.New("its answer was lost, so it may have been done or not")
)

// Error is a refusal of Vault's, or of what stands in front of it.
type Error struct {
	Method, Path string
	Status       int      // of HTTP
	Errors       []string // Vault's words
	// Data that came with it: KV version 2 tells of a deleted version so.
	Data Data
	// foreign is an answer that is not in Vault's form.
	foreign bool
}

// Error is what was asked and what Vault answered, in one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: Vault answers %d", e.Method, e.Path, e.Status)
	switch {
	case e.foreign:
		return s + ", in another form than its own: is that Vault?"
	case len(e.Errors) > 0:
		// Vault indents and breaks its lists.
		return s + ": " + strings.Join(strings.Fields(strings.Join(e.Errors, "; ")), " ")
	case e.Status == http.StatusNotFound:
		return s + ": there is nothing"
	}
	return s
}

// Unwrap gives ErrNotVault where that is so.
func (e *Error) Unwrap() error {
	if e.foreign {
		return ErrNotVault
	}
	return nil
}

// Status is HTTP's of a refusal; 0 for any other error.
func Status(err error) int {
	if e := refused(err); e != nil {
		return e.Status
	}
	return 0
}

// refused is the refusal in err; nil if there is none.
func refused(err error) *Error {
	var e *Error
	errors.As(err, &e)
	return e
}

// Reasons are the words of a refusal.
func Reasons(err error) []string {
	if e := refused(err); e != nil && !e.foreign {
		return e.Errors
	}
	return nil
}

// Says tells whether a refusal holds words, where Vault's API has no other way
// to tell one from another.
func Says(err error, words string) bool {
	return slices.ContainsFunc(Reasons(err), func(s string) bool { return strings.Contains(s, words) })
}

// IsDenied says that the token may not, or has ended, or that there is none.
func IsDenied(err error) bool {
	return Status(err) == http.StatusForbidden || errors.Is(err, ErrNoToken)
}

// WantsToken says that Vault does this for nobody who has not logged in.
func WantsToken(err error) bool { return IsDenied(err) || Says(err, "missing client token") }

// IsNotFound says that Vault, or the engine mounted there, has looked and found
// nothing. A path that nobody answers is not that: see IsUnsupported.
func IsNotFound(err error) bool {
	e := refused(err)
	return e != nil && e.Status == http.StatusNotFound && !e.foreign && !unsupported(e)
}

// IsUnsupported says that nobody answers at a path: nothing is mounted there,
// or this version of Vault does not have it.
func IsUnsupported(err error) bool {
	e := refused(err)
	return e != nil && (unsupported(e) || e.Status == http.StatusMethodNotAllowed)
}

// unsupported: a 404 is also Vault's answer where nobody could look.
func unsupported(e *Error) bool {
	return e.Status == http.StatusNotFound && (Says(e, "no handler for route") || Says(e, "unsupported path"))
}

// IsUnmounted says that nothing is mounted where a path would be.
func IsUnmounted(err error) bool { return IsUnsupported(err) && Says(err, "no handler for route") }

// DataOf is what came with a refusal: KV version 2 tells of a deleted version
// so. It is nil for most.
func DataOf(err error) Data {
	if e := refused(err); e != nil {
		return e.Data
	}
	return nil
}

// IsBadRequest says that Vault has understood, and does not take what was sent.
func IsBadRequest(err error) bool { return Status(err) == http.StatusBadRequest }

// IsUnavailable says that Vault is sealed, or standing by without a leader.
func IsUnavailable(err error) bool { return Status(err) == http.StatusServiceUnavailable }

// IsChanged says that somebody else has written a KV secret first. Vault has no
// code of its own for that.
func IsChanged(err error) bool { return IsBadRequest(err) && Says(err, "check-and-set") }

// IsUncertain says of a change that nobody knows whether it was made: it was
// sent, and no answer came that tells.
func IsUncertain(err error) bool { return errors.Is(err, errUncertain) }

// IsInternal says that Vault failed, in its own words: so it does to everybody
// when it can write to no audit device.
func IsInternal(err error) bool { return Status(err) == http.StatusInternalServerError }

// IsRefusal says that Vault, or what stands in front of it, has answered at all.
func IsRefusal(err error) bool { return Status(err) != 0 }

// noAnswer is a connection that failed.
type noAnswer struct{ error }

func (e noAnswer) Unwrap() error { return e.error }

// IsNoAnswer says that Vault could not be reached, or the connection broke.
func IsNoAnswer(err error) bool {
	var e noAnswer
	var dial *net.OpError
	return errors.As(err, &e) || errors.As(err, &dial)
}
