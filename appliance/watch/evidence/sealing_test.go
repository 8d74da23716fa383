package evidence

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/credential"
)

func TestReadSealing(t *testing.T) {
	const failed = "\nstrongroom-kms.service: Failed to set up credentials: Protocol error\nstrongroom-kms.service: Main process exited, code=exited, status=243/CREDENTIALS\n"
	for name, c := range map[string]struct {
		journal string
		err     error
		left    time.Duration
		noTPM   error
		want    error
		says    string
	}{
		"well":          {"kms is ready\n", nil, 0, nil, nil, ""},
		"no journal":    {"TPM2 device is in dictionary attack lockout mode.", errors.New("denied"), 0, nil, nil, ""},
		"other trouble": {"no master key" + failed, nil, 0, nil, nil, ""},
		"lockout":       {"TPM2 device is in dictionary attack lockout mode." + failed, nil, 1000 * time.Second, nil, credential.ErrLockout, "it ends within 16m40s"},
		"lockout over":  {"TPM2 device is in dictionary attack lockout mode." + failed, nil, 0, nil, credential.ErrLockout, "the next try opens"},
		"lockout, no right to ask the TPM": {"TPM2 device is in dictionary attack lockout mode." + failed, nil, 0, errors.New("denied"),
			credential.ErrLockout, "in minutes to hours"},
		"refused":      {"Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt." + failed, nil, 0, nil, credential.ErrRefused, ""},
		"no TPM":       {"Failed to initialize TCTI context: tcti:IO failure" + failed, nil, 0, nil, credential.ErrTPMGone, ""},
		"another host": {"Decryption failed (incorrect key?): error:00000000" + failed, nil, 0, nil, credential.ErrHostKey, ""},
	} {
		run := func(_ context.Context, args ...string) ([]byte, error) {
			if args[0] != "journalctl" || args[len(args)-1] != "--unit=strongroom-kms.service" {
				t.Errorf("asked %q", args)
			}
			return []byte(c.journal), c.err
		}
		got := ReadSealing(t.Context(), run, func() (time.Duration, error) { return c.left, c.noTPM })
		if !errors.Is(got, c.want) || got != nil && !strings.Contains(got.Error(), c.says) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
