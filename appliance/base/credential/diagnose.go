package credential

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Why a credential does not open, where systemd says it.
var (
	// ErrLockout passes by itself.
	ErrLockout = errors.New("the TPM is in dictionary-attack lockout, as after power cuts")
	// ErrRefused stays: a PCR or the TPM itself has changed.
	ErrRefused = errors.New("the TPM refuses for good what is sealed there")
	// ErrHostKey stays, too: the host's key has changed or is gone.
	ErrHostKey = errors.New("it was sealed with another host's key")
	// ErrTPMGone means that no TPM answers.
	ErrTPMGone = errors.New("no TPM answers")
)

// sayings are what systemd 252 and newer say, with what libtss2 adds. They come
// from systemd-creds and, with "Failed at step CREDENTIALS" (243), from a unit.
var sayings = []struct {
	text string
	err  error
}{
	{"dictionary attack lockout", ErrLockout},
	{"DA lockout mode", ErrLockout},
	// systemd 257 says no more than errno; the TPM's own code is libtss2's.
	{"ErrorCode (0x00000921)", ErrLockout},
	{"using TPM2: No locks available", ErrLockout},
	{"ErrorCode (0x000001df)", ErrRefused}, // integrity, of the key that is loaded
	{"using TPM2: Operation not permitted", ErrRefused},
	{"Current policy digest does not match stored policy digest", ErrRefused},
	{"integrity check failed", ErrRefused}, // another TPM, or one that was cleared
	{"does not belong to this TPM", ErrRefused},
	{"does not belong to current TPM", ErrRefused},
	{"TPM2 PCR bank invalid or not supported", ErrRefused},
	{"a policy check failed", ErrRefused},
	{"PCR have changed since checked", ErrRefused},
	{"Failed to determine local credential key", ErrHostKey},
	{"Failed to determine local credential host secret", ErrHostKey},
	{"Decryption failed (incorrect key?)", ErrHostKey},
	{"Failed to initialize TCTI context", ErrTPMGone},
	{"Failed to open specified TCTI device file", ErrTPMGone},
	{"Cannot connect to swtpm TPM socket", ErrTPMGone},
	{"TPM2 device not available", ErrTPMGone},
	{"TPM2 support is not installed", ErrTPMGone},
	{"TPM2 support not available", ErrTPMGone},
	{"Failed to create TPM2 context", ErrTPMGone},
}

// Diagnose says what a message of systemd's means, or lines of a journal; nil for
// what says nothing of these. The last line that does counts: what came before
// it is a warning, or of an earlier try.
func Diagnose(message string) error {
	for _, line := range slices.Backward(strings.Split(message, "\n")) {
		for _, s := range sayings {
			if strings.Contains(line, s.text) {
				return s.err
			}
		}
	}
	return nil
}

func diagnosed(err error) error {
	if why := Diagnose(err.Error()); why != nil {
		return fmt.Errorf("%w: %w", why, err)
	}
	return err
}

// Hint is what to do about an error of Seal, Unseal or Choose; empty where the
// error says all.
func Hint(err error) string {
	switch {
	case errors.Is(err, ErrNoTPM):
		return `switch the TPM on in the firmware or for the virtual machine (systemd-creds has-tpm2 then says "yes"; it wants libtss2-esys and libtss2-rc), or set [unseal] seal = "auto"`
	case errors.Is(err, ErrNoAnswer):
		return `run the same command again; where the TPM is not to be used, set [unseal] seal = "host"`
	case errors.Is(err, ErrLockout):
		return "leave the machine on: the lockout ends by itself, and what waits for it is tried again; do not clear the TPM"
	case errors.Is(err, ErrRefused), errors.Is(err, ErrHostKey):
		return "make the credentials again from the escrow: docs/unseal.md, \"Make the credentials again\""
	case errors.Is(err, ErrTPMGone):
		return "the credentials are sealed by this machine's TPM: switch it on again, or make them again from the escrow: docs/unseal.md"
	}
	return ""
}
