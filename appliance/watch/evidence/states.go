package evidence

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/escrow"
)

// Backup is the newest verified snapshot, and what stands in the way of newer
// ones.
type Backup struct {
	// ID, TakenAt and VerifiedAt are the newest verified snapshot's, wherever it
	// is held. Zero where none was ever verified.
	ID         string    `json:"id,omitempty"`
	TakenAt    time.Time `json:"taken_at,omitzero"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	Size       int64     `json:"size,omitempty"` // bytes of ciphertext
	// Places are the names of the destinations that have a verified snapshot,
	// with the time at which their newest one was taken.
	Places map[string]time.Time `json:"places,omitempty"`
	// Locked are those of them where object lock holds the newest one, with the time until
	// which nobody can delete it.
	Locked map[string]time.Time `json:"locked,omitempty"`
	// InDoubt says that nobody knows how old the newest verified snapshot is, and
	// ClockDoubted in how many checks in a row this machine's clock was in doubt.
	InDoubt      bool `json:"in_doubt,omitempty"`
	ClockDoubted int  `json:"clock_doubted,omitempty"`
	// LastTaken is when the newest snapshot was taken, verified or not.
	LastTaken time.Time `json:"last_taken,omitzero"`
	// TakeFailure and VerifyFailure are the last runs', if they failed.
	TakeFailure   *snapshot.Failure `json:"take_failure,omitempty"`
	VerifyFailure *snapshot.Failure `json:"verify_failure,omitempty"`
	// PlaceFailures are what is wrong with places, by name: what the taking job met there,
	// else the verifying one.
	PlaceFailures map[string]snapshot.Failure `json:"place_failures,omitempty"`
	// CanaryFailure is why the newest snapshot has no canary although it should:
	// it is a backup, and a drill of it fails.
	CanaryFailure *snapshot.Failure `json:"canary_failure,omitempty"`
	// Standby is when the taking job last stood aside for the leader of a cluster;
	// what else is here is then from the time when this node led. Nil: it takes
	// them itself.
	Standby *time.Time `json:"standby,omitempty"`
}

// StandsBy says whether the backups are another node's to take and to verify.
func (b Backup) StandsBy() bool { return b.Standby != nil && b.TakeFailure == nil }

// ReadBackup reads the states of the taking and the verifying job. ErrNone:
// neither has ever run.
func ReadBackup(p Places) (Backup, error) {
	taken, err := snapshot.LoadTakeState(p.Snapshot)
	if err != nil {
		return Backup{}, err
	}
	verified, err := snapshot.LoadVerifyState(p.Verify)
	if err != nil {
		return Backup{}, err
	}
	b := Backup{ClockDoubted: verified.ClockDoubted, TakeFailure: taken.Failure, VerifyFailure: verified.Failure, CanaryFailure: taken.CanaryFailure, Standby: taken.Standby}
	b.PlaceFailures = maps.Clone(verified.Failures)
	if b.PlaceFailures == nil {
		b.PlaceFailures = map[string]snapshot.Failure{}
	}
	maps.Copy(b.PlaceFailures, taken.Failures)
	// A run of fewer places, by hand or again, does not mend the others.
	if b.VerifyFailure == nil && b.TakeFailure == nil {
		for _, place := range slices.Sorted(maps.Keys(b.PlaceFailures)) {
			f := b.PlaceFailures[place]
			f.Error = place + ": " + f.Error
			b.VerifyFailure = &f
			break
		}
	}
	// Newest is what lineage and raft index say, never a date.
	var last, best snapshot.Position
	for _, r := range taken.Last {
		if c := r.Position().Compare(last); c > 0 || c == 0 && r.TakenAt.After(b.LastTaken) {
			last, b.LastTaken = r.Position(), r.TakenAt
		}
	}
	for place, r := range verified.LastGood {
		if b.Places == nil {
			b.Places, b.Locked = map[string]time.Time{}, map[string]time.Time{}
		}
		if !r.LockedUntil.IsZero() {
			b.Locked[place] = r.LockedUntil
		}
		b.Places[place] = r.TakenAt
		// The place that verified it first, where several hold the same one.
		if c := r.Position().Compare(best); b.ID == "" || c > 0 || c == 0 && r.VerifiedAt.Before(b.VerifiedAt) {
			best, b.InDoubt = r.Position(), r.ClockInDoubt
			b.ID, b.TakenAt, b.VerifiedAt, b.Size = r.ID, r.TakenAt, r.VerifiedAt, r.Size
		}
	}
	if len(taken.Last) == 0 && len(verified.LastGood) == 0 && taken.Failure == nil && verified.Failure == nil && taken.Standby == nil {
		return b, ErrNone
	}
	return b, nil
}

// FromTheFuture says of an age that some clock was or is wrong: nothing can be said of
// what is that old.
func FromTheFuture(age time.Duration) bool { return age < -snapshot.ClockSkew }

// From when on a backup or a drill is too old.
const (
	// BackupLate is twice the timer's hour, BackupStale a day.
	BackupLate  = 2 * time.Hour
	BackupStale = 25 * time.Hour
	// DrillLate is a quarter with a week's leave.
	DrillLate = (92 + 7) * 24 * time.Hour
)

// Doctor is the outcome of the doctor's last run.
type Doctor struct {
	At   time.Time `json:"at"`
	Pass int       `json:"pass"`
	Warn int       `json:"warn"`
	Fail int       `json:"fail"`
	Skip int       `json:"skip"`
	// Failing are the ids of the items that failed.
	Failing []string `json:"failing,omitempty"`
	// Verdicts are those of all items, by their ids.
	Verdicts map[string]string `json:"-"`
}

// Verdicts of the doctor's items.
const (
	Pass = "pass"
	Warn = "warn"
	Fail = "fail"
	Skip = "skip"
)

// DoctorFormat is the version of the doctor's report's layout.
const DoctorFormat = 1

// ReadDoctor reads the doctor's last report, of which it takes the verdicts.
func ReadDoctor(p Places) (Doctor, error) {
	var report struct {
		At    time.Time `json:"at"`
		Items []struct {
			ID      string `json:"id"`
			Verdict string `json:"verdict"`
		} `json:"items"`
	}
	path := filepath.Join(p.Doctor, "last.json")
	if err := statefile.Load(path, DoctorFormat, &report); err != nil {
		return Doctor{}, err
	}
	d := Doctor{At: report.At, Verdicts: map[string]string{}}
	for _, i := range report.Items {
		d.Verdicts[i.ID] = i.Verdict
		switch i.Verdict {
		case Pass:
			d.Pass++
		case Warn:
			d.Warn++
		case Fail:
			d.Fail++
			d.Failing = append(d.Failing, i.ID)
		case Skip:
			d.Skip++
		default:
			return Doctor{}, fmt.Errorf("state file %q: item %q has the verdict %q", path, i.ID, i.Verdict)
		}
	}
	return d, nil
}

// ReadDrill reads the newest drill's report. ErrNone: there was none. The
// signature is not checked: see DrillSignature.
func ReadDrill(p Places) (*report.Report, error) {
	r, err := report.Last(p.Drill)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, ErrNone
	}
	return r, nil
}

// ReadFetchFailure reads why there is no newer drill than the last report tells
// of: the fetch for it failed. ErrNone: none has, or a drill came after it.
func ReadFetchFailure(p Places) (report.FetchFailure, error) {
	f, err := report.LastFetchFailure(p.Drill)
	if err != nil {
		return report.FetchFailure{}, err
	}
	if f == nil {
		return report.FetchFailure{}, ErrNone
	}
	// A report that can't be read is another's fault to tell.
	if r, err := report.Last(p.Drill); err == nil && r != nil && !r.FinishedAt.Before(f.At) {
		return report.FetchFailure{}, ErrNone
	}
	return *f, nil
}

// DrillSignature checks the newest report's signature by the public key in a
// file: signing.ErrNotSigned, signing.ErrSignature; ErrNone where there is no report.
func DrillSignature(p Places, keyFile string) error {
	data, err := os.ReadFile(report.LastPath(p.Drill))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	signed, err := report.Parse(data)
	if err != nil {
		return err
	}
	pub, err := os.ReadFile(keyFile)
	if err != nil {
		return fmt.Errorf("key of drills: %w", err)
	}
	key, err := signing.ParsePublic(pub)
	if err != nil {
		return err
	}
	return signed.Verify(key)
}

// Escrow is what is known of the files that the operator alone can open.
type Escrow struct {
	Files []escrow.FileStatus `json:"files"`
}

// Confirmed says whether each of the files has proved that it opens off the
// machine.
func (e Escrow) Confirmed() bool {
	for _, f := range e.Files {
		if !f.Confirmed() {
			return false
		}
	}
	return len(e.Files) > 0
}

// Unconfirmed are the names of the files without that proof.
func (e Escrow) Unconfirmed() []string {
	var out []string
	for _, f := range e.Files {
		if !f.Confirmed() {
			out = append(out, f.File)
		}
	}
	return out
}

// ReadEscrow reads which escrow files there are and what each has proved. ErrNone:
// there is none at all.
func ReadEscrow(p Places) (Escrow, error) {
	files, err := escrow.LoadStatus(p.Escrow)
	if err != nil {
		return Escrow{}, err
	}
	entries, err := os.ReadDir(p.Escrow)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Escrow{}, err
	}
	// A file that nothing was recorded of is one that has proved nothing.
	for _, e := range entries {
		known := slices.ContainsFunc(files, func(f escrow.FileStatus) bool { return f.File == e.Name() })
		if !known && e.Type().IsRegular() && filepath.Ext(e.Name()) == ".age" {
			files = append(files, escrow.FileStatus{File: e.Name(), OnDisk: true})
		}
	}
	if len(files) == 0 {
		return Escrow{}, ErrNone
	}
	slices.SortFunc(files, func(a, b escrow.FileStatus) int { return strings.Compare(a.File, b.File) })
	return Escrow{Files: files}, nil
}
