package steps

import (
	"context"
	"errors"
	"fmt"
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
	if err := s.foreign(); err != nil {
		return nil, operator("remove or rename that user, then run the same command again", "%w", err)
	}
	var diff engine.Diff
	for _, u := range machine.Accounts() {
		_, err := s.Host.User(u.Name)
		if err == nil {
			continue
		}
		if !errors.Is(err, host.ErrNotFound) {
			return nil, err
		}
		diff = append(diff, engine.Change{What: "user " + u.Name, To: "system user without login",
			Apply: func(ctx context.Context) error { return s.Host.AddSystemUser(ctx, u.Name, u.Comment) }})
	}
	return diff, nil
}

// foreign refuses users and groups by the appliance's names that it can't use: files of
// Vault's are given to the group of its name.
func (s accounts) foreign() error {
	var errs []error
	for _, u := range machine.Accounts() {
		found, err := s.Host.User(u.Name)
		group, groupErr := s.Host.Group(u.Name)
		switch {
		case errors.Is(err, host.ErrNotFound): // one by that name that is there becomes its group
		case err != nil:
			errs = append(errs, err)
		case found.UID == 0 || !strings.HasSuffix(found.Shell, "nologin") && !strings.HasSuffix(found.Shell, "/false"):
			errs = append(errs, fmt.Errorf("user %q is there and can log in (uid %d, shell %q): it is not the appliance's", u.Name, found.UID, found.Shell))
		case errors.Is(groupErr, host.ErrNotFound) || groupErr == nil && group.GID != found.GID:
			errs = append(errs, fmt.Errorf("user %q is there and has another group (%d) than one of its own name: it is not the appliance's", u.Name, found.GID))
		case groupErr != nil:
			errs = append(errs, groupErr)
		}
	}
	return errors.Join(errs...)
}
