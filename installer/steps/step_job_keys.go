package steps

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// jobKeys makes the keys of the backup jobs and seals what the operator gives
// them: each a systemd credential that only one unit is handed. A key that is
// there is never made again.
type jobKeys struct{ *Env }

func (jobKeys) ID() string    { return "job-keys" }
func (jobKeys) Title() string { return "keys of backups and drill" }

func (s jobKeys) Check(ctx context.Context) (engine.Diff, error) {
	var c collect
	c.add(s.pair(ctx, machine.CredDrillKey, machine.DrillKeyPub, "age identity that proves backups", newDrillKey, drillRecipient))
	c.add(s.pair(ctx, machine.CredDrillSigningKey, machine.DrillSigningPub, "key that signs the reports of drills", s.newSigningKey, signingPublic))
	c.add(s.keyring(ctx))
	for _, name := range slices.Sorted(maps.Keys(s.Given)) {
		c.add(s.given(ctx, name, s.Given[name]))
	}
	c.add(s.named(ctx))
	return c.done()
}

// pair wants a secret in a credential and what is public of it in a file.
func (s jobKeys) pair(ctx context.Context, name, pub, what string, make func() ([]byte, error), public func([]byte) ([]byte, error)) (engine.Diff, error) {
	secret, there, err := s.kept(ctx, name)
	if err != nil {
		return nil, err
	}
	if there {
		defer clear(secret)
		text, err := public(secret)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", machine.CredentialFile(name), err)
		}
		return s.file(pub, bytesSource(text), root(0o644))
	}
	return engine.Diff{{What: machine.CredentialFile(name), To: "new " + what + "; public half in " + pub, Apply: func(ctx context.Context) error {
		secret, err := make()
		if err != nil {
			return err
		}
		defer clear(secret)
		text, err := public(secret)
		if err != nil {
			return err
		}
		// Commit point: after a kill behind it the public half is derived.
		if err := s.sealCredential(ctx, name, machine.CredentialFile(name), secret); err != nil {
			return err
		}
		return s.Host.Write(pub, bytes.NewReader(text), root(0o644))
	}}}, nil
}

// signers are the jobs that sign, by their role in the keyring, and where their keys are.
var signers = []struct{ role, credential string }{
	{snapshot.RoleTaker, machine.CredSnapshotSigningKey},
	{machine.JobDrill, machine.CredDrillSigningKey},
}

// keyring wants the public keys of the jobs in the keyring, and a copy of it in the
// escrow, which leaves the machine. A key that a job has no more is retired; those of a
// lost machine, whose keyring came with its escrow, verify as ever.
func (s jobKeys) keyring(ctx context.Context) (engine.Diff, error) {
	secret, signs, err := s.kept(ctx, machine.CredSnapshotSigningKey)
	clear(secret)
	if err != nil {
		return nil, err
	}
	var diff engine.Diff
	if !signs {
		diff = append(diff, engine.Change{What: machine.CredentialFile(machine.CredSnapshotSigningKey), To: "new key that signs snapshots", Apply: func(ctx context.Context) error {
			secret, err := s.newSigningKey()
			if err != nil {
				return err
			}
			defer clear(secret)
			return s.sealCredential(ctx, machine.CredSnapshotSigningKey, machine.CredentialFile(machine.CredSnapshotSigningKey), secret)
		}})
	}
	want, err := s.wantKeyring(ctx)
	if err != nil {
		return nil, err
	}
	write := func(path string, mode fs.FileMode) engine.Change {
		return engine.Change{What: path, To: "public keys of the jobs that sign", Apply: func(ctx context.Context) error {
			text, err := s.wantKeyring(ctx)
			if err != nil {
				return err
			}
			return s.Host.Write(path, bytes.NewReader(text), root(mode))
		}}
	}
	if !signs {
		return append(diff, write(machine.KeyringFile, 0o644), write(machine.KeyringEscrow, 0o600)), nil
	}
	if diff, err = s.file(machine.KeyringFile, bytesSource(want), root(0o644)); err != nil {
		return nil, err
	}
	// The escrow's is no installed file: it stays with what it belongs to.
	now, err := s.Host.ReadFile(machine.KeyringEscrow)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !bytes.Equal(now, want) {
		diff = append(diff, write(machine.KeyringEscrow, 0o600))
	}
	return diff, nil
}

// wantKeyring is what is there, in both places, with the keys of the jobs.
func (s jobKeys) wantKeyring(ctx context.Context) ([]byte, error) {
	now := s.Host.Now().UTC().Truncate(time.Second)
	var ring *signing.Keyring
	for _, p := range []string{machine.KeyringFile, machine.KeyringEscrow} {
		data, err := s.Host.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		other, err := signing.ParseKeyring(data)
		if err != nil {
			return nil, operator("bring the file back from your copy of the escrow, or from a backup's files", "%q: %w", p, err)
		}
		if ring == nil {
			ring = other
		} else {
			ring.Add(other, now)
		}
	}
	if ring == nil {
		ring = &signing.Keyring{}
	}
	for _, job := range signers {
		secret, there, err := s.kept(ctx, job.credential)
		if err != nil {
			return nil, err
		}
		if !there {
			continue // made in this run
		}
		key, err := signing.ParseKey(secret)
		clear(secret)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", machine.CredentialFile(job.credential), err)
		}
		ring.Use(job.role, s.Config.Domain, key.Public().(ed25519.PublicKey), now)
		clear(key)
	}
	return ring.Encode()
}

func newDrillKey() ([]byte, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make the drill's key: %w", err)
	}
	return []byte(id.String() + "\n"), nil
}

func drillRecipient(secret []byte) ([]byte, error) {
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(secret)))
	if err != nil {
		// The library's message may quote the key.
		return nil, errors.New("holds no age identity")
	}
	return []byte(id.Recipient().String() + "\n"), nil
}

func (s jobKeys) newSigningKey() ([]byte, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(s.Rand, seed); err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	defer clear(seed)
	return []byte(base64.StdEncoding.EncodeToString(seed) + "\n"), nil
}

func signingPublic(secret []byte) ([]byte, error) {
	key, err := signing.ParseKey(secret)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return signing.EncodePublic(key.Public().(ed25519.PublicKey)), nil
}

// given seals a file of the operator's. Once it is sealed the file may go; while
// it is there its content counts, so that a key pair is changed by giving the
// new one.
func (s jobKeys) given(ctx context.Context, name, from string) (engine.Diff, error) {
	cred := machine.CredentialFile(name)
	sealed, err := s.exists(cred)
	if err != nil {
		return nil, err
	}
	plain, err := s.Host.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) && sealed {
		return nil, nil
	}
	if err != nil {
		return nil, operator("give the file, with --backup-credentials or in the configuration", "credential %q: %w", name, err)
	}
	defer clear(plain)
	if err := checkGiven(name, from, plain); err != nil {
		return nil, err
	}
	c := engine.Change{What: cred, To: "what is in " + from + ", sealed", Apply: func(ctx context.Context) error {
		b, err := s.Host.ReadFile(from)
		if err != nil {
			return err
		}
		defer clear(b)
		return s.sealCredential(ctx, name, cred, b)
	}}
	if sealed {
		old, err := s.openCredential(ctx, name, cred)
		lost := errors.Is(err, errLost)
		if err != nil && !lost {
			return nil, err
		}
		defer clear(old)
		if !lost && bytes.Equal(old, plain) {
			return nil, nil
		}
		c.From = "another content"
	}
	return engine.Diff{c}, nil
}

// checkGiven refuses what no job could use. Its errors never quote it.
func checkGiven(name, from string, plain []byte) error {
	switch name {
	case machine.CredBackupWebhook, machine.CredAlertWebhook:
		u, err := url.Parse(strings.TrimSpace(string(plain)))
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return operator("put one line with the webhook's URL into it", "%q holds no URL", from)
		}
		return nil
	case machine.CredACMEDNSToken:
		return checkToken(from, plain)
	}
	var err error
	what := "access_key and secret_key"
	switch name {
	case machine.CredAlertSMTP:
		what = "username and password"
		_, _, err = config.DecodePair(from, plain, "username", "password")
	case machine.CredACMEEAB, machine.CredACMEFallbackEAB:
		what = "key_id and mac_key"
		_, _, err = credential.EAB(from, plain)
	default:
		what += " (and session_token, where the pair has one)"
		_, _, _, err = snapshot.KeyPair(from, plain)
	}
	if err != nil {
		return operator("it must hold "+what+", a line each, and nothing else", "%w", err)
	}
	return nil
}

// named finds credentials that the configuration names and that nobody has
// given.
func (s jobKeys) named(ctx context.Context) (engine.Diff, error) {
	var errs []error
	for _, name := range s.backupCredentials() {
		if _, given := s.Given[name]; given {
			continue
		}
		there, err := s.exists(machine.CredentialFile(name))
		if err != nil {
			return nil, err
		}
		if !there {
			errs = append(errs, fmt.Errorf("the configuration names the credential %q, and %q is not there", name, machine.CredentialFile(name)))
		} else if s.Remake {
			plain, err := s.openCredential(ctx, name, machine.CredentialFile(name))
			clear(plain)
			if err != nil {
				errs = append(errs, fmt.Errorf("the configuration names the credential %q: %w", name, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, operator("give it with --backup-credentials FILE, or name a file in the configuration", "%w", err)
	}
	return nil, nil
}

// backupCredentials are the names of the credentials that [backup] and [alert]
// speak of, sorted.
func (e *Env) backupCredentials() []string {
	set := map[string]bool{}
	for _, to := range e.Config.Backup.To {
		if to.Credentials != "" {
			set[to.Credentials] = true
		}
	}
	for _, name := range append(e.frontCredentials(), e.Config.Backup.WebhookFile, e.Config.Alert.WebhookFile, e.Config.Alert.Mail.Credentials) {
		if name != "" {
			set[name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
