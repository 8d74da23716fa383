package steps

import (
	"context"
	"errors"
	"strings"

	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// accounts makes the users that the daemons and jobs run as. The KMS has none: systemd
// makes one for it at each start (DynamicUser=).
type accounts struct{ *Env }

func (accounts) ID() string    { return "accounts" }
func (accounts) Title() string { return "users" }

var users = []struct{ name, comment string }{
	{vaultUser, "HashiCorp Vault"},
	{frontUser, "Strongroom front"},
	// One for each job, so that what takes backups can't call them verified.
	{"strongroom-snapshot", "Strongroom snapshots"},
	{"strongroom-verify", "Strongroom verification of snapshots"},
	{"strongroom-drill", "Strongroom drill"},
	{"strongroom-monitor", "Strongroom metrics and alerts"},
}

func (s accounts) Check(context.Context) (engine.Diff, error) {
	var diff engine.Diff
	for _, u := range users {
		found, err := s.Host.User(u.name)
		switch {
		case errors.Is(err, host.ErrNotFound):
			diff = append(diff, engine.Change{What: "user " + u.name, To: "system user without login",
				Apply: func(ctx context.Context) error { return s.Host.AddSystemUser(ctx, u.name, u.comment) }})
		case err != nil:
			return nil, err
		case found.UID == 0 || !strings.HasSuffix(found.Shell, "nologin") && !strings.HasSuffix(found.Shell, "/false"):
			return nil, operator("remove or rename that user, then run the same command again",
				"user %q is there and can log in (uid %d, shell %q): it is not the appliance's", u.name, found.UID, found.Shell)
		}
	}
	return diff, nil
}
