package evidence

import (
	"context"
	"fmt"
	"time"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/config/machine"
)

// ReadSealing says why systemd cannot open the master key for the KMS, as it
// told the journal; nil where it tells nothing of that. run runs a command, and
// left says how long a TPM stays in lockout. It is for a KMS that does not run:
// one that does may have been kept from it before.
func ReadSealing(ctx context.Context, run func(ctx context.Context, args ...string) ([]byte, error), left func() (time.Duration, error)) error {
	out, err := run(ctx, "journalctl", "--quiet", "--no-pager", "--boot", "--output=cat", "--lines=30", "--unit="+machine.UnitKMS)
	if err != nil {
		return nil // who may not read it is told nothing
	}
	why := credential.Diagnose(string(out))
	if why != credential.ErrLockout {
		return why
	}
	d, err := left()
	switch {
	case err != nil:
		return fmt.Errorf("%w; it ends by itself, in minutes to hours", why)
	case d == 0:
		return fmt.Errorf("%w; it has just ended, and the next try opens", why)
	}
	return fmt.Errorf("%w; it ends within %v", why, d)
}
