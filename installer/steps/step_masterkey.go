package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// masterKey makes the key that everything in Vault is sealed with: first into
// the operator's escrow, then into a systemd credential for the KMS. One that
// is there is never made again.
type masterKey struct{ *Env }

func (masterKey) ID() string    { return "master-key" }
func (masterKey) Title() string { return "master key and its escrow" }

func (s masterKey) Check(ctx context.Context) (engine.Diff, error) {
	sealed, err := s.exists(machine.MasterKeyFile)
	if err != nil {
		return nil, err
	}
	escrowed, err := s.exists(machine.MasterKeyEscrow)
	if err != nil {
		return nil, err
	}
	if !sealed {
		data, err := s.vaultHasData()
		if err != nil {
			return nil, err
		}
		if data && !s.wordGiven() {
			return nil, operator("put the master key back from its escrow (strongroom kms import); if surely nobody needs what is in it: --set-aside "+s.Config.Domain+" moves it away and begins anew",
				"Vault's storage is in %q and the master key that opens it is not in %q", machine.RaftDir, machine.MasterKeyFile)
		}
		way, err := s.howSealed(ctx)
		if err != nil {
			return nil, err
		}
		var diff engine.Diff
		if data {
			diff = append(diff, engine.Change{What: machine.RaftDir, From: "of a Vault whose master key is not here", To: "set aside, and kept", Apply: s.setAside})
		}
		return append(diff, engine.Change{What: "master key", To: fmt.Sprintf("new; escrow for %d recipients in %s, sealed for the KMS in %s, %s", len(s.Recipients), machine.MasterKeyEscrow, machine.MasterKeyFile, way),
			Apply: s.create}), nil
	}
	// Nothing else here works without it, and only people can bring it back.
	if _, err := s.keyInForce(ctx); err != nil {
		return nil, err
	}
	before, err := s.recipientsBefore()
	if err != nil {
		return nil, err
	}
	if len(before) > 0 && !slices.Equal(before, s.Config.Escrow.Recipients) {
		return engine.Diff{{What: machine.MasterKeyEscrow, From: fmt.Sprintf("for %d recipients of before", len(before)), To: fmt.Sprintf("the master key, for %d recipients, to be confirmed anew", len(s.Recipients)),
			Apply: func(ctx context.Context) error {
				if err := s.escrowAgain(ctx); err != nil {
					return err
				}
				s.note("escrow.recipients has changed: the master key is in escrow for them, and to be copied and confirmed anew; the recovery keys and the administrator's password can be opened by those alone whom they were made for (docs/escrow.md)")
				return s.rememberRecipients()
			}}}, nil
	}
	if escrowed {
		return nil, nil
	}
	confirmed, err := s.confirmed(ctx)
	if err != nil {
		return nil, err
	}
	if !confirmed {
		return engine.Diff{{What: machine.MasterKeyEscrow, To: fmt.Sprintf("the master key, for %d recipients", len(s.Recipients)), Apply: s.escrowAgain}}, nil
	}
	return nil, nil
}

// recipientsBefore are those that the configuration here names; nil where there is none.
func (s masterKey) recipientsBefore() ([]string, error) {
	b, err := s.Host.ReadFile(machine.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	was, err := config.Parse(machine.ConfigFile, b)
	if err != nil {
		return nil, nil // which the step for it puts right
	}
	return was.Escrow.Recipients, nil
}

// rememberRecipients writes into the configuration here whom the escrow is for now, and
// nothing else: the rest of it is a later step's.
func (s masterKey) rememberRecipients() error {
	b, err := s.Host.ReadFile(machine.ConfigFile)
	if err != nil {
		return err
	}
	was, err := config.Parse(machine.ConfigFile, b)
	if err != nil {
		return err
	}
	was.Escrow.Recipients = s.Config.Escrow.Recipients
	text, err := config.Encode(was)
	if err != nil {
		return err
	}
	return s.Host.Write(machine.ConfigFile, bytes.NewReader(text), root(0o644))
}

// confirmed says whether an escrow of the key in force has proved that it opens
// off the machine: then the copy here may be removed (docs/escrow.md).
func (s masterKey) confirmed(ctx context.Context) (bool, error) {
	b, err := s.Host.ReadFile(path.Join(machine.EscrowDir, escrow.ConfirmationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, err := escrow.ParseConfirmation(b)
	if err != nil {
		return false, operator("move it away, run the same command again, and confirm the escrow anew", "%s: %w", path.Join(machine.EscrowDir, escrow.ConfirmationFile), err)
	}
	proof, ok := c.Files[path.Base(machine.MasterKeyEscrow)]
	if !ok {
		return false, nil
	}
	keys, err := s.keyInForce(ctx)
	if err != nil {
		return false, err
	}
	return proof.Key == keys.Fingerprint(), nil
}

// keyInForce is what the KMS seals with.
func (s masterKey) keyInForce(ctx context.Context) (*kms.Keyset, error) {
	plain, err := s.openCredential(ctx, machine.CredMasterKey, machine.MasterKeyFile)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	keys, err := kms.ParseKeyset(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", machine.MasterKeyFile, err)
	}
	return keys, nil
}

// vaultHasData says whether Vault's storage has been used.
func (e *Env) vaultHasData() (bool, error) {
	names, err := e.Host.ReadDir(machine.RaftDir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(withoutLost(names)) > 0, err
}

// create writes the escrow first: a key that only this disk holds must never
// have encrypted anything. Nothing has, until the credential is there.
func (s masterKey) create(ctx context.Context) error {
	keys, err := kms.NewKeyset()
	if err != nil {
		return err
	}
	plain, err := keys.Marshal()
	if err != nil {
		return err
	}
	defer clear(plain)
	if err := s.escrow(machine.MasterKeyEscrow, plain); err != nil {
		return err
	}
	return s.sealCredential(ctx, machine.CredMasterKey, machine.MasterKeyFile, plain)
}

func (s masterKey) escrowAgain(ctx context.Context) error {
	plain, err := s.openCredential(ctx, machine.CredMasterKey, machine.MasterKeyFile)
	if err != nil {
		return err
	}
	defer clear(plain)
	if _, err := kms.ParseKeyset(plain); err != nil {
		return fmt.Errorf("%s: %w", machine.MasterKeyFile, err)
	}
	return s.escrow(machine.MasterKeyEscrow, plain)
}

// escrow writes a secret for the operator, in the only form that it may have on
// a disk.
func (e *Env) escrow(path string, plain []byte) error {
	return e.escrowTo(path, plain, e.Recipients...)
}

// escrowTo is escrow for some of the recipients. With the file go the challenges
// of "strongroom escrow confirm", which can be made only now.
func (e *Env) escrowTo(file string, plain []byte, to ...age.Recipient) error {
	sealed, err := escrow.Seal(plain, to...)
	if err != nil {
		return err
	}
	key := ""
	if file == machine.MasterKeyEscrow {
		k, err := kms.ParseKeyset(plain)
		if err != nil {
			return err
		}
		key = k.Fingerprint()
	}
	checks, err := escrow.NewChecks(path.Base(file), sealed, plain, key, e.Rand, e.Host.Now())
	if err != nil {
		return err
	}
	text, err := checks.Encode()
	if err != nil {
		return err
	}
	// They belong to this very file, so until it is there they say nothing.
	if err := e.Host.Write(path.Join(path.Dir(file), checks.Name()), bytes.NewReader(text), root(0o600)); err != nil {
		return err
	}
	if err := e.Host.Write(file, bytes.NewReader(sealed), root(0o600)); err != nil {
		return err
	}
	// Each version's challenges have a name of their own, so a killed run's are
	// nobody's.
	names, err := e.Host.ReadDir(path.Dir(file))
	if err != nil {
		return err
	}
	for _, n := range checks.Stale(names) {
		if err := e.Host.Remove(path.Join(path.Dir(file), n)); err != nil {
			return err
		}
	}
	return nil
}
