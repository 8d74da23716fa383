// Package status gathers the appliance's state and shows it on one screen: what
// is well, what needs somebody, and which keys rotate when.
//
// It is not the doctor: it looks at what the parts tell of themselves, and
// examines nothing.
package status

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/evidence"
)

// Sources are where the state is read.
type Sources struct {
	// Vault may be without a token; NoLogin then says why.
	Vault   *vaultapi.Client
	NoLogin error
	// Mount is where the engine for API keys is.
	Mount string
	// Front is host:port, Domain the name of its certificate; with an empty
	// Domain, NoDomain says why there is none.
	Front, Domain string
	NoDomain      error
	Places        evidence.Places
	// Sealing says why the KMS cannot open its master key, nil where nobody
	// knows; it is asked where Vault does not answer or is sealed. May be nil.
	Sealing func(context.Context) error
	// MasterKey is the master key's sealed credential, which root may read; may
	// be nil.
	MasterKey func() ([]byte, error)
	Now       func() time.Time
	// Patience bounds the whole look; 0: 15 s.
	Patience time.Duration
}

// Missing is a part that could not be shown, and why.
type Missing struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Report is the state of everything at one time. What is nil was not to be had:
// Missing says why, unless there simply is none yet.
type Report struct {
	At          time.Time             `json:"at"`
	Host        string                `json:"host"`
	Domain      string                `json:"domain,omitempty"`
	Vault       *evidence.Health      `json:"vault,omitempty"`
	Raft        *vaultapi.Raft        `json:"raft,omitempty"`
	Keys        *evidence.Keys        `json:"keys,omitempty"`
	Certificate *evidence.Certificate `json:"certificate,omitempty"`
	Backup      *evidence.Backup      `json:"backup,omitempty"`
	Drill       *report.Report        `json:"drill,omitempty"`
	// DrillFetch is why there is no newer drill; nil where nothing failed.
	DrillFetch *report.FetchFailure `json:"drill_fetch_failure,omitempty"`
	Escrow     *evidence.Escrow     `json:"escrow,omitempty"`
	Doctor     *evidence.Doctor     `json:"doctor,omitempty"`
	Audit      *audit.Ledger        `json:"audit,omitempty"`
	Firewall   *evidence.Firewall   `json:"firewall,omitempty"`
	// LockedOut are who cannot log in after wrong passwords.
	LockedOut *evidence.LockedOut `json:"locked_out,omitempty"`
	Lines     []Line              `json:"lines"`
	Missing   []Missing           `json:"missing,omitempty"`
	// SealedBy is what the master key is sealed with; empty for who may not read
	// its credential.
	SealedBy string `json:"sealed_by,omitempty"`
	tpm      bool
	// Locked is why the master key cannot be opened, where systemd says it.
	Locked     string `json:"locked,omitempty"`
	lockedHint string
	// Mute says that Vault is unsealed and yet answers 500 to everybody, as it
	// does while it can write to no audit device. Its health does not tell.
	Mute bool `json:"mute,omitempty"`
}

// Gather looks at everything. It never fails: what can't be had is in Missing.
func Gather(ctx context.Context, s Sources) Report {
	patience := s.Patience
	if patience == 0 {
		patience = 15 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not done within %v", patience))
	defer cancel()
	r := Report{At: s.Now().UTC(), Domain: s.Domain}
	// A machine without a name is one all the same.
	r.Host, _ = os.Hostname()
	r.sealed(s)
	r.vault(ctx, s)
	if s.Domain == "" {
		r.missing("certificate", s.NoDomain)
	} else {
		set(&r, "certificate", &r.Certificate)(evidence.ReadCertificate(ctx, s.Front, s.Domain))
	}
	set(&r, "backups", &r.Backup)(evidence.ReadBackup(s.Places))
	if d, err := evidence.ReadDrill(s.Places); err == nil {
		r.Drill = d
	} else {
		r.missing("drill", err)
	}
	set(&r, "fetch for the drill", &r.DrillFetch)(evidence.ReadFetchFailure(s.Places))
	set(&r, "escrow", &r.Escrow)(evidence.ReadEscrow(s.Places))
	set(&r, "doctor", &r.Doctor)(evidence.ReadDoctor(s.Places))
	set(&r, "audit logs", &r.Audit)(evidence.ReadAudit(s.Places))
	set(&r, "firewall", &r.Firewall)(evidence.ReadFirewall(s.Places))
	r.Lines = r.lines()
	return r
}

func (r *Report) vault(ctx context.Context, s Sources) {
	h, err := evidence.ReadHealth(ctx, s.Vault)
	if s.Sealing != nil && (err != nil || h.Sealed) {
		if why := s.Sealing(ctx); why != nil {
			r.Locked, r.lockedHint = why.Error(), credential.Hint(why)
		}
	}
	if err != nil {
		r.missing("Vault", err)
		return
	}
	r.Vault = &h
	const inside = "raft, API keys and next rotations"
	switch {
	case !h.Initialized, h.Sealed:
		r.missing(inside, errors.New("vault is sealed or not initialised"))
	case s.NoLogin != nil:
		r.Mute = internalError(s.NoLogin)
		r.missing(inside, s.NoLogin)
	default:
		raft, err := s.Vault.Raft(ctx)
		r.Mute = internalError(err)
		set(r, "raft", &r.Raft)(raft, err)
		set(r, "API keys and next rotations", &r.Keys)(evidence.ReadKeys(ctx, s.Vault, s.Mount))
		set(r, "locked log-ins", &r.LockedOut)(evidence.ReadLockedOut(ctx, s.Vault))
	}
}

func (r *Report) sealed(s Sources) {
	if s.MasterKey == nil {
		return
	}
	data, err := s.MasterKey()
	if err != nil {
		return // root's alone, and none where Vault is unsealed otherwise
	}
	if how, known := credential.Inspect(data); known {
		r.SealedBy, r.tpm = how.String(), how.Way == credential.TPM
	}
}

func internalError(err error) bool {
	return vaultapi.IsInternal(err)
}

// set stores what was read, or why it was not.
func set[T any](r *Report, what string, to **T) func(T, error) {
	return func(v T, err error) {
		if err == nil {
			*to = &v
			return
		}
		r.missing(what, err)
	}
}

func (r *Report) missing(what string, err error) {
	if err == nil || errors.Is(err, evidence.ErrNone) {
		return
	}
	r.Missing = append(r.Missing, Missing{what, plain(err)})
}
