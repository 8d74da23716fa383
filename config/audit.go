package config

import (
	"fmt"
	"time"
)

// Audit is the table [audit]: how Vault's audit logs are rotated and kept.
type Audit struct {
	// RotateMB and RotateAfter: a log is rotated when it has so many megabytes
	// (2^20 bytes), or holds lines so old.
	RotateMB    int           `toml:"rotate_mb"`
	RotateAfter time.Duration `toml:"rotate_after"`
	// Keep and KeepMB bound the rotated logs, by age and by their sum. The
	// oldest go first.
	Keep   time.Duration `toml:"keep"`
	KeepMB int           `toml:"keep_mb"`
	// WarnPercent is the use of the disk at which to warn; FullPercent the one
	// at which the oldest rotated logs are deleted, come what may: a full disk
	// stops Vault.
	WarnPercent int `toml:"warn_percent"`
	FullPercent int `toml:"full_percent"`
}

// DefaultAudit is the table before any file.
func DefaultAudit() Audit {
	return Audit{RotateMB: 64, RotateAfter: 24 * time.Hour, Keep: 90 * 24 * time.Hour, KeepMB: 4096, WarnPercent: 80, FullPercent: 92}
}

// LoadAudit reads and validates the table [audit] of a file and passes over what
// else is in it. A file without the table gives the defaults. Its error is
// Faults: all of them.
func LoadAudit(file string) (Audit, error) {
	data, err := Read(file)
	if err != nil {
		return Audit{}, err
	}
	a := DefaultAudit()
	at, _, f := decodeTables(file, data, map[string]any{"audit": &a})
	a.check(f.Check(file, at))
	return a, f.Err()
}

func (a Audit) check(check func(string, error)) {
	if a.RotateMB < 1 || a.RotateMB > 1<<20 {
		check("audit.rotate_mb", fmt.Errorf("%d is not between 1 and %d", a.RotateMB, 1<<20))
	}
	if a.RotateAfter < time.Minute {
		check("audit.rotate_after", fmt.Errorf("%v is shorter than a minute", a.RotateAfter))
	}
	if a.RotateAfter > longestLife {
		check("audit.rotate_after", fmt.Errorf("%v is more than %s", a.RotateAfter, days(longestLife)))
	}
	if a.Keep > longestKept {
		check("audit.keep", fmt.Errorf("%v is more than %s", a.Keep, days(longestKept)))
	}
	if a.Keep < a.RotateAfter {
		check("audit.keep", fmt.Errorf("%v is shorter than rotate_after (%v)", a.Keep, a.RotateAfter))
	}
	if a.KeepMB < a.RotateMB {
		check("audit.keep_mb", fmt.Errorf("%d is below rotate_mb (%d)", a.KeepMB, a.RotateMB))
	}
	if a.WarnPercent < 1 || a.WarnPercent > 99 {
		check("audit.warn_percent", fmt.Errorf("%d is not between 1 and 99", a.WarnPercent))
	}
	if a.FullPercent <= a.WarnPercent || a.FullPercent > 99 {
		check("audit.full_percent", fmt.Errorf("%d is not between warn_percent (%d) and 99", a.FullPercent, a.WarnPercent))
	}
}
