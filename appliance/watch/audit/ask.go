package audit

import (
	"context"
	"errors"
	"os"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// askWithin is how long Vault has for an answer. Of its audit devices each has 5 s.
const askWithin = 15 * time.Second

// AskVault makes a request that an active Vault logs with every device before it answers:
// who asks without a token is refused, and that is an answer.
func AskVault(c *vaultapi.Client) func(context.Context) Answer {
	c = c.Once(askWithin)
	return func(ctx context.Context) Answer {
		h, err := c.Health(ctx)
		switch {
		case timedOut(err):
			return Silent
		case err != nil, !h.Initialized, h.Sealed, h.Standby:
			return Idle
		}
		_, err = c.Read(ctx, "auth/token/lookup-self")
		switch {
		case timedOut(err):
			return Silent
		case vaultapi.IsInternal(err):
			return Mute
		case err == nil, vaultapi.IsRefusal(err) && !vaultapi.IsUnavailable(err):
			return Logged
		}
		return Idle // it ends, or was sealed just now
	}
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err)
}
