package steps

import (
	"context"
	"errors"
	"strings"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// accounts makes the users that the daemons and jobs run as.
type accounts struct{ *Env }

func (accounts) ID() string    { return "accounts" }
func (accounts) Title() string { return "users" }

func (s accounts) Check(context.Context) (engine.Diff, error) {
	var diff engine.Diff
	for _, u := range machine.Accounts() {
		found, err := s.Host.User(u.Name)
		switch {
		case errors.Is(err, host.ErrNotFound):
			diff = append(diff, engine.Change{What: "user " + u.Name, To: "system user without login",
				Apply: func(ctx context.Context) error { return s.Host.AddSystemUser(ctx, u.Name, u.Comment) }})
		case err != nil:
			return nil, err
		case found.UID == 0 || !strings.HasSuffix(found.Shell, "nologin") && !strings.HasSuffix(found.Shell, "/false"):
			return nil, operator("remove or rename that user, then run the same command again",
				"user %q is there and can log in (uid %d, shell %q): it is not the appliance's", u.Name, found.UID, found.Shell)
		}
	}
	return diff, nil
}
