package steps

import (
	"context"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// rootToken ends the root token, then removes its file.
type rootToken struct{ *Env }

func (rootToken) ID() string    { return "root-token" }
func (rootToken) Title() string { return "root token revoked" }

func (s rootToken) Check(context.Context) (engine.Diff, error) {
	there, err := s.exists(machine.RootTokenFile)
	if err != nil || !there {
		return nil, err
	}
	return engine.Diff{{What: "root token", From: "alive for the installation", To: "revoked", Apply: func(ctx context.Context) error {
		c, err := s.rootClient(ctx)
		if err != nil {
			return err
		}
		if c != nil {
			// Nobody is locked out by this: the doctor's login works, and
			// the administrator's password is in the escrow.
			if _, err := s.doctorClient(ctx); err != nil {
				return err
			}
			if err := c.RevokeSelf(ctx); err != nil {
				return err
			}
		}
		return s.Host.Remove(machine.RootTokenFile)
	}}}, nil
}
