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

// whatVault is what the journal knows the initialisation by.
const whatVault = "Vault"

// vaultPatience bounds a wait for Vault, which takes a second or two.
const vaultPatience = time.Minute

func (s initialise) Check(ctx context.Context) (engine.Diff, error) {
	fresh := engine.Change{What: whatVault,
		To:    fmt.Sprintf("initialised, %d of %d recovery keys in escrow", s.Config.Escrow.Threshold, s.Config.Escrow.Shares),
		Apply: s.initialise}
	inUse, err := s.exists(machine.DoctorSecretFile)
	if err != nil || inUse {
		return nil, err
	}
	health, err := s.health(ctx)
	if err != nil {
		// Not there yet, as plan finds a fresh machine; Apply waits and then
		// says what is wrong.
		return engine.Diff{fresh}, nil
	}
	if !health.Initialized {
		return engine.Diff{fresh}, nil
	}
	keys, err := s.recoveryEscrow()
	if err != nil {
		return nil, err
	}
	unfinished := s.Journal.Unfinished(s.ID(), whatVault)
	anew := func(from string) engine.Diff {
		return engine.Diff{{What: machine.RaftDir, From: from, To: "set aside, and kept", Apply: s.setAside}, fresh}
	}
	there, err := s.exists(machine.RootTokenFile)
	if err != nil {
		return nil, err
	}
	if there {
		whole := len(keys) >= len(s.hands())
		if whole || !unfinished {
			return nil, nil
		}
		if empty, err := s.untouched(ctx); err != nil || !empty {
			return nil, err
		}
		return anew("initialised by a run that was stopped before the recovery keys were in escrow"), nil
	}
	// Initialised, and nobody has the token. What was begun and has not ended can hold
	// nothing; but only the journal can tell that it was begun here, and a key that
	// somebody has is a way in.
	if unfinished && len(keys) == 0 || s.wordGiven() {
		return anew("initialised, and nobody has a key to it"), nil
	}
	return nil, s.refuse()
}

// refuse is about a Vault that this machine has no way into, and that may be needed.
func (s initialise) refuse() error {
	return operator("log in as an administrator and give the token in VAULT_TOKEN or by --token-file, or bring it back with the recovery keys (strongroom generate-root); "+
		"if surely nobody needs what is in it: --set-aside "+s.Config.Domain+" moves "+machine.RaftDir+" away and begins anew",
		"Vault is initialised, and not by an unfinished run of this installer: neither %q nor %q is there", machine.RootTokenFile, machine.DoctorSecretFile)
}

// untouched says that in Vault there is nothing of what an installation makes after its
// first step, asked with the root token.
func (s initialise) untouched(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, vaultPatience, fmt.Errorf("not done within %v", vaultPatience))
	defer cancel()
	c, err := s.Vault("")
	if err != nil {
		return false, err
	}
	if err := c.WaitActive(ctx); err != nil {
		return false, fmt.Errorf("whether anything is in Vault: %w", err)
	}
	if c, err = s.rootClient(ctx); err != nil || c == nil {
		return false, err
	}
	mounts, err := c.Mounts(ctx)
	if err != nil {
		return false, fmt.Errorf("list mounts: %w", err)
	}
	for at := range mounts {
		switch at {
		case "sys/", "identity/", "cubbyhole/":
		default:
			return false, nil
		}
	}
	return true, nil
}

type health struct{ Initialized, Sealed bool }

func (e *Env) health(ctx context.Context) (health, error) {
	c, err := e.Vault("")
	if err != nil {
		return health{}, err
	}
	if socket, ok := strings.CutPrefix(c.Address(), "unix://"); ok {
		// Where there is none nobody comes, and nobody is waited for.
		if _, err := e.Host.Stat(socket); err != nil {
			return health{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h, err := c.Health(ctx)
	if err != nil {
		return health{}, err
	}
	return health{h.Initialized, h.Sealed}, nil
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
	want := vaultapi.InitRequest{RecoveryShares: s.Config.Escrow.Shares, RecoveryThreshold: s.Config.Escrow.Threshold}
	keys, err := c.Init(ctx, want)
	if err != nil && strings.Contains(err.Error(), "already has state") {
		if err := s.begunBefore(ctx, err); err != nil {
			return err
		}
		if err := c.WaitListening(ctx); err != nil {
			return &fault.Error{Code: fault.Failed, Err: err, Hint: "see journalctl -u vault -u strongroom-kms"}
		}
		keys, err = c.Init(ctx, want)
	}
	if err != nil {
		return err
	}
	// An interrupt that comes now is too late: what Vault has told is told once.
	ctx = context.WithoutCancel(ctx)
	token := []byte(keys.RootToken)
	defer clear(token)
	if err := s.sealCredential(ctx, machine.CredRootToken, machine.RootTokenFile, token); err != nil {
		return err
	}
	// Commit point: until the keys are in escrow, the next run begins anew.
	if err := s.escrowShares(keys.RecoveryKeys); err != nil {
		return err
	}
	c.SetToken(keys.RootToken)
	ctx, cancel = context.WithTimeoutCause(ctx, vaultPatience, fmt.Errorf("not done within %v", vaultPatience))
	defer cancel()
	return c.WaitActive(ctx)
}

// begunBefore sets a storage aside that a power cut has left, which Vault takes neither
// for its own nor for a new one. Where the journal shows that it was begun here and that
// nobody was told a key of it, that needs nobody's word.
func (s initialise) begunBefore(ctx context.Context, why error) error {
	keys, err := s.recoveryEscrow()
	if err != nil {
		return err
	}
	if s.Journal.Unfinished(s.ID(), whatVault) && len(keys) == 0 || s.wordGiven() {
		return s.setAside(ctx)
	}
	return operator("if surely nobody needs what is in it: --set-aside "+s.Config.Domain+" moves "+machine.RaftDir+" away and begins anew",
		"Vault's storage is neither new nor initialised: %w", why)
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

// recoveryKeys begins the names of the files in escrow that hold them.
const recoveryKeys = "recovery-keys-"

// hands are as many as there are files of recovery keys.
func (s initialise) hands() [][]string {
	return make([][]string, min(len(s.Recipients), s.Config.Escrow.Shares))
}

// escrowShares spreads the recovery keys over the recipients: with one
// recipient, one file; with several, a file for each, so that no one alone has
// more shares than need be.
func (s initialise) escrowShares(shares []string) error {
	hands := s.hands()
	for i, share := range shares {
		n := i % len(hands)
		hands[n] = append(hands[n], share)
	}
	for i, mine := range hands {
		file := fmt.Sprintf("%s/%s%d.age", machine.EscrowDir, recoveryKeys, i+1)
		if err := s.escrowTo(file, []byte(strings.Join(mine, "\n")+"\n"), s.Recipients[i]); err != nil {
			return err
		}
	}
	return nil
}
