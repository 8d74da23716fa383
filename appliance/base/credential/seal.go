package credential

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"strongroom.example/appliance/base/command"
	"strongroom.example/config"
)

// Way is what a credential is sealed with.
type Way string

// The ways. There is none with the TPM alone: the host's key costs nothing, and
// with both a stolen TPM opens no stolen copy of the credentials.
const (
	Host Way = "host"
	TPM  Way = "tpm"
)

// String is for a sentence such as "it is sealed …".
func (w Way) String() string {
	if w == TPM {
		return fmt.Sprintf("by the host's key and the TPM (PCR %d)", ourPCR)
	}
	return "by the host's key"
}

// ourPCR is the register that a TPM's policy names. Nothing in a boot extends
// it, so it has the same value after every update. systemd's old default, 7,
// changes with Secure Boot's lists; none at all seals what systemd 252 never
// opens again.
const ourPCR = 23

// flags are said in full: what systemd-creds takes by default differs by version.
func (w Way) flags() []string {
	if w == TPM {
		return []string{"--with-key=host+tpm2", fmt.Sprintf("--tpm2-pcrs=%d", ourPCR)}
	}
	return []string{"--with-key=host"}
}

// maxSealed is more than systemd-creds makes of any secret here, in bytes.
const maxSealed = 512 << 10

// Run runs systemd-creds(1) and gives its standard output, with an error too: it
// is the caller's to wipe. The error holds its standard error.
type Run func(ctx context.Context, stdin []byte, args ...string) ([]byte, error)

// System runs this machine's systemd-creds.
func System(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	// A buffer that never grows leaves no copies behind.
	out := bytes.NewBuffer(make([]byte, 0, maxSealed))
	var stderr bytes.Buffer
	c := command.New(ctx, "systemd-creds", args...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), out, &stderr
	if err := c.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("systemd-creds %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out.Bytes(), nil
}

// Seal encrypts plain under a name, which binds it to the one unit setting that
// may open it, and opens it once: systemd-creds is known to seal what nobody can
// open. What it gives may take the place of what was there. The secret goes by
// pipe.
func Seal(ctx context.Context, run Run, w Way, name string, plain []byte) ([]byte, error) {
	sealed, err := seal(ctx, run, w.flags(), name, plain)
	if err != nil {
		return nil, err
	}
	if s, known := Inspect(sealed); known && s.Way != w {
		return nil, fmt.Errorf("seal credential %q: it was to be sealed %s, and is sealed %s", name, w, s)
	}
	return sealed, nil
}

func seal(ctx context.Context, run Run, flags []string, name string, plain []byte) ([]byte, error) {
	args := append([]string{"encrypt"}, flags...)
	sealed, err := run(ctx, plain, append(args, "--name="+name, "-", "-")...)
	if err != nil {
		return nil, fmt.Errorf("seal credential %q: %w", name, diagnosed(err))
	}
	if len(sealed) == 0 || len(plain) > 0 && bytes.Contains(sealed, plain) {
		return nil, fmt.Errorf("seal credential %q: systemd-creds gave nothing that is encrypted", name)
	}
	back, err := Unseal(ctx, run, name, sealed)
	if err != nil {
		return nil, fmt.Errorf("what was just sealed does not open: %w", err)
	}
	defer clear(back)
	if !bytes.Equal(back, plain) {
		return nil, fmt.Errorf("seal credential %q: it opens with another content than was sealed", name)
	}
	return sealed, nil
}

// Unseal decrypts what Seal gave, or any credential of that name.
func Unseal(ctx context.Context, run Run, name string, sealed []byte) ([]byte, error) {
	plain, err := run(ctx, sealed, "decrypt", "--name="+name, "-", "-")
	if err != nil {
		clear(plain)
		return nil, fmt.Errorf("open credential %q: %w", name, diagnosed(err))
	}
	return plain, nil
}

var (
	// ErrNoTPM means that seal = "tpm" is set on a machine without a usable one.
	ErrNoTPM = errors.New("there is no usable TPM2")
	// ErrNoAnswer means that it could not be found out. That is no "no".
	ErrNoAnswer = errors.New("whether there is a usable TPM2 could not be found out")
)

// Choose says how this machine seals, by what [unseal] seal says. It writes
// nothing anywhere, and touches no TPM where seal is "host".
func Choose(ctx context.Context, run Run, setting string) (Way, error) {
	if setting == config.SealHost {
		return Host, nil
	}
	// Exit codes other than 0 are answers; silence is none.
	out, err := run(ctx, nil, "has-tpm2")
	first, _, _ := strings.Cut(string(out), "\n")
	switch first {
	case "yes", "partial", "no":
	default:
		return "", fmt.Errorf("%w: %w", ErrNoAnswer, cmp.Or(err, errors.New("systemd-creds has-tpm2 says nothing known")))
	}
	why := fmt.Errorf("systemd-creds has-tpm2 says %q: %s", first, lacking(out))
	if err == nil {
		why = tryTPM(ctx, run)
	}
	switch {
	case why == nil:
		return TPM, nil
	case errors.Is(why, ErrLockout):
		// It is there, and works again when the lockout has ended.
		return "", why
	case err == nil && Diagnose(why.Error()) == nil:
		// Who fails by chance is not gone: what is sealed there stays there.
		return "", fmt.Errorf("%w: %w", ErrNoAnswer, why)
	case setting == config.SealTPM:
		return "", fmt.Errorf("%w: %w", ErrNoTPM, why)
	}
	return Host, nil
}

// tryTPM is nil where the TPM seals and opens. The host's key has no part in it,
// as systemd would make one.
func tryTPM(ctx context.Context, run Run) error {
	const probe = "what is sealed and opened" // with spaces, which nothing sealed has in base64
	_, err := seal(ctx, run, []string{"--with-key=tpm2", fmt.Sprintf("--tpm2-pcrs=%d", ourPCR)}, "probe", []byte(probe))
	return err
}

// lacking are the lines of has-tpm2 that begin with a minus.
func lacking(out []byte) string {
	var lacks []string
	for line := range strings.Lines(string(out)) {
		if what, ok := strings.CutPrefix(strings.TrimSpace(line), "-"); ok {
			lacks = append(lacks, what)
		}
	}
	return "it lacks " + strings.Join(lacks, ", ")
}

// Sealed is how a credential is sealed, as it says itself.
type Sealed struct {
	// Way is empty where it is sealed in none of our ways.
	Way Way
	by  string
}

// String is for a sentence such as "it is sealed …".
func (s Sealed) String() string {
	if s.Way != "" {
		return s.Way.String()
	}
	return s.by
}

// kind is how an encrypted credential begins: the ids in systemd's creds-util.h.
type kind struct {
	id        string
	by        string
	host, tpm bool
}

var kinds = []kind{
	{"\x5a\x1c\x6a\x86\xdf\x9d\x40\x96\xb1\xd5\xa6\x5e\x08\x62\xf1\x9a", "by the host's key", true, false},
	{"\x0c\x7c\xc0\x7b\x11\x76\x45\x91\x9c\x4b\x0b\xea\x08\xbc\x20\xfe", "by the TPM", false, true},
	{"\x93\xa8\x94\x09\x48\x74\x44\x90\x90\xca\xf2\xfc\x93\xca\xb5\x53", "by the host's key and the TPM", true, true},
	{"\xfa\xf7\xeb\x93\x41\xe3\x41\x2c\xa1\xa4\x36\xf9\x5a\x29\x36\x2f", "by the TPM, with a signed policy", false, true},
	{"\xaf\x49\x50\xa8\x49\x13\x4e\xb1\xa7\x38\x46\x30\x4f\xf3\x0c\x05", "by the host's key and the TPM, with a signed policy", true, true},
	{NoKey, "with no key", false, false},
}

// NoKey begins a credential that systemd has "encrypted" with no key at all.
const NoKey = "\x05\x84\x69\xda\xf6\xf5\x43\x24\x80\x05\x49\xda\x0f\x8e\xa2\xfb"

// pcrMask is where the header of a TPM's part begins: after an id, four sizes and
// a nonce of 12 bytes, at the next multiple of 8.
const pcrMask = 48

// Inspect reads how a credential is sealed from its header; false for what this
// program does not know, as of a newer systemd.
func Inspect(sealed []byte) (Sealed, bool) {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(sealed)), ""))
	if err != nil || len(raw) < pcrMask+8 {
		return Sealed{}, false
	}
	at := slices.IndexFunc(kinds, func(k kind) bool { return string(raw[:len(k.id)]) == k.id })
	if at < 0 {
		return Sealed{}, false
	}
	k := kinds[at]
	if !k.tpm {
		if k.host {
			return Sealed{Way: Host}, true
		}
		return Sealed{by: k.by}, true
	}
	mask := binary.LittleEndian.Uint64(raw[pcrMask:])
	if k.by == kinds[2].by && mask == 1<<ourPCR {
		return Sealed{Way: TPM}, true
	}
	return Sealed{by: k.by + " (" + registers(mask) + ")"}, true
}

func registers(mask uint64) string {
	if mask == 0 {
		return "no PCR"
	}
	var names []string
	for mask != 0 {
		n := bits.TrailingZeros64(mask)
		names = append(names, fmt.Sprint(n))
		mask &^= 1 << n
	}
	return "PCR " + strings.Join(names, ", ")
}
