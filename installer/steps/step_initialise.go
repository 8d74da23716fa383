package steps

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// initialise makes Vault's recovery keys and first root token. The keys go into
// the operator's escrow, the token into a systemd credential until setup is
// done.
type initialise struct{ *Env }

func (initialise) ID() string    { return "initialise" }
func (initialise) Title() string { return "Vault initialised, keys in escrow" }

// vaultPatience bounds a wait for Vault, which takes a second or two.
const vaultPatience = time.Minute

func (s initialise) Check(ctx context.Context) (engine.Diff, error) {
	fresh := engine.Change{What: "Vault",
		To:    fmt.Sprintf("initialised, %d of %d recovery keys in escrow", s.Config.Escrow.Threshold, s.Config.Escrow.Shares),
		Apply: s.initialise}
	health, err := s.health(ctx)
	if err != nil {
		// Not there yet, as plan finds a fresh machine; Apply waits and then
		// says what is wrong.
		if done, err := s.exists(machine.DoctorSecretFile); err != nil || done {
			return nil, err
		}
		return engine.Diff{fresh}, nil
	}
	if !health.Initialized {
		return engine.Diff{fresh}, nil
	}
	for _, p := range []string{machine.RootTokenFile, machine.DoctorSecretFile} {
		there, err := s.exists(p)
		if err != nil || there {
			return nil, err
		}
	}
	// Initialised, and nobody has the token: nothing can have been stored. But
	// only the journal can tell that it was this installer.
	if !s.Journal.Began(s.ID(), fresh.What) || s.Journal.Finished() {
		return nil, operator("if nobody needs what is in it: systemctl stop vault, move "+machine.VaultData+" away, and run the same command again",
			"Vault is initialised, and not by an unfinished run of this installer: neither %q nor %q is there", machine.RootTokenFile, machine.DoctorSecretFile)
	}
	return engine.Diff{{What: machine.RaftDir, From: "initialised by a run that was killed before it had stored the keys", To: "removed", Apply: s.wipe}, fresh}, nil
}

type health struct{ Initialized, Sealed bool }

func (e *Env) health(ctx context.Context) (health, error) {
	c, err := e.Vault("")
	if err != nil {
		return health{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h, err := c.Health(ctx)
	if err != nil {
		return health{}, err
	}
	return health{h.Initialized, h.Sealed}, nil
}

// wipe removes a storage that holds nothing.
func (s initialise) wipe(ctx context.Context) error {
	if err := s.Host.Stop(ctx, machine.UnitVault); err != nil {
		return err
	}
	if err := s.Host.RemoveAll(machine.RaftDir); err != nil {
		return err
	}
	return s.Host.Start(ctx, machine.UnitVault)
}

func (s initialise) initialise(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, vaultPatience, fmt.Errorf("not done within %v", vaultPatience))
	defer cancel()
	c, err := s.Vault("")
	if err != nil {
		return err
	}
	if err := c.WaitListening(ctx); err != nil {
		return &fault.Error{Code: fault.Failed, Err: err, Hint: "see journalctl -u vault -u strongroom-kms"}
	}
	// The place for the keys is tried before there are any.
	if err := s.tryPlaces(ctx); err != nil {
		return err
	}
	keys, err := c.Init(ctx, vaultapi.InitRequest{
		RecoveryShares: s.Config.Escrow.Shares, RecoveryThreshold: s.Config.Escrow.Threshold,
	})
	if err != nil {
		return err
	}
	if err := s.escrowShares(keys.RecoveryKeys); err != nil {
		return err
	}
	// Commit point: until the token is stored, the next run begins anew.
	token := []byte(keys.RootToken)
	defer clear(token)
	if err := s.sealCredential(ctx, machine.CredRootToken, machine.RootTokenFile, token); err != nil {
		return err
	}
	c.SetToken(keys.RootToken)
	return c.WaitActive(ctx)
}

// tryPlaces writes and reads back what will hold the keys.
func (s initialise) tryPlaces(ctx context.Context) error {
	const probe = "what is written and read back" // with spaces, which nothing encrypted has in base64
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("try the escrow: %w", err)
	}
	sealed, err := escrow.Seal([]byte(probe), append([]age.Recipient{id.Recipient()}, s.Recipients...)...)
	if err != nil {
		return err
	}
	path := machine.EscrowDir + "/probe.age"
	if err := s.Host.Write(path, bytes.NewReader(sealed), root(0o600)); err != nil {
		return fmt.Errorf("try the escrow: %w", err)
	}
	back, err := s.Host.ReadFile(path)
	if err != nil {
		return fmt.Errorf("try the escrow: %w", err)
	}
	if got, err := escrow.Open(back, id); err != nil || string(got) != probe {
		return fmt.Errorf("try the escrow: %q does not hold what was written (%w)", path, err)
	}
	if err := s.Host.Remove(path); err != nil {
		return fmt.Errorf("try the escrow: %w", err)
	}
	cred := machine.CredentialDir + "/probe"
	if err := s.sealCredential(ctx, "probe", cred, []byte(probe)); err != nil {
		return err
	}
	got, err := s.openCredential(ctx, "probe", cred)
	if err != nil {
		return err
	}
	if string(got) != probe {
		return fmt.Errorf("%q does not hold what was sealed in it", cred)
	}
	return s.Host.Remove(cred)
}

// escrowShares spreads the recovery keys over the recipients: with one
// recipient, one file; with several, a file for each, so that no one alone has
// more shares than need be.
func (s initialise) escrowShares(shares []string) error {
	hands := make([][]string, min(len(s.Recipients), len(shares)))
	for i, share := range shares {
		n := i % len(hands)
		hands[n] = append(hands[n], share)
	}
	for i, mine := range hands {
		file := fmt.Sprintf("%s/recovery-keys-%d.age", machine.EscrowDir, i+1)
		if err := s.escrowTo(file, []byte(strings.Join(mine, "\n")+"\n"), s.Recipients[i]); err != nil {
			return err
		}
	}
	return nil
}
